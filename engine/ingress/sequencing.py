"""The sequencer: everything that depends on time or order is decided here, once, and written down.

Owns positions, sequence state and key steps. Runs in ingress. Reads verified messages, writes records
of `inputs` (the commit point), then their slots in one store, then the stream and key tables. What
must stay true: an input is accepted exactly when the head of `inputs` has passed its record; all that
comes after can be done again from the record, and is, when this process died in between.
"""

import logging
import time
from collections.abc import Callable

import numpy as np

from engine import limits, records
from engine.contract.names import Kind, Reason
from engine.errors import Refused
from engine.ingress.admission import Message
from engine.ingress.copies import FirstCopies, differs
from engine.ingress.reading import read_batch, read_envelope
from engine.ingress.steps import Steps
from engine.ingress.tables import Tables, shard_of
from engine.ingress.values import read_vectors
from engine.settings import Settings
from engine.shared import FINISHED, INGRESS, Count, Shared, Stage, verdict_of
from engine.tenancy.plans import plan_of, read_plans
from fastpath import arbiter
from fastpath.arbiter import Arrival
from fastpath.ring import Ring
from fastpath.slots import fill_slots, newest_of
from fastpath.vectors import Batch
from fastpath.wire import Envelope

log = logging.getLogger("ingress")

LATE = (Arrival.LATE, Arrival.LATE_PREVIOUS)


class Sequencer:
    """Takes messages in the order of their turn.

    Parameters
    ----------
    counters
        `child_row.counters` of this process.
    report
        Called with (message's envelope, Refused) for what becomes no answer.
    """

    def __init__(
        self,
        shared: Shared,
        settings: Settings,
        counters: memoryview,
        report: Callable[[Envelope, Refused], None],
    ) -> None:
        self.shared = shared
        self.settings = settings
        self.counters = counters
        self.report = report
        self.tables = Tables(shared, settings.limits)
        self.steps = Steps(self.tables, settings)
        self.plans = read_plans(shared.plans)
        self.next_position = 1
        self.tail_position = 1  # of the oldest input that is not done
        self.unreleased_max = limits.UNRELEASED_BATCHES * settings.engine.max_batch
        self.copies = FirstCopies()
        self.batch = Batch()  # of the message that is being taken
        self._workers = shared.supervisor["shards"][0].tolist()  # settled before this process began
        self._shards, self._generations, self._taken = (
            shared.streams[name].data for name in ("shard", "generation", "taken")
        )
        self._verdicts = shared.verdicts.data
        self._applied = shared.ingress["applied"].data
        self._lag = shared.stage(INGRESS, Stage.BUS_LAG)

    def open(self) -> None:
        """Completes what an earlier process of this role accepted and left half done."""
        self.tables.open()
        board, inputs = self.shared.ingress[0], self.shared.inputs
        self.next_position = int(board["applied"]) + 1
        self.tail_position = self.next_position
        for byte_position, _ in inputs.records(inputs.tail, inputs.head):
            record = records.read(inputs, byte_position)
            position = record.head.position
            self.tail_position = min(self.tail_position, position)
            if position >= self.next_position:
                self._publish_slots(record, byte_position)
                self._apply(record)
                self.next_position = position + 1
                self.counters[Count.REAPPLIED] += 1

    def worker_of(self, company: str, stream: str) -> int:
        """Whose ring this stream's inputs go through."""
        row = self.tables.streams.names.get((company, stream))
        if row is not None and self._taken[row]:  # a reserved one may wait for its input to find room
            return self._workers[self._shards[row]]
        return self._workers[shard_of(company, stream)]

    def take(self, message: Message, worker: int) -> bool:
        """Decides a message, and accepts it where it becomes an answer. False: no room, ask again later."""
        requests = self.shared.requests[worker]
        if requests.head - requests.tail >= self.unreleased_max:
            return False
        envelope = message.envelope
        try:
            index, arrival, missing = self._arbitrate(message)
        except Refused as refused:
            self.report(envelope, refused)
            return True
        if arrival == Arrival.DUPLICATE:
            self._count_duplicate(message)
            return True
        late, decisions, detail = arrival in LATE, records.NO_DECISIONS, ""
        head = self._head(message, index, worker, arrival, missing)
        if message.kind == Kind.VECTOR:
            try:
                self._decide(message, index, head.generation, late, missing)
                decisions = self.batch.decisions
            except Refused as refused:
                head.kind, head.reason, detail = Kind.REJECTION, refused.reason, refused.detail
                self.steps.give_back()
            except Exception:  # a fault of ours; nothing is accepted yet, and it must not stop the others
                log.exception("input %d of a batch that could not be decided", self.next_position)
                head.kind, head.reason = Kind.REJECTION, Reason.INTERNAL
                detail = "the engine could not decide this message; its operator has the details"
                self.steps.give_back()
        head.decisions = len(decisions)
        head.count = max(1, len(decisions))
        if not self._commit(message, head, decisions, detail, requests):
            self.steps.give_back()
            return False
        message.vectors = len(decisions)
        self._count_accepted(head, late, missing)
        self.copies.remember(message)
        return True

    def _decide(self, message: Message, index: int, generation: int, late: bool, missing: int) -> None:
        """Into the batch, or Refused."""
        if message.overloaded:
            raise Refused(Reason.OVERLOADED, "more was sent than this engine answers in time; send less or later")
        envelope = message.envelope
        read_vectors(self.batch, envelope, self.settings.limits.vectors)
        self.steps.decide(self.batch, envelope.timestamp, envelope.company_id, index, generation, late, missing)

    def leaves_gap(self, message: Message) -> bool:
        """Whether accepting this message now would give up on others before it. Changes nothing."""
        envelope = message.envelope
        index = self.tables.streams.names.get((envelope.company_id, envelope.service_source))
        if index is None:
            return False
        decide = arbiter.decide_heartbeat if message.kind == Kind.HEARTBEAT else arbiter.decide
        rows, states = self.shared.streams, self.shared.stream_states
        return decide(states, rows, index, envelope.epoch, envelope.sequence)[1] > 0

    def newest_minute(self, company: str, stream: str) -> tuple[int, int] | None:
        """(row of a stream, the newest minute of its windows)."""
        index = self.tables.streams.names.get((company, stream))
        if index is None:
            return None
        return index, arbiter.newest_minute(self.shared.stream_states, self.shared.streams, index)

    def advance_tail(self) -> None:
        """Frees the records of inputs that are done, oldest first."""
        inputs = self.shared.inputs
        end = inputs.tail
        for byte_position, size in inputs.records(inputs.tail, inputs.head):
            position = records.position_of(inputs, byte_position)
            if verdict_of(self._verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)], position) not in FINISHED:
                break
            self.tail_position = position + 1
            end = byte_position + size
        if end > inputs.tail:
            inputs.release(end)

    def _arbitrate(self, message: Message) -> tuple[int, int, int]:
        """(row of the stream, what the arbiter says, sequences missing just before)."""
        envelope = message.envelope
        if envelope.epoch > message.received_unix_ns + limits.EPOCH_AHEAD_MAX_NS:
            raise Refused(
                Reason.OUT_OF_RANGE,
                "the epoch lies over a minute in the future; set it to the sender's start and check its clock",
            )
        rows, states = self.shared.streams, self.shared.stream_states
        name = (envelope.company_id, envelope.service_source)
        index = self.tables.streams.names.get(name)
        if index is None:
            index = self.tables.streams.reserve(envelope.company_id, name)
            rows[index]["taken"] = 0
            arbiter.forget(states, rows, index)
        decide = arbiter.decide_heartbeat if message.kind == Kind.HEARTBEAT else arbiter.decide
        arrival, missing = decide(states, rows, index, envelope.epoch, envelope.sequence)
        if arrival == Arrival.STALE:
            raise Refused(
                Reason.STALE,
                "the epoch is older than the stream's last two; a sender takes its start as epoch and keeps it",
            )
        return index, arrival, missing

    def _head(self, message: Message, index: int, worker: int, arrival: int, missing: int) -> records.Head:
        envelope, engine, head = message.envelope, self.settings.engine, records.Head()
        head.position = self.next_position
        head.epoch, head.sequence = envelope.epoch, envelope.sequence
        head.received_ns, head.received_unix_ns = message.received_ns, message.received_unix_ns
        head.deadline_ns = message.received_ns + engine.deadline_ms * 1_000_000
        head.timestamp = envelope.timestamp
        head.stream = index
        head.generation = self._generations[index] + (not self._taken[index])  # a new owner, a new generation
        head.missing, head.arrival, head.late = min(missing, 0xFFFFFFFF), arrival, arrival in LATE
        head.worker, head.kind, head.tier, head.bus = worker, message.kind, message.tier, message.bus
        head.plan = plan_of(self.plans, envelope.company_id, envelope.user_id, message.tier)
        head.expired = message.expired(engine.max_message_age_ms)
        return head

    def _commit(self, message: Message, head: records.Head, decisions: np.ndarray, detail: str, requests: Ring) -> bool:
        """Writes the record, then all that follows from it. False: no room, and nothing happened."""
        envelope, inputs = message.envelope, self.shared.inputs
        traceparent, tracestate = envelope.traceparent, envelope.tracestate
        texts = [
            text.encode()
            for text in (
                envelope.company_id,
                envelope.service_source,
                envelope.user_id,
                envelope.correlation_id,
                traceparent if len(traceparent) <= limits.TRACE_BYTES_MAX else "",
                tracestate if len(tracestate) <= limits.TRACE_BYTES_MAX else "",
                detail,
            )
        ]
        raw, decided, count = envelope.without_token(), decisions.tobytes(), head.count
        first, size = requests.claim(count), records.bytes_needed(decided, texts, raw)
        byte_position = self._room(size) if first >= 0 else -1
        if byte_position < 0:
            return False
        head.requests = first
        records.write(inputs.view(byte_position, size), head, decided, texts, raw)
        inputs.publish(byte_position + size)  # accepted
        self.next_position += 1
        fill_slots(requests, inputs, byte_position, self.batch)
        message.published_ns = time.monotonic_ns()  # before it is: its worker may take it at once
        requests.publish(first + count)
        self._apply_parts(head, decisions, envelope.company_id, envelope.service_source)
        return True

    def _room(self, size: int) -> int:
        """Where a record of so many bytes may lie; -1: nowhere, until more inputs are done."""
        byte_position = self._claimed(size)
        if byte_position < 0:
            self.advance_tail()
            byte_position = self._claimed(size)
        return byte_position

    def _claimed(self, size: int) -> int:
        is_full = self.next_position - self.tail_position >= limits.INPUTS_IN_FLIGHT_MAX
        return -1 if is_full else self.shared.inputs.claim(size)

    def _publish_slots(self, record: records.Record, byte_position: int) -> None:
        """After a restart: the slots of a record, where the ring lacks them."""
        requests = self.shared.requests[record.head.worker]
        first, count = record.head.requests, record.head.count
        if requests.head >= first + count:
            return
        if record.head.kind == Kind.VECTOR:
            read_batch(self.batch, read_envelope(record.raw).payload)
        claimed = requests.claim(count)
        if claimed != first:
            position = record.head.position
            raise RuntimeError(
                f"record {position} belongs at {first} of its ring, which gave {claimed}; the arena is corrupt"
            )
        fill_slots(requests, self.shared.inputs, byte_position, self.batch)
        requests.publish(first + count)

    def _apply(self, record: records.Record) -> None:
        self._apply_parts(record.head, record.decisions, record.company, record.stream)

    def _apply_parts(self, head: records.Head, decisions: np.ndarray, company: str, stream: str) -> None:
        """The tables, as the record says; doing it twice is doing it once."""
        rows, states = self.shared.streams, self.shared.stream_states
        index, position = head.stream, head.position
        if not arbiter.use(rows, index, head.generation, head.received_ns):
            row = rows[index]
            row["company"], row["stream"] = company.encode(), stream.encode()
            row["shard"] = shard_of(company, stream)
            row["generation"] = head.generation
            row["taken"] = 1
            self.tables.streams.restore(index, company, (company, stream))
        newest = arbiter.newest_minute(states, rows, index)
        minute = newest if head.late else max(newest, newest_of(decisions))
        arbiter.apply(
            states,
            rows,
            index,
            position,
            head.epoch,
            head.sequence,
            minute,
            head.kind == Kind.HEARTBEAT,
        )
        self.steps.apply(decisions, index, head.generation, company, head.received_ns)
        self._applied[0] = position

    def _count_accepted(self, head: records.Head, late: bool, missing: int) -> None:
        counters = self.counters
        if missing:
            counters[Count.MISSING] += min(missing, 1 << 32)  # a counter that a sequence cannot wrap
        if head.kind == Kind.HEARTBEAT:
            counters[Count.HEARTBEATS] += 1
            return
        counters[Count.INPUTS_ACCEPTED] += 1
        if late:
            counters[Count.LATE] += 1
        if head.kind == Kind.REJECTION:
            counters[Count.REJECTED_MESSAGES] += 1
            counters[Count.OVERLOADED] += head.reason == Reason.OVERLOADED
        else:
            counters[Count.VECTORS_ACCEPTED] += head.decisions
            counters[Count.REJECTED_VECTORS] += self.batch.rejected

    def _count_duplicate(self, message: Message) -> None:
        """The first copy stands; other bytes under its name are somebody's mistake, and told."""
        self.counters[Count.DUPLICATES] += 1
        first = self.copies.first(message)
        if first is None:
            return
        if message.bus != first.bus:
            self._lag.record(message.received_ns - first.received_ns)
        if differs(message, first):
            self.counters[Count.CONFLICTS] += 1
            self.report(
                message.envelope,
                Refused(
                    Reason.MALFORMED,
                    "other bytes came before under this name; the first copy stands, number each message once",
                ),
            )

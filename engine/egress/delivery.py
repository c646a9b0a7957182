"""Answers to the buses: sent in order, confirmed, and only then done.

Owns what was gathered and is not done. Runs in egress. Writes verdict words, each before the sending that it decides,
and the tails of the answers rings. What must stay true: once some bus may have an answer it is not decided again; an
input is done when one bus confirmed it; what a bus that is away would still get waits in bounded memory; what was
written to NATS before its connection broke is not written there again if Kafka has it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from logging import Logger

import numpy as np
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from engine import limits
from engine.bus.local import Reader
from engine.contract.names import Kind
from engine.egress.deadletters import dead_letter
from engine.egress.encoding import Answer, Versions, as_internal, encode
from engine.egress.gathering import Gathered, Pending
from engine.egress.kafka_out import WAITS, KafkaOut
from engine.egress.nats_out import HEADER_BYTES_MAX, NatsOut
from engine.records import Record
from engine.shared import EGRESS, FINISHED, Count, Expired, Shared, Stage, Verdict, verdict_of, verdict_word

WRITE_EVERY_NS = 1_000_000  # so that an answer does not wait for all that are encoded after it
CONFIRM_EVERY_S = 0.005  # nobody waits for a confirmation but room, so one PING stands for many answers


class Delivery:
    """Sends, confirms, releases.

    Parameters
    ----------
    nats, kafka
        None where the bus is not configured.
    readers
        Local readers by company, None where there is no local bus.
    wake
        Has `send` called again soon.
    """

    def __init__(
        self,
        shared: Shared,
        counters: memoryview,
        engine: str,
        nats: NatsOut | None,
        kafka: KafkaOut | None,
        readers: dict[str, set[Reader]] | None,
        wake: Callable[[], None],
        log: Logger,
    ) -> None:
        self.shared = shared
        self.counters = counters
        self.engine = engine
        self.nats = nats
        self.kafka = kafka
        self.readers = readers
        self.wake = wake
        self.log = log
        self.versions = Versions(shared.versions, shared.feature_names)
        self.waiting: list[deque[Pending]] = [deque() for _ in range(shared.workers)]
        self.unsent: deque[Pending] = deque()
        self._kept: list[Pending] = []  # of this pass over `unsent`, and whose they are
        self._held_up: set[str] = set()
        self.something_sent = asyncio.Event()
        self._unconfirmed: list[Pending] = []  # on NATS
        self._on_kafka: deque[Pending] = deque()
        self._stages = [shared.stage(EGRESS, stage) for stage in Stage]
        self._verdicts = shared.verdicts.data

    @property
    def idle(self) -> bool:
        return not any(self.waiting) and not self.unsent

    def enter(self, gathered: Gathered) -> None:
        """A whole answer from a worker. What an earlier egress, or engine, finished is only released."""
        pending = Pending(gathered)
        self.waiting[gathered.worker].append(pending)
        if self._verdict(gathered.position) in FINISHED:
            pending.done = True
            self._release(gathered.worker)
        elif gathered.record.head.expired == Expired.ANSWERED_BEFORE:
            self._finish(pending)
        else:
            self.unsent.append(pending)
            if letter := dead_letter(gathered, self.shared.inputs, self.engine, self.counters, self.log):
                self._send_letter(letter, gathered)

    def _send_letter(self, letter: Answer, gathered: Gathered) -> None:
        """To every bus that there is; no input waits for it."""
        nobody = Pending(gathered, done=True)
        if self.nats is not None:
            self.nats.keep(letter, nobody)
        if self.kafka is not None and not self.kafka.offer(letter):
            self.kafka.keep(letter, nobody)

    def send(self) -> bool:
        """Sends what some bus can take now, each company's in order; who has no bus now holds nobody else up.

        False: there is more, once what was written has left.
        """
        until_ns = time.monotonic_ns() + WRITE_EVERY_NS
        while self.unsent:
            pending = self.unsent.popleft()
            company = pending.gathered.record.company
            if not pending.done and (company in self._held_up or not self._sent(pending)):
                self._kept.append(pending)
                self._held_up.add(company)
            if time.monotonic_ns() >= until_ns and self.unsent:
                return False
        self._put_back(self._kept)
        self._kept = []
        self._held_up.clear()
        return True

    def _sent(self, pending: Pending) -> bool:
        """Sends one answer. False: no bus takes it now."""
        nats, kafka = self.nats, self.kafka
        if nats is not None and nats.is_up and nats.outbox:  # it came back amid these answers
            self.empty_outbox()
        over_kafka = kafka is not None and kafka.takes
        over_nats = nats is not None and nats.takes and not (pending.nats_connection and over_kafka)
        readers = self._readers_of(pending)
        if not over_nats and not over_kafka and not readers:
            if not self._is_for_nobody(pending):
                return False
            self._finish(pending)
            return True
        answer = self._decide(pending)
        if nats is not None and over_nats:
            over_nats = self._send_nats(nats, pending, answer)
        for reader in readers:
            if reader.send(answer.body):
                pending.local_sent = True
            else:
                self.counters[Count.LOCAL_CUT] += 1
        if kafka is not None and (kafka.both or not over_nats):
            self._send_kafka(kafka, pending, answer, may_wait=over_nats or pending.local_sent)
        over_kafka = pending.kafka_end > 0
        if not over_nats and not over_kafka and not pending.local_sent:
            return False  # whoever was there left just now
        self._note_sent(pending, answer)
        if nats is not None and not over_nats and pending.nats_connection == 0:
            nats.keep(answer, pending)
        if pending.local_sent and not over_nats:
            self._finish(pending)
        return True

    async def confirm(self) -> None:
        """For ever: a PING after what was sent; its PONG says that the server has all of it."""
        assert self.nats is not None
        while True:
            await asyncio.sleep(CONFIRM_EVERY_S)
            await self.something_sent.wait()
            self.something_sent.clear()
            batch = list(self._unconfirmed)  # what is sent from here on is not behind this PING
            connection = await self.nats.pinged()
            for pending in batch:
                if connection and pending.nats_connection == connection:
                    self._stages[Stage.CONFIRM].record(time.monotonic_ns() - pending.sent_ns)
                    self._finish(pending)
            self._unconfirmed = [pending for pending in self._unconfirmed if not pending.done]
            self._take_back_lost()
            if self._unconfirmed:
                self.something_sent.set()

    def hear_kafka(self) -> None:
        """What Kafka confirmed is done; what waited for room in its ring goes in."""
        if self.kafka is None:
            return
        while self._on_kafka and (self._on_kafka[0].done or self.kafka.confirmed(self._on_kafka[0].kafka_end)):
            self._finish(self._on_kafka.popleft())
        self._on_kafka.extend(each for each in self.kafka.empty() if not each.done)

    def move_unconfirmed(self) -> None:
        """Over the other bus, under the same name: what a Kafka that is away was left with, what NATS is late with."""
        nats, kafka = self.nats, self.kafka
        if nats is None or kafka is None:
            return
        if nats.takes and not kafka.is_up:
            left = [
                each for each in self._on_kafka if not each.done and each.nats_connection not in (0, nats.connection)
            ]
            for pending in left:
                pending.nats_connection = 0
            self._send_again(left)
        if kafka.both or not kafka.takes:
            return
        late_ns = time.monotonic_ns() - limits.NATS_CONFIRM_LIMIT_MS * 1_000_000
        for pending in self._unconfirmed:
            if pending.sent_ns < late_ns and not pending.done and not pending.kafka_end and pending.answer is not None:
                self._send_kafka(kafka, pending, pending.answer, may_wait=False)
                self.counters[Count.NATS_UNCONFIRMED] += pending.kafka_end > 0

    def connection_lost(self) -> None:
        if self.nats is not None:
            self.nats.connection_lost()
            self._take_back_lost()

    def _take_back_lost(self) -> None:
        """After a connection broke: what it carried and nobody confirmed goes out again, before anything newer.

        What a local reader has is done; what is on its way to Kafka is not written to NATS a second time.
        """
        if self.nats is None:
            return
        connection = self.nats.connection
        lost = [pending for pending in self._unconfirmed if pending.nats_connection != connection]
        if not lost:
            return
        self._unconfirmed = [pending for pending in self._unconfirmed if pending.nats_connection == connection]
        on_kafka = self.kafka is not None and self.kafka.is_up
        for pending in lost:
            if pending.local_sent:
                self._finish(pending)
        self._send_again([each for each in lost if not each.done and not (on_kafka and each.kafka_end > 0)])

    def _send_again(self, pendings: list[Pending]) -> None:
        if pendings:
            self.counters[Count.RESENT] += len(pendings)
            self._put_back(pendings)
            self.wake()

    def _put_back(self, pendings: list[Pending]) -> None:
        if pendings:
            self.unsent = deque(sorted([*pendings, *self.unsent], key=lambda pending: pending.gathered.position))

    def empty_outbox(self) -> None:
        """Sends NATS what it missed while it was away."""
        if self.nats is not None:
            for pending, connection in self.nats.empty_outbox():
                if not pending.done:  # then Kafka has not confirmed it, and NATS may
                    pending.nats_connection = connection
                    self._unconfirmed.append(pending)
                    self.something_sent.set()
        waiting = (each.waiting_bytes for each in (self.nats, self.kafka) if each is not None)
        self.counters[Count.OUTBOX_BYTES] = sum(waiting)

    def _decide(self, pending: Pending) -> Answer:
        """The bytes, after their verdict was stored."""
        if pending.answer is None:
            gathered = pending.gathered
            verdict = self._verdict(gathered.position)
            head = gathered.record.head
            if verdict == Verdict.NONE:
                late = head.kind == Kind.VECTOR and time.monotonic_ns() > head.deadline_ns
                verdict = Verdict.EXPIRED if late else Verdict.SENDING
                self._store(gathered.position, verdict)
                self.counters[Count.EXPIRED_UNSENT] += late
            pending.answer = self._encode(gathered.slots, gathered.record, verdict == Verdict.EXPIRED)
        return pending.answer

    def _encode(self, slots: list[np.void], record: Record, expired: bool) -> Answer:
        """The bytes, or those of a rejection where there are none or the server would refuse them."""
        try:
            answer = encode(slots, record, expired, self.versions, self.engine)
        except Exception:  # a fault of a worker's; it must not end everybody's answers
            self.log.exception("input %d: its answer slots make no sense", record.head.position)
            return self._encode_internal(record, "the engine could not word its answer; its operator has the details")
        if self.nats is not None and (beyond := self.nats.beyond_limit(answer)):
            size = len(answer.body) + HEADER_BYTES_MAX
            self.log.error("an answer of %d bytes is more than the %d that nats takes", size, size - beyond)
            detail = f"the answer has {size} bytes and the bus takes {size - beyond}; send fewer vectors in one message"
            return self._encode_internal(record, detail)
        return answer

    def _encode_internal(self, record: Record, detail: str) -> Answer:
        return encode([], as_internal(record, detail), False, self.versions, self.engine)

    def _send_nats(self, nats: NatsOut, pending: Pending, answer: Answer) -> bool:
        """False: it is not known to have left, and goes out again before anything newer of its company."""
        connection = nats.connection
        try:
            nats.publish(answer)
        except MaxPayloadError:
            pending.answer = None  # encoded while nats was away; now its bound is known
            return False
        except (NatsError, OSError) as error:
            self.log.warning("nats: %s; the answer goes out again once it is back", error)
            return False
        pending.nats_connection = connection
        if connection != nats.connection:  # it broke in the middle
            self.counters[Count.RESENT] += 1
            return False
        self._unconfirmed.append(pending)
        self.something_sent.set()
        return True

    def _send_kafka(self, kafka: KafkaOut, pending: Pending, answer: Answer, may_wait: bool) -> None:
        """Into the ring; `may_wait`: another bus has it, so this copy may wait for room."""
        if pending.kafka_end:
            return
        pending.kafka_end = kafka.offer(answer)
        if pending.kafka_end:
            self._on_kafka.append(pending)
        elif may_wait:
            pending.kafka_end = WAITS
            kafka.keep(answer, pending)

    def _readers_of(self, pending: Pending) -> list[Reader]:
        if self.readers is None or pending.local_sent:
            return []
        return [reader for reader in self.readers.get(pending.gathered.record.company, ()) if reader.is_open]

    def _is_for_nobody(self, pending: Pending) -> bool:
        """A host with the local bus alone, where nobody of the company read in time."""
        if self.nats is not None or self.kafka is not None:
            return False
        late = time.monotonic_ns() > pending.gathered.record.head.deadline_ns
        self.counters[Count.UNREAD] += late
        return late

    def _note_sent(self, pending: Pending, answer: Answer) -> None:
        now = time.monotonic_ns()
        if pending.sent_ns == 0:
            for stage, ns in pending.gathered.spans_ns(now):
                self._stages[stage].record(ns)
            self.counters[Count.SENT] += 1
            self.counters[Count.SENT_BYTES] += len(answer.body)
        pending.sent_ns = now

    def _finish(self, pending: Pending) -> None:
        """Done: the verdict first, then the room."""
        if pending.done:
            return
        position = pending.gathered.position
        expired = self._verdict(position) == Verdict.EXPIRED
        self._store(position, Verdict.EXPIRED_DONE if expired else Verdict.DONE)
        pending.done = True
        self.counters[Count.CONFIRMED] += 1
        self._release(pending.gathered.worker)

    def _release(self, worker: int) -> None:
        waiting, end = self.waiting[worker], -1
        while waiting and waiting[0].done:
            end = waiting.popleft().gathered.end
        if end >= 0:
            self.shared.answers[worker].release(end)

    def _verdict(self, position: int) -> Verdict:
        return verdict_of(self._verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)], position)

    def _store(self, position: int, verdict: Verdict) -> None:
        self._verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)] = verdict_word(position, verdict)

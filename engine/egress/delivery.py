"""Answers to the buses: sent in order, confirmed, and only then done.

Owns what was gathered and is not done, and the outbox. Runs in egress. Writes verdict words, each before
the sending that it decides, and the tails of the answers rings. What must stay true: once some bus may
have an answer it is not decided again; an input is done when one bus confirmed it; what a bus that is
away would still get waits in bounded memory.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger

import numpy as np
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from engine import limits
from engine.bus.local import Reader
from engine.bus.nats import NatsLink
from engine.contract.names import MESSAGE_ID_HEADER, Kind
from engine.egress.deadletters import dead_letter
from engine.egress.encoding import Answer, Versions, as_internal, encode
from engine.egress.gathering import Gathered
from engine.records import Record
from engine.shared import EGRESS, FINISHED, Count, Shared, Stage, Verdict, verdict_of, verdict_word

CONFIRM_EVERY_S = 0.005  # nobody waits for a confirmation but room, so one PING stands for many answers
HEADER_BYTES_MAX = 512  # of a NATS message beside its body: the names in it have bounds
CONFIRM_LIMIT_S = 2  # for the PONG; the link's own pings notice a dead server before


@dataclass(slots=True)
class Pending:
    """One answer between gathering and done."""

    gathered: Gathered
    answer: Answer | None = None
    sent_ns: int = 0
    nats_connection: int = 0  # which one carried it, 0: none
    local_sent: bool = False
    done: bool = False


class Delivery:
    """Sends, confirms, releases.

    Parameters
    ----------
    link
        The NATS link, None where no NATS is configured.
    readers
        Local readers by company, None where there is no local bus.
    wake
        Has `send` called again soon.
    """

    def __init__(
        self,
        shared: Shared,
        counters: np.ndarray,
        engine: str,
        link: NatsLink | None,
        readers: dict[str, set[Reader]] | None,
        outbox_bytes_max: int,
        wake: Callable[[], None],
        log: Logger,
    ) -> None:
        self.shared = shared
        self.counters = counters
        self.engine = engine
        self.link = link
        self.readers = readers
        self.outbox_bytes_max = outbox_bytes_max
        self.wake = wake
        self.log = log
        self.versions = Versions(shared.versions, shared.feature_names)
        self.waiting: list[deque[Pending]] = [deque() for _ in range(shared.workers)]
        self.unsent: deque[Pending] = deque()
        self.outbox: deque[Answer] = deque()
        self.outbox_bytes = 0
        self.something_sent = asyncio.Event()
        self._unconfirmed: list[Pending] = []
        self._ping: asyncio.Task | None = None
        self._stages = {stage: shared.stage(EGRESS, stage) for stage in (Stage.EGRESS, Stage.ENGINE, Stage.CONFIRM)}

    @property
    def idle(self) -> bool:
        return not any(self.waiting) and not self.unsent

    def enter(self, gathered: Gathered) -> None:
        """A whole answer from a worker. What an earlier egress finished is only released."""
        pending = Pending(gathered)
        self.waiting[gathered.worker].append(pending)
        if self._verdict(gathered.position) in FINISHED:
            pending.done = True
            self._release(gathered.worker)
        else:
            self.unsent.append(pending)
            if (
                letter := dead_letter(gathered, self.shared.inputs, self.engine, self.counters, self.log)
            ) and self.link is not None:
                self._keep_for_nats(letter)

    async def send(self) -> None:
        """Sends what some bus can take now, each company's in order; who has no bus now holds nobody else up."""
        kept: list[Pending] = []
        waiting_companies: set[str] = set()
        while self.unsent:
            pending = self.unsent.popleft()
            company = pending.gathered.record.company
            if company in waiting_companies or not await self._sent(pending):
                kept.append(pending)
                waiting_companies.add(company)
        self._put_back(kept)

    async def _sent(self, pending: Pending) -> bool:
        """Sends one answer. False: no bus takes it now."""
        over_nats = self.link is not None and self.link.is_up
        readers = self._readers_of(pending)
        if not over_nats and not readers:
            if not self._is_for_nobody(pending):
                return False
            self._finish(pending)
            return True
        answer = self._decide(pending)
        if over_nats:
            over_nats = await self._send_nats(pending, answer)
        for reader in readers:
            if reader.send(answer.body):
                pending.local_sent = True
            else:
                self.counters[Count.LOCAL_CUT] += 1
        if not over_nats and not pending.local_sent:
            return False  # whoever was there left just now
        self._note_sent(pending, answer)
        if not over_nats:
            if self.link is not None and pending.nats_connection == 0:
                self._keep_for_nats(answer)
            self._finish(pending)
        return True

    async def confirm(self) -> None:
        """For ever: a PING after what was sent; its PONG says that the server has all of it."""
        assert self.link is not None
        while True:
            await asyncio.sleep(CONFIRM_EVERY_S)
            await self.something_sent.wait()
            self.something_sent.clear()
            batch = list(self._unconfirmed)  # what is sent from here on is not behind this PING
            connection = await self._pinged()
            for pending in batch:
                if pending.nats_connection == connection:
                    self._stages[Stage.CONFIRM].record(time.monotonic_ns() - pending.sent_ns)
                    self._finish(pending)
            self._unconfirmed = [pending for pending in self._unconfirmed if not pending.done]
            self._take_back_lost()
            if self._unconfirmed:
                self.something_sent.set()

    async def _pinged(self) -> int:
        """The number of the connection on which everything written so far arrived, 0: none."""
        assert self.link is not None
        connection = self.link.connections
        if not self.link.is_up:
            return 0
        self._ping = asyncio.get_running_loop().create_task(self._flush_twice())
        await asyncio.wait({self._ping})  # ends with the connection too, see `connection_lost`
        if self._ping.cancelled():
            return 0
        try:
            self._ping.result()
        except (NatsError, TimeoutError, OSError):
            return 0
        # A client that lost its server ends a flush at once and without an error.
        return connection if connection == self.link.connections and self.link.is_up else 0

    async def _flush_twice(self) -> None:
        """Twice: this client writes its PING ahead of what it has queued, and queued bytes behind it."""
        assert self.link is not None
        await self.link.client.flush(timeout=CONFIRM_LIMIT_S)
        await self.link.client.flush(timeout=CONFIRM_LIMIT_S)

    def connection_lost(self) -> None:
        """The PONG that is waited for will never come; what it was to confirm is ahead of all that leaves next."""
        if self._ping is not None:
            self._ping.cancel()
        self._take_back_lost()

    def _take_back_lost(self) -> None:
        """After a connection broke: what it carried and nobody confirmed goes out again, before anything newer.

        What a local reader has is done: it is not written to NATS a second time.
        """
        if self.link is None:
            return
        connection = self.link.connections if self.link.is_up else 0
        lost = [pending for pending in self._unconfirmed if pending.nats_connection != connection]
        if not lost:
            return
        self._unconfirmed = [pending for pending in self._unconfirmed if pending.nats_connection == connection]
        again = [pending for pending in lost if not pending.local_sent]
        for pending in lost:
            if pending.local_sent:
                self._finish(pending)
        self.counters[Count.RESENT] += len(again)
        self._put_back(again)
        self.wake()

    def _put_back(self, pendings: list[Pending]) -> None:
        if pendings:
            self.unsent = deque(sorted([*pendings, *self.unsent], key=lambda pending: pending.gathered.position))

    async def empty_outbox(self) -> None:
        """Sends NATS what it missed while it was away."""
        while self.outbox and self.link is not None and self.link.is_up:
            answer = self.outbox[0]
            try:
                await self._publish(answer)
            except MaxPayloadError:  # its local reader has it; nothing behind it may wait for ever
                self.log.error("nats: an answer of %d bytes is more than it takes; dropped", len(answer.body))
                self.counters[Count.OUTBOX_DROPPED] += 1
            except (NatsError, OSError) as error:
                self.log.warning("nats: %s; the outbox goes out once it is back", error)
                break
            if self.outbox and self.outbox[0] is answer:
                self.outbox.popleft()
                self.outbox_bytes -= len(answer.body)
        self.counters[Count.OUTBOX_BYTES] = self.outbox_bytes

    def _decide(self, pending: Pending) -> Answer:
        """The bytes, after their verdict was stored."""
        if pending.answer is None:
            gathered = pending.gathered
            verdict = self._verdict(gathered.position)
            head = gathered.record.head
            if verdict == Verdict.NONE:
                late = int(head["kind"]) == Kind.VECTOR and time.monotonic_ns() > int(head["deadline_ns"])
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
            self.log.exception("input %d: its answer slots make no sense", int(record.head["position"]))
            return self._encode_internal(record, "the engine could not word its answer; its operator has the details")
        if self.link is not None and self.link.is_up:
            size, size_max = len(answer.body) + HEADER_BYTES_MAX, self.link.client.max_payload
            if size > size_max:
                self.log.error("an answer of %d bytes is more than the %d that nats takes", size, size_max)
                detail = f"the answer has {size} bytes and the bus takes {size_max}; send fewer vectors in one message"
                return self._encode_internal(record, detail)
        return answer

    def _encode_internal(self, record: Record, detail: str) -> Answer:
        return encode([], as_internal(record, detail), False, self.versions, self.engine)

    async def _send_nats(self, pending: Pending, answer: Answer) -> bool:
        """False: it is not known to have left, and goes out again before anything newer of its company."""
        assert self.link is not None
        connection = self.link.connections
        try:
            await self._publish(answer)
        except MaxPayloadError:
            pending.answer = None  # encoded while nats was away; now its bound is known
            return False
        except (NatsError, OSError) as error:
            self.log.warning("nats: %s; the answer goes out again once it is back", error)
            return False
        pending.nats_connection = connection
        if connection != self.link.connections or not self.link.is_up:  # it broke in the middle
            self.counters[Count.RESENT] += 1
            return False
        self._unconfirmed.append(pending)
        self.something_sent.set()
        return True

    async def _publish(self, answer: Answer) -> None:
        assert self.link is not None
        await self.link.client.publish(
            answer.subject, answer.body, headers={MESSAGE_ID_HEADER: answer.name} if answer.name else None
        )

    def _readers_of(self, pending: Pending) -> list[Reader]:
        if self.readers is None or pending.local_sent:
            return []
        return [reader for reader in self.readers.get(pending.gathered.record.company, ()) if reader.is_open]

    def _is_for_nobody(self, pending: Pending) -> bool:
        """A host with the local bus alone, where nobody of the company read in time."""
        if self.link is not None:
            return False
        head = pending.gathered.record.head
        if time.monotonic_ns() <= int(head["deadline_ns"]):
            return False
        self.counters[Count.UNREAD] += 1
        return True

    def _note_sent(self, pending: Pending, answer: Answer) -> None:
        now, gathered = time.monotonic_ns(), pending.gathered
        if pending.sent_ns == 0:
            self._stages[Stage.EGRESS].record(now - int(gathered.slots[-1]["answered_ns"]))
            self._stages[Stage.ENGINE].record(now - int(gathered.record.head["received_ns"]))
            self.counters[Count.SENT] += 1
            self.counters[Count.SENT_BYTES] += len(answer.body)
        pending.sent_ns = now

    def _keep_for_nats(self, answer: Answer) -> None:
        self.outbox.append(answer)
        self.outbox_bytes += len(answer.body)
        while self.outbox_bytes > self.outbox_bytes_max:
            self.outbox_bytes -= len(self.outbox.popleft().body)
            self.counters[Count.OUTBOX_DROPPED] += 1
        self.counters[Count.OUTBOX_BYTES] = self.outbox_bytes

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
        return verdict_of(int(self.shared.verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)]), position)

    def _store(self, position: int, verdict: Verdict) -> None:
        self.shared.verdicts[position & (limits.INPUTS_IN_FLIGHT_MAX - 1)] = verdict_word(position, verdict)

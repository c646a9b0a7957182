"""The ingress process: buses in, requests rings out.

Owns its bus connections and the queues before acceptance; through the sequencer it is the only writer of `inputs`,
of the requests rings' heads and of the stream and key tables. What must stay true: it waits for nobody. Where there
is no room a message waits in its company's bounded queue, then leaves its name, then is counted and shows as a gap.
Reading costs little and accepting much, so all that came is read before more is accepted, and messages wait in the
queues, where turns are fair, not on the buses.
"""

import asyncio
import math
import time
from itertools import islice

from engine import limits
from engine.child import Child, run_loop, stay_awake
from engine.contract.names import FEATURES_SUBJECT, Bus, Kind, Reason
from engine.errors import Refused, SettingsError
from engine.ingress import admission
from engine.ingress.gaps import GapWait
from engine.ingress.offsets import Offsets, Place
from engine.ingress.queues import FairQueue
from engine.ingress.recovery import Recovery
from engine.ingress.reports import Reports
from engine.ingress.sequencing import Sequencer
from engine.ingress.sources import Sources
from engine.ingress.turns import Turns
from engine.shared import EGRESS, INGRESS, KAFKA, BusState, Count, Engine, Phase, Stage, ring_bell
from engine.tenancy.tokens import Verifier
from fastpath.histogram import quantiles

FOREVER_NS = 1 << 62
GAPS_S = 0.002  # how often it is looked whose wait for another bus is over
TENANT_SECONDS = 300  # a company counts as active for this long


def run(child: Child) -> int:
    return run_loop(Ingress(child).serve())


class Ingress:
    """One engine's ingress. `serve` opens, runs and closes it."""

    def __init__(self, child: Child) -> None:
        settings, shared = child.settings, child.shared
        self.child = child
        self.settings = settings
        self.shared = shared
        self.counters = child.counters
        self.verifier = Verifier(settings.auth, settings.limits.token_bytes)
        self.reports = Reports(shared.rejections, self.counters, settings.limits.junk_per_s)
        self.sequencer = Sequencer(
            shared,
            settings,
            self.counters,
            lambda envelope, refused: self.reports.report(admission.claimed(envelope), refused),
        )
        self.queues = [FairQueue(settings.limits.queue) for _ in range(shared.workers)]
        self.bell = shared.bells[INGRESS.row]
        self.stage = shared.stage(INGRESS, Stage.INGRESS)
        self.sources = Sources(child, self.from_nats, self.from_local, self._oversized)
        self.wakes_early = child.cores > (2 if settings.engine.cpus else 1)  # a worker must not wake on this core
        self._nats_state = child.row["bus_nats"].data
        self._kafka_state = shared.children["bus_kafka"][KAFKA.row :].data
        self.heard: dict[str, int] = {}  # companies, and when, by CLOCK_MONOTONIC
        self.gaps = GapWait(limits.GAP_MESSAGES_MAX)
        self.offsets = Offsets(shared)
        self.recovery: Recovery | None = None  # while Kafka is read again, what other buses brought waits here
        self._lag_ns = 0
        self._gap_timer: asyncio.TimerHandle | None = None
        self.turns = Turns(self._turn)
        self.broken: Exception | None = None  # ends this process; event loops only log what a callback raises
        self._draining = False
        self._second = 0.0
        self._counted: dict[Count, int] = {}  # of this process; the arena's counters outlive it

    async def serve(self) -> int:
        """Runs until the supervisor asks for the end. Exit status."""
        child = self.child
        loop = asyncio.get_running_loop()
        self.verifier.open()
        self.sequencer.open()
        self.offsets.open(self.sequencer.next_position - 1)
        if self.settings.bus.kafka.bootstrap:
            self.recovery = Recovery(self.shared, self.offsets, self.settings.bus.kafka.recovery_ms)
        loop.add_reader(self.bell.fd, self._rung)
        self.read_kafka()
        await self.sources.open()
        stay_awake(child.policy(len(self.queues))[0])
        child.ready()
        try:
            while not child.stopping():
                child.pulse(Phase.IDLE)
                if self.broken is not None:
                    raise self.broken
                self.sources.check()
                self._chores()
                if child.engine_state() == Engine.DRAINING and not self._draining:
                    self._draining = True
                    await self.sources.stop_taking()
                await asyncio.sleep(limits.PULSE_EVERY_MS / 2000)
            return 0
        finally:
            await self.sources.close()

    def from_nats(self, raw: bytes, subject: str) -> None:
        """What has no place is dropped by its subject alone: a flood must not keep this process busy with reading."""
        if self._holds(raw, subject, Bus.NATS):
            return
        company, stream = subject.split(".")[-2:]
        if self.queues[self.sequencer.worker_of(company, stream)].is_full(company):
            self.counters[Count.MESSAGES] += 1
            self.counters[Count.MESSAGE_BYTES] += len(raw)
            self.counters[Count.DROPPED] += 1
            return
        self._enter(raw, subject, Bus.NATS)
        self.turns.soon()

    def from_local(self, raw: bytes) -> str:
        """The company that has no room for more, until `resume`."""
        if self._holds(raw, None, Bus.LOCAL):
            return ""
        company = self._enter(raw, None, Bus.LOCAL)
        self.turns.soon()
        return "" if self._has_room(company) else company

    def _holds(self, raw: bytes, subject: str | None, bus: Bus) -> bool:
        return self.recovery is not None and self.recovery.holds(raw, subject, bus)

    def _has_room(self, company: str) -> bool:
        """What names no company waits until nobody does."""
        return all(queue.has_room(company) if company else not queue.count for queue in self.queues)

    def read_kafka(self) -> None:
        """Some records, as long as their companies have room: Kafka keeps what is not read now."""
        if (ring := self.offsets.ring) is None or self._draining:
            return
        head, count = ring.head, 0
        try:
            for place, record in islice(self.offsets.waiting(self._has_room), limits.KAFKA_READ_MAX):
                subject = f"{FEATURES_SUBJECT}.{record.key.replace('/', '.', 1)}" if record.key else None
                self._enter(record.raw, subject, Bus.KAFKA, place)
                count += 1
        except Exception as error:  # the ring is corrupt, or a fault of ours: only a successor can go on
            self.broken = error
            return
        self.offsets.advance(self.sequencer.tail_position)
        self.bell.sleep()  # what comes from here on rings
        if count or ring.head != head:
            self.turns.soon()

    def take(self, raw: bytes, subject: str | None, bus: Bus) -> None:
        self._enter(raw, subject, bus)
        for worker in range(len(self.queues)):
            self.pump(worker)

    def _enter(self, raw: bytes, subject: str | None, bus: Bus, place: Place | None = None) -> str:
        """A message from a bus into the queue of its company, whose name it gives; empty: it was refused."""
        received_ns, received_unix_ns = time.monotonic_ns(), time.time_ns()
        self.counters[Count.MESSAGES] += 1
        self.counters[Count.MESSAGE_BYTES] += len(raw)
        envelope = None
        try:
            envelope = admission.decode(raw, self.settings.limits.message_bytes)
            kind = admission.check_names(envelope)
            ended, bytes_max = place is not None and place.answered, self.settings.limits.token_bytes
            tier = admission.verify(envelope, subject, self.verifier, bytes_max, ended)
        except Exception as error:
            if not isinstance(error, Refused):  # a fault of ours, which must not hide the message
                self.child.log.exception("a message could not be read")
                error = Refused(Reason.INTERNAL, "the engine could not read this message; its operator has the details")
            self.reports.report(admission.claimed(envelope) if envelope else admission.Claimed(), error)
            self.offsets.settle(place, self.sequencer.next_position - 1)
            self._ring_egress()
            return ""
        self.heard[envelope.company_id] = received_ns
        message = admission.Message(envelope, kind, tier, bus, received_ns, received_unix_ns, len(raw), place=place)
        worker = self.sequencer.worker_of(envelope.company_id, envelope.service_source)
        if self.wakes_early and bus != Bus.KAFKA:  # beside another bus most of its records are copies
            self.shared.bells[ring_bell(worker)].ring()  # its worker wakes up while this is decided
        self.counters[Count.DROPPED] += not self.queues[worker].put(message)
        return envelope.company_id

    def pump(self, worker: int, until_ns: int = FOREVER_NS) -> None:
        """Moves what waits for a worker into its ring, as far as there is room and time."""
        if self.broken is not None:
            return
        queue, bell = self.queues[worker], self.shared.bells[ring_bell(worker)]
        unverified = int(self.counters[Count.UNVERIFIED])

        def accept(message: admission.Message) -> bool:
            if time.monotonic_ns() >= until_ns:
                return False
            kept = self._waits_for_other_bus(message)
            return self._take(message, worker) if kept is None else kept

        try:
            queue.take_while(accept)
        except Exception as error:  # of ours, perhaps in the middle of an input: only a successor can complete it
            self.broken = error
            return
        bell.ring()
        if int(self.counters[Count.UNVERIFIED]) != unverified:
            self._ring_egress()
        if queue.count and time.monotonic_ns() >= until_ns:
            self.turns.read_on()
        elif queue.count:
            self.bell.sleep()
            self.turns.retry()

    def _take(self, message: admission.Message, worker: int) -> bool:
        """By the sequencer, and what waited for it behind it. False: no room."""
        if not self._take_one(message, worker):
            return False
        self._release_behind((message.envelope.company_id, message.envelope.service_source), worker)
        return True

    def _take_one(self, message: admission.Message, worker: int) -> bool:
        """By the sequencer; then a record of Kafka is settled."""
        envelope = message.envelope
        if not self.sequencer.take(message, worker):
            return False
        if message.published_ns:
            self.stage.record(message.published_ns - message.received_ns)
        self.queues[worker].charge(envelope.company_id, message.vectors)
        self.offsets.settle(message.place, self.sequencer.next_position - 1)
        if message.place is not None and message.kind == Kind.VECTOR:
            minute = self.sequencer.newest_minute(envelope.company_id, envelope.service_source)
            if minute is not None:
                self.offsets.note_minute(message.place, *minute)
        return True

    def _release_behind(self, name: tuple[str, str], worker: int) -> None:
        """What waited for a message that came now."""
        while (behind := self.gaps.first(name)) is not None and not self.sequencer.leaves_gap(behind):
            if not self._take_one(behind, worker):
                break  # looked at again when it is due
            self.gaps.pop(name)

    def _waits_for_other_bus(self, message: admission.Message) -> bool | None:
        """True: kept, those missing before it may still come. False: no room for one before it. None: its turn."""
        wait_ns, name = self._gap_wait_ns(message.bus), (message.envelope.company_id, message.envelope.service_source)
        if wait_ns == 0 or not self.sequencer.leaves_gap(message):
            # A bus went away, or an epoch began, while others waited: they go first, or would be late.
            while self.gaps.count and self.gaps.precedes(message):
                if not self._move_on(name):
                    return False
            return None
        while not self.gaps.hold(message, message.received_ns + wait_ns):
            if not self._move_on(name):
                return False
        if self._gap_timer is None:
            self._gap_timer = asyncio.get_running_loop().call_later(GAPS_S, self._gaps_due)
        return True

    def _gap_wait_ns(self, bus: Bus) -> int:
        """As long as another bus lags than a message's own; 0: none is up, or nothing more is taken."""
        nats = self._nats_state[0] == BusState.UP and bus != Bus.NATS
        kafka = self._kafka_state[0] == BusState.UP and bus != Bus.KAFKA
        if self._draining or not (nats or kafka or (self.sources.producers and bus != Bus.LOCAL)):
            return 0
        low_ns, high_ns = self.settings.bus.gap_wait_ms * 1_000_000, self.settings.engine.deadline_ms * 500_000
        return min(max(self._lag_ns, low_ns), high_ns)

    def _gaps_due(self) -> None:
        """The wait is over: streams move on, and what comes later is late."""
        self._gap_timer = None
        now_ns = time.monotonic_ns() if not self._draining else FOREVER_NS
        try:
            for name in self.gaps.due(now_ns):
                if self._move_on(name):
                    self.shared.bells[ring_bell(self.sequencer.worker_of(*name))].ring()
        except Exception as error:  # as in `pump`
            self.broken = error
            return
        if self.gaps.count:
            self._gap_timer = asyncio.get_running_loop().call_later(GAPS_S, self._gaps_due)

    def _move_on(self, name: tuple[str, str]) -> bool:
        """Gives up on what is missing before a stream's first message that waits. False: no room for it."""
        first, worker = self.gaps.first(name), self.sequencer.worker_of(*name)
        if first is None or not self._take_one(first, worker):
            return False
        self.gaps.pop(name)
        self._release_behind(name, worker)
        return True

    def _turn(self) -> None:
        """Moves on whatever waits; who needs room for it makes some of what is done."""
        slice_ns = self.turns.begin()
        if self.recovery is not None and self.recovery.over:
            if self.recovery.let_in(time.monotonic_ns() + slice_ns, self._has_room, self._enter):
                self.recovery = None
            else:
                self.turns.retry()
        for worker, queue in enumerate(self.queues):
            if queue.count:
                self.pump(worker, time.monotonic_ns() + slice_ns)
        self._advance()
        self.sources.resume(self._has_room, reading=not self._draining)
        self.read_kafka()

    def _advance(self) -> None:
        """Room of what is done, first in `inputs`, then in Kafka."""
        self.sequencer.advance_tail()
        self.offsets.advance(self.sequencer.tail_position)

    def _rung(self) -> None:
        self.bell.wake()
        self._turn()

    def _ring_egress(self) -> None:
        self.shared.bells[EGRESS.row].ring()

    def _oversized(self, detail: str) -> None:
        self.counters[Count.MESSAGES] += 1
        self.reports.report(admission.Claimed(), Refused(Reason.TOO_LARGE, detail))
        self._ring_egress()

    def _chores(self) -> None:
        """What is done a few times a second, whether or not anything came."""
        self._advance()
        if self.recovery is not None and self.recovery.ended():
            self.turns.soon()
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second = now
            self.offsets.note_rewinds()
            if self.reports.second_passed():
                self._ring_egress()
            lag_ns = quantiles(self.shared.histograms[INGRESS.row, Stage.BUS_LAG : Stage.BUS_LAG + 1], [0.99])[0]
            self._lag_ns = 0 if math.isnan(lag_ns) else int(lag_ns)
            self._refresh_keys()
            self.heard = {company: at for company, at in self.heard.items() if now - at / 1e9 < TENANT_SECONDS}
            self.counters[Count.TENANTS] = len(self.heard)
        verified, evicted = self.verifier.signatures_checked, self.sequencer.tables.keys.evicted
        for count, now_at in ((Count.TOKENS_VERIFIED, verified), (Count.WINDOWS_EVICTED, evicted)):
            self.counters[count] += now_at - self._counted.get(count, 0)
            self._counted[count] = now_at
        queued = self.gaps.count + sum(queue.count for queue in self.queues) + self.sources.held
        queued += len(self.recovery.held) if self.recovery is not None else 0
        self.counters[Count.QUEUED] = queued
        self.shared.ingress[0]["drained"] = int(self._draining and queued == 0 and self.offsets.idle)

    def _refresh_keys(self) -> None:
        try:
            if self.verifier.refresh():
                self.child.log.info("other token keys are in force")
        except SettingsError as error:
            self.child.log.warning("the token keys before stay in force: %s", error)

"""The ingress process: buses in, requests rings out.

Owns its bus connections and the queues before acceptance; through the sequencer it is the only writer
of `inputs`, of the requests rings' heads and of the stream and key tables. What must stay true: it
waits for nobody. Where there is no room a message waits in its company's bounded queue, then leaves its
name, then is counted and shows as a gap.
"""

import asyncio
import math
import time

from nats.errors import Error as NatsError

from engine import limits
from engine.bus import local
from engine.bus.nats import NatsLink, subscribe
from engine.child import Child, run_loop
from engine.contract.names import FEATURES_SUBJECT, Bus, Reason
from engine.errors import Refused, SettingsError
from engine.ingress import admission
from engine.ingress.gaps import GapWait
from engine.ingress.queues import FairQueue
from engine.ingress.reports import Reports
from engine.ingress.sequencing import Sequencer
from engine.shared import INGRESS, BusState, Count, Engine, Phase, Stage
from engine.tenancy.tokens import Verifier
from fastpath.histogram import quantiles

FOREVER_NS = 1 << 62
RETRY_S = 0.002  # while something waits for room and no bell rang
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
        self.counters = child.row[0]["counters"]
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
        self.producers: set[local.Producer] = set()
        self.heard: dict[str, float] = {}
        self.gaps = GapWait(settings.limits.queue)
        self._lag_ns = 0
        self._gap_timer: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self.broken: Exception | None = None  # ends this process; event loops only log what a callback raises
        self._draining = False
        self._second = 0.0
        self._counted: dict[Count, int] = {}  # of this process; the arena's counters outlive it

    async def serve(self) -> int:
        """Runs until the supervisor asks for the end. Exit status."""
        child, settings = self.child, self.settings
        loop = asyncio.get_running_loop()
        self.verifier.open()
        self.sequencer.open()
        loop.add_reader(self.bell.fd, self._rung)
        server = None
        if settings.bus.local.path:
            listener = local.bind(settings.bus.local.path)
            server = await loop.create_unix_server(self._producer, sock=listener)
            child.bus_state(Bus.LOCAL, True)
        link = NatsLink(
            settings.bus.nats,
            f"{settings.engine.name}-ingress",
            child.log,
            lambda state: child.bus_state(Bus.NATS, state),
        )
        subscriptions: list = []

        async def subscribe_all(client) -> None:
            subscriptions.append(await subscribe(client, f"{FEATURES_SUBJECT}.*.*", self.from_nats))

        if settings.bus.nats.url:
            link.open(subscribe_all)
        child.ready()
        try:
            while not child.stopping():
                child.pulse(Phase.IDLE)
                if self.broken is not None:
                    raise self.broken
                link.check()
                self._chores()
                if child.engine_state() == Engine.DRAINING and not self._draining:
                    self._draining = True
                    await self._stop_taking(server, link, subscriptions)
                await asyncio.sleep(limits.PULSE_EVERY_MS / 2000)
            return 0
        finally:
            if settings.bus.local.path:
                local.unbind(settings.bus.local.path)
            await link.close()

    def from_nats(self, raw: bytes, subject: str) -> None:
        if not self.take(raw, subject, Bus.NATS):
            self.counters[Count.DROPPED] += 1

    def from_local(self, raw: bytes) -> bool:
        """False: no more for now, until `resume`."""
        if not self.take(raw, None, Bus.LOCAL):
            self.counters[Count.DROPPED] += 1
        return not any(queue.count for queue in self.queues)

    def take(self, raw: bytes, subject: str | None, bus: Bus) -> bool:
        """One message from a bus. False: every place it could wait in was taken."""
        received_ns, received_unix_ns = time.monotonic_ns(), time.time_ns()
        self.counters[Count.MESSAGES] += 1
        self.counters[Count.MESSAGE_BYTES] += len(raw)
        about = admission.Claimed()
        try:
            envelope = admission.decode(raw, self.settings.limits.message_bytes)
            about = admission.claimed(envelope)
            kind = admission.check_names(envelope)
            tier = admission.verify(envelope, subject, self.verifier, self.settings.limits.token_bytes)
        except Exception as error:
            if not isinstance(error, Refused):  # a fault of ours, which must not hide the message
                self.child.log.exception("a message could not be read")
                error = Refused(Reason.INTERNAL, "the engine could not read this message; its operator has the details")
            self.reports.report(about, error)
            self._ring_egress()
            return True
        self.heard[envelope.company_id] = time.monotonic()
        message = admission.Message(envelope, kind, tier, bus, received_ns, received_unix_ns, len(raw))
        worker = self.sequencer.worker_of(envelope.company_id, envelope.service_source)
        taken = self.queues[worker].put(message)
        self.pump(worker)
        return taken

    def pump(self, worker: int) -> None:
        """Moves what waits for a worker into its ring, as far as there is room."""
        if self.broken is not None:
            return
        queue = self.queues[worker]
        bell = self.shared.bells[self.child.ring_bell(worker)]
        unverified = int(self.counters[Count.UNVERIFIED])

        def accept(message: admission.Message) -> bool:
            return self._waits_for_other_bus(message) or self._accept(message, worker)

        try:
            queue.take_while(accept)
        except Exception as error:  # of ours, perhaps in the middle of an input: only a successor can complete it
            self.broken = error
            return
        bell.ring()
        if int(self.counters[Count.UNVERIFIED]) != unverified:
            self._ring_egress()
        if queue.count:
            self.bell.sleep()
            if self._retry is None:
                self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._room)

    def _accept(self, message: admission.Message, worker: int) -> bool:
        """False: no room."""
        if not self.sequencer.take(message, worker):
            return False
        self.stage.record(time.monotonic_ns() - message.received_ns)
        self._release_behind((message.envelope.company_id, message.envelope.service_source), worker)
        return True

    def _release_behind(self, name: tuple[str, str], worker: int) -> None:
        """What waited for a message that came now."""
        while (behind := self.gaps.first(name)) is not None and not self.sequencer.leaves_gap(behind):
            if not self.sequencer.take(behind, worker):
                break  # looked at again when it is due
            self.gaps.pop(name)

    def _waits_for_other_bus(self, message: admission.Message) -> bool:
        """Whether it was kept, because those missing before it may still come."""
        wait_ns = self._gap_wait_ns() if self.sequencer.leaves_gap(message) else 0
        name = (message.envelope.company_id, message.envelope.service_source)
        if wait_ns == 0:  # a bus went away, or an epoch began, while others waited: they go first, or would be late
            while self.gaps.precedes(message) and self._move_on(name):
                pass
            return False
        while not self.gaps.hold(message, message.received_ns + wait_ns):
            if not self._move_on(name):
                return False
        if self._gap_timer is None:
            self._gap_timer = asyncio.get_running_loop().call_later(RETRY_S, self._gaps_due)
        return True

    def _gap_wait_ns(self) -> int:
        """As long as the other bus lags; 0 where a single bus is up, or nothing more is taken."""
        if self.child.row[0]["bus_nats"] != BusState.UP or not self.producers or self._draining:
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
                    self.pump(self.sequencer.worker_of(*name))
        except Exception as error:  # as in `pump`
            self.broken = error
            return
        if self.gaps.count:
            self._gap_timer = asyncio.get_running_loop().call_later(RETRY_S, self._gaps_due)

    def _move_on(self, name: tuple[str, str]) -> bool:
        """Gives up on what is missing before a stream's first message that waits. False: no room for it."""
        first, worker = self.gaps.first(name), self.sequencer.worker_of(*name)
        if first is None or not self.sequencer.take(first, worker):
            return False
        self.gaps.pop(name)
        self._release_behind(name, worker)
        return True

    def _room(self) -> None:
        """A worker, or egress, may have made room."""
        self._retry = None
        self.sequencer.advance_tail()
        for worker, queue in enumerate(self.queues):
            if queue.count:
                self.pump(worker)
        if not any(queue.count for queue in self.queues):
            self._resume_producers()

    def _rung(self) -> None:
        self.bell.wake()
        if self._retry is not None:
            self._retry.cancel()
        self._room()

    def _resume_producers(self) -> None:
        for producer in list(self.producers):
            producer.resume(reading=not self._draining)

    def _ring_egress(self) -> None:
        self.shared.bells[self.child.egress_bell].ring()

    def _producer(self) -> local.Producer:
        bounds = self.settings.limits

        def oversized() -> None:
            self.counters[Count.MESSAGES] += 1
            self.reports.report(
                admission.Claimed(),
                Refused(
                    Reason.TOO_LARGE,
                    f"a frame is larger than the {bounds.message_bytes} bytes of a message; the connection was closed",
                ),
            )
            self._ring_egress()

        return local.Producer(
            bounds.message_bytes + limits.LOCAL_FRAME_SPARE, self.from_local, oversized, self.producers
        )

    def _chores(self) -> None:
        """What is done a few times a second, whether or not anything came."""
        self.sequencer.advance_tail()
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second = now
            if self.reports.second_passed():
                self._ring_egress()
            lag_ns = quantiles(self.shared.histograms[INGRESS.row, Stage.BUS_LAG : Stage.BUS_LAG + 1], [0.99])[0]
            self._lag_ns = 0 if math.isnan(lag_ns) else int(lag_ns)
            self._refresh_keys()
            self.heard = {company: at for company, at in self.heard.items() if now - at < TENANT_SECONDS}
            self.counters[Count.TENANTS] = len(self.heard)
        for count, now_at in (
            (Count.TOKENS_VERIFIED, self.verifier.signatures_checked),
            (Count.WINDOWS_EVICTED, self.sequencer.tables.keys.evicted),
        ):
            self.counters[count] += now_at - self._counted.get(count, 0)
            self._counted[count] = now_at
        queued = self.gaps.count + sum(queue.count for queue in self.queues)
        queued += sum(len(each.held) for each in self.producers)
        self.counters[Count.QUEUED] = queued
        self.shared.ingress[0]["drained"] = int(self._draining and queued == 0)

    def _refresh_keys(self) -> None:
        try:
            if self.verifier.refresh():
                self.child.log.info("other token keys are in force")
        except SettingsError as error:
            self.child.log.warning("the token keys before stay in force: %s", error)

    async def _stop_taking(self, server, link: NatsLink, subscriptions: list) -> None:
        """No more from outside; what the buses handed over already is still taken."""
        if server is not None:
            server.close()
            for producer in list(self.producers):
                producer.pause()
        if not link.is_up:
            await link.close()  # it would subscribe again, and bring new input
        elif subscriptions:
            try:
                await asyncio.wait_for(subscriptions[0].drain(), self.settings.engine.drain_s / 2)
            except (TimeoutError, NatsError) as error:
                self.child.log.warning("nats did not drain: %s", error)

"""The egress process: answers rings in, buses out.

Owns its bus connections, the readers' sockets, the tails of the answers rings and the verdict words.
What must stay true: it changes no answer, except to EXPIRED before any sending; one slow reader, or a
bus that is away, holds nobody else up.
"""

import asyncio
import contextlib
import time

import numpy as np
from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError

from engine import limits
from engine.bus import local
from engine.bus.nats import NatsLink
from engine.child import Child, run_loop, stay_awake
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.names import REJECTIONS_SUBJECT, Bus, Reason
from engine.egress.delivery import Delivery
from engine.egress.encoding import Answer
from engine.egress.gathering import Gatherer
from engine.egress.kafka_out import KafkaOut
from engine.egress.nats_out import NatsOut
from engine.errors import Refused, SettingsError
from engine.shared import EGRESS, INGRESS, BusState, Count, Phase
from engine.tenancy.policy import may_predict
from engine.tenancy.tokens import Verifier


def run(child: Child) -> int:
    return run_loop(Egress(child).serve())


class Egress:
    """One engine's egress. `serve` opens, runs and closes it."""

    def __init__(self, child: Child) -> None:
        settings, shared = child.settings, child.shared
        self.child = child
        self.settings = settings
        self.shared = shared
        self.counters = child.counters
        self.verifier = Verifier(settings.auth, settings.limits.token_bytes)
        self.bell = shared.bells[EGRESS.row]
        self.broken: Exception | None = None  # ends this process, and its successor starts over
        self._soon: asyncio.Handle | None = None
        self.readers: dict[str, set[local.Reader]] = {}
        self.gatherers = [Gatherer(worker, ring, shared.inputs) for worker, ring in enumerate(shared.answers)]
        self.link = NatsLink(settings.bus.nats, f"{settings.engine.name}-egress", child.log, self._nats_changed)
        bus, outbox_bytes = settings.bus, settings.bus.outbox_mb << 20
        self.nats = NatsOut(self.link, self.counters, outbox_bytes, child.log) if bus.nats.url else None
        both = bus.publish == "both"
        self.kafka = KafkaOut(shared, self.counters, both, outbox_bytes) if bus.kafka.bootstrap else None
        self.delivery = Delivery(
            shared,
            self.counters,
            settings.engine.name,
            self.nats,
            self.kafka,
            self.readers if settings.bus.local.path else None,
            self.soon,
            child.log,
        )
        self.reports_cursor = shared.rejections.tail
        self.epoch = time.time_ns()  # of the reports' names: their numbering begins with this process
        self.reports_sent = 0
        self._second = 0

    async def serve(self) -> int:
        """Runs until the supervisor asks for the end. Exit status."""
        child, settings = self.child, self.settings
        loop = asyncio.get_running_loop()
        self.verifier.open()
        loop.add_reader(self.bell.fd, self._rung)
        confirming = server = None
        path = f"{settings.bus.local.path}.out"
        if settings.bus.local.path:
            server = await loop.create_unix_server(self._reader, sock=local.bind(path))
            child.bus_state(Bus.LOCAL, True)
        if settings.bus.nats.url:
            self.link.open()
            confirming = loop.create_task(self.delivery.confirm())
        self.soon()
        stay_awake(child.policy(self.shared.workers + 1)[0])
        child.ready()
        try:
            while not child.stopping():
                child.pulse(Phase.IDLE)
                self._chores()
                if confirming is not None and confirming.done():
                    confirming.result()
                if self.broken is not None:
                    raise self.broken
                await asyncio.sleep(limits.PULSE_EVERY_MS / 2000)
            return 0
        finally:
            if confirming is not None:
                confirming.cancel()
            if server is not None:
                server.close()
                local.unbind(path)
            await self.link.close()

    def _turn(self) -> None:
        """Gathers what workers answered and sends what a bus takes."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self.broken is not None:
            return
        try:
            for gatherer in self.gatherers:
                for gathered in gatherer.drain():
                    self.delivery.enter(gathered)
            self.delivery.hear_kafka()
            is_through = self.delivery.send()
            self.delivery.empty_outbox()
            self._send_reports()
        except Exception as error:  # event loops only log what a callback raises
            self.broken = error
            return
        self.shared.bells[INGRESS.row].ring()
        self.bell.sleep()
        if not is_through or self._has_news():
            self.bell.wake()
            self.soon()

    def soon(self) -> None:
        """Another turn, once what was written has left."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._turn)

    def _has_news(self) -> bool:
        reports_wait = self.shared.rejections.peek(self.reports_cursor) > 0
        return any(gatherer.ready() for gatherer in self.gatherers) or (reports_wait and self._takes_reports())

    def _takes_reports(self) -> bool:
        """Where there is neither NATS nor Kafka they are let go; where both are away they wait."""
        nowhere = self.nats is None and self.kafka is None
        over_nats = self.nats is not None and self.nats.is_up
        return nowhere or over_nats or (self.kafka is not None and self.kafka.takes)

    def _rung(self) -> None:
        self.bell.wake()
        self._turn()

    def _nats_changed(self, state: BusState) -> None:
        self.child.bus_state(Bus.NATS, state)
        self.soon()
        if state != BusState.UP:
            self.delivery.connection_lost()

    def _chores(self) -> None:
        """What is done a few times a second, whether or not anything came."""
        now = time.time()
        self.link.check()
        self.delivery.move_unconfirmed()
        self._close_readers(now)
        self.counters[Count.LOCAL_READERS] = sum(map(len, self.readers.values()))
        if int(now) != self._second:
            self._second = int(now)
            with contextlib.suppress(SettingsError):  # told by ingress, which reads the same keys
                if self.verifier.refresh():
                    self._close_readers()  # they subscribe again, if their tokens are still good
        if not self.delivery.idle:
            self.soon()

    def _close_readers(self, ended_unix: float = float("inf")) -> None:
        """Those whose tokens ended by then."""
        for reader in [each for readers in self.readers.values() for each in readers]:
            if reader.ends_unix <= ended_unix and reader.transport is not None:
                reader.transport.close()

    def _reader(self) -> local.Reader:
        bytes_max = self.settings.limits.token_bytes + limits.LOCAL_FRAME_SPARE
        return local.Reader(bytes_max, self._admit, self.readers, limits.LOCAL_READER_BYTES_MAX, self.child.log)

    def _admit(self, frame: bytes) -> tuple[str, float]:
        """The company whose answers a subscriber gets, and when its token ends."""
        try:
            envelope = MLProcessingEnvelope.FromString(frame)
        except DecodeError:
            raise Refused(Reason.MALFORMED, "the first frame is not an ml.v1.MLProcessingEnvelope") from None
        if envelope.message_type != "subscribe":
            raise Refused(Reason.MALFORMED, "a reader's first frame must be of message_type subscribe")
        claims = self.verifier.verify(envelope.auth_token.jwt)
        if not may_predict(claims):
            raise Refused(Reason.FORBIDDEN, "the token lacks the scope predict")
        if envelope.company_id and envelope.company_id != claims.company_id:
            raise Refused(Reason.TENANT_MISMATCH, "company_id differs from the token's")
        self.soon()
        return claims.company_id, claims.expires_unix

    def _send_reports(self) -> None:
        """What became no answer: not to local readers, who see their own company only."""
        ring = self.shared.rejections
        while ring.peek(self.reports_cursor) > 0 and self._takes_reports():
            report = self._report(ring.slots[self.reports_cursor & ring.mask], self.reports_sent + 1)
            if self.nats is not None and self.nats.is_up:
                try:
                    self.nats.publish(report)
                except (NatsError, OSError) as error:
                    self.child.log.warning("nats: %s; the report goes out once it is back", error)
                    return
            if self.kafka is not None and (self.kafka.both or self.nats is None or not self.nats.is_up):
                self.kafka.offer(report)  # a copy without room is left out: nobody waits for it
            self.reports_sent += 1
            self.reports_cursor += 1
            ring.release(self.reports_cursor)

    def _report(self, slot: np.void, number: int) -> Answer:
        rejection = Rejection(
            code=Reason(int(slot["reason"])).code,
            detail=slot["detail"].decode(errors="replace"),
            source_id=slot["stream"].decode(),
            source_epoch=int(slot["epoch"]),
            source_sequence=int(slot["sequence"]),
            company_id=slot["company"].decode(),
            verified=False,
        )
        engine = self.settings.engine.name
        envelope = MLProcessingEnvelope(
            message_type="ml_rejection",
            payload=rejection.SerializeToString(),
            timestamp=time.time_ns(),
            service_source=engine,
            correlation_id=slot["correlation"].decode(errors="replace"),
            epoch=self.epoch,
            sequence=number,
        )
        name = f"{engine}/{self.epoch}/{number}"
        return Answer("", REJECTIONS_SUBJECT, name, envelope.SerializeToString())

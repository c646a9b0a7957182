"""A producer for programs: numbers, heartbeats, renewed tokens, two buses, and nothing silently lost.

Owns one stream from its start. Runs in a producer's process, on its asyncio loop (`engine.client.sync` for others);
writes to every bus that it is given. What must stay true: a call that returned a name has its message kept until a
bus confirmed it; a call that raised used up no number; what is sent again is sent under its name, with the same
bytes but for a token that has ended.

    send -> Backlog -> a Lane for each bus -> confirmed -> forgotten
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from engine.client.backlog import Backlog
from engine.client.connecting import CONNECT_S, LOG, kafka_section, local_section, nats_section
from engine.client.outgoing import Lane, LocalLane, NatsLane, Outgoing
from engine.client.outgoing_kafka import KafkaLane
from engine.client.sender import Message, Sender
from engine.client.sending import Sending
from engine.client.tokens import Source, TokenError, Tokens, claims_of
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.names import is_name, is_user
from engine.errors import BusError, SettingsError, TickpathError
from engine.settings import Kafka, Local, Nats

MESSAGE_BYTES_MAX = 1_000_000 - 4096  # what NATS and Kafka take as they come, with room for headers
OVERLAP_S = 1.0  # failover: Kafka goes on for so long after NATS came back
ROOM_WAIT_S = 5.0  # at most, for a bus that is up to make room
ON_ITS_WAY_S = 0.5  # a token that ends sooner may have ended when the engine looks at it
YIELD_EACH = 64  # messages that may be ahead of a bus before a call lets the loop run


class BufferFull(TickpathError):
    """As much waits for a bus as may wait. The message was not taken; it has no number and can be sent again later."""


class Producer:
    """One instance of a producer, that is one stream.

    Parameters
    ----------
    stream : its `service_source`
    token : a token, a Path that holds one, or a function that gives one; the last two are asked again before `exp`
    nats, kafka, local : an address, or a section of `engine.settings` with TLS and passwords; at least one
    company, user : the token's where nothing is said
    publish : "both", or "failover": Kafka only while NATS is away, and for a second both
    heartbeat_s : between two heartbeats
    buffer_messages, buffer_bytes : of messages that no bus has confirmed
    on_trouble : called with what went wrong beside the calls; without it, it is logged
    epoch : Unix nanoseconds of the producer's start, now where nothing is said

    Examples
    --------
    >>> async def main(vectors):
    ...     async with Producer(stream="features-0", token=Path("token"), nats="nats://127.0.0.1:4222") as producer:
    ...         name = await producer.send(vectors)
    ...         await producer.flush()
    """

    def __init__(
        self,
        *,
        stream: str,
        token: Source,
        nats: str | Nats = "",
        kafka: str | Kafka = "",
        local: str | Local = "",
        company: str = "",
        user: str = "",
        publish: str = "both",
        heartbeat_s: float = 1.0,
        buffer_messages: int = 10_000,
        buffer_bytes: int = 64 << 20,
        on_trouble: Callable[[TickpathError], None] | None = None,
        epoch: int | None = None,
    ) -> None:
        if publish not in ("both", "failover"):
            raise SettingsError(f'publish = {publish!r}: expected "both" or "failover"')
        if not (buffer_messages > 0 and buffer_bytes > 0 and heartbeat_s > 0):
            raise SettingsError(
                f"buffer_messages = {buffer_messages}, buffer_bytes = {buffer_bytes}, heartbeat_s = {heartbeat_s}: "
                "expected numbers above 0"
            )
        self.counts = dict.fromkeys(("messages", "bytes", "heartbeats", "confirmed", "refused"), 0)
        self.publish = publish
        self.heartbeat_s = heartbeat_s
        self._trouble: Callable[[TickpathError], None] = on_trouble or (lambda error: LOG.warning("%s", error))
        self._tokens = Tokens(token, self._on_token_trouble)
        self._who = (company, user, stream, epoch)
        self._backlog = Backlog(buffer_messages, buffer_bytes)
        self._buses = (nats_section(nats), kafka_section(kafka), local_section(local))
        self._lanes: dict[str, Sending] = {}
        self._sender: Sender | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()  # something was confirmed, or a bus came or went
        if not (self._buses[0].url or self._buses[1].bootstrap or self._buses[2].path):
            raise SettingsError("no bus to send on: give nats, kafka or local")

    @property
    def sender(self) -> Sender:
        if self._sender is None:
            raise BusError('the producer is not open; use it as `async with Producer(...)`, or call "open" first')
        return self._sender

    @property
    def resent(self) -> int:
        """How often a message went to a bus that it had been handed to before."""
        return sum(lane.resent for lane in self._lanes.values())

    @property
    def where(self) -> str:
        """Its buses, for people."""
        return " and ".join(lane.out.where for lane in self._lanes.values())

    @property
    def buses(self) -> dict[str, str]:
        """Each bus: up or down."""
        return {bus: "up" if lane.out.up else "down" for bus, lane in self._lanes.items()}

    @property
    def unconfirmed(self) -> list[str]:
        """Names of the messages that no bus has confirmed yet."""
        return self._backlog.names()

    async def open(self, within_s: float = CONNECT_S) -> None:
        """Returns once a bus is up; raises BusError where none comes up within the time."""
        await self._tokens.open()
        company, user, stream, epoch = self._who
        if not (company and user):
            claimed = claims_of(self._tokens.current)
            company, user = company or claimed[0], user or claimed[1]
        for what, text, right in (("company", company, is_name), ("stream", stream, is_name), ("user", user, is_user)):
            if not right(text):
                allowed = "1 to 128 printable characters" if what == "user" else "1 to 64 letters, digits, _ or -"
                raise SettingsError(f"{what} {text!r}: expected {allowed}")
        self._sender = Sender(company, user, stream, self._tokens.current, epoch)
        nats, kafka, local = self._buses
        name = f"tickpath-{stream}"
        outs: list[Lane] = [NatsLane(nats, name)] if nats.url else []
        outs += [KafkaLane(kafka, name)] if kafka.bootstrap else []
        outs += [LocalLane(local)] if local.path else []
        self._lanes = {out.bus: Sending(out, self._is_wanted, self._next_for, self._on_bus) for out in outs}
        for lane in self._lanes.values():
            lane.out.confirmed, lane.out.trouble = self._on_confirmed, self._trouble
            lane.open()
        self._tasks = [
            asyncio.create_task(self._tokens.keep(self._on_new_token)),
            asyncio.create_task(self._beat()),
        ]
        if not await self._until(lambda: any(lane.out.up for lane in self._lanes.values()), within_s):
            error = next(iter(self._lanes.values())).out.absent(within_s)
            await self._end()
            raise error

    async def send(self, vectors: Iterable[FeatureVector]) -> str:
        """Takes one message; its name. BufferFull: it was not taken.

        It leaves at once where a bus is up; `flush` waits until a bus confirmed it.
        """
        sender = self.sender
        if self._backlog.is_full:
            await self._room()
        message = sender.features(vectors)
        if len(message.body) > MESSAGE_BYTES_MAX:
            sender.next -= 1
            raise BusError(
                f"a message of {len(message.body)} bytes; at most {MESSAGE_BYTES_MAX} fit on a bus: "
                "send fewer vectors in one message"
            )
        self._backlog.add(self._outgoing(sender.next - 1, message))
        self.counts["messages"] += 1
        self.counts["bytes"] += len(message.body)
        self._wake()
        if any(self._backlog.last - lane.cursor > YIELD_EACH for lane in self._lanes.values() if lane.out.up):
            await asyncio.sleep(0)
        return message.name

    async def heartbeat(self) -> None:
        """Tells the next number on every bus that has all before it; by itself each `heartbeat_s`, and at the end."""
        message = self.sender.heartbeat()
        sent = [await lane.beat(self._outgoing(self.sender.next, message)) for lane in self._lanes.values()]
        self.counts["heartbeats"] += any(sent)
        self.counts["bytes"] += len(message.body) if any(sent) else 0

    async def flush(self, timeout_s: float = 10.0) -> None:
        """Returns once at least one bus confirmed each message taken so far."""
        last = self._backlog.last
        if not await self._until(lambda: self._backlog.first > last, timeout_s):
            names = self._backlog.names()
            raise BusError(
                f"{self.where}: {len(names)} messages from {names[0]} on were confirmed by no bus within "
                f"{timeout_s:g} s ({self._whys()}); `unconfirmed` names them"
            )

    async def close(self, timeout_s: float = 10.0) -> None:
        """Flushes, tells the end by a heartbeat, and ends. BusError: not everything was confirmed."""
        if self._sender is None:
            return
        try:
            await self.flush(timeout_s)
            await self._until(lambda: all(lane.is_through for lane in self._lanes.values() if lane.out.up), 1.0)
            await self.heartbeat()
        finally:
            await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))

    async def __aenter__(self) -> "Producer":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BusError as lost:
            if error is None:
                raise
            self._trouble(lost)  # what the caller was about to see comes first

    def _outgoing(self, sequence: int, message: Message) -> Outgoing:
        key = f"{self.sender.company}/{self.sender.stream}"
        return Outgoing(sequence, message.name, message.subject, key, message.body, self._tokens.ends_unix)

    async def _room(self) -> None:
        """Until a bus that is up has made some."""

        def holds() -> bool:
            return not self._backlog.is_full or not any(lane.out.up for lane in self._lanes.values())

        await self._until(holds, ROOM_WAIT_S)
        if self._backlog.is_full:
            backlog = self._backlog
            self.counts["refused"] += 1
            raise BufferFull(
                f"{len(backlog)} messages with {backlog.bytes} bytes wait for a bus, and "
                f"buffer_messages = {backlog.messages_max}, buffer_bytes = {backlog.bytes_max} ({self._whys()}); "
                "this one was not taken and has no number: send it again later, or give more room"
            )

    def _whys(self) -> str:
        return "; ".join(
            f"{bus} is {'up' if lane.out.up else 'away'}{f': {lane.out.why}' if lane.out.why else ''}"
            for bus, lane in self._lanes.items()
        )

    async def _until(self, holds: Callable[[], bool], within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not holds():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left_s, 0.25))
        return True

    def _wake(self) -> None:
        for lane in self._lanes.values():
            lane.wake.set()

    def _is_wanted(self, bus: str) -> bool:
        """Whether messages go there now. failover: Kafka has its turn while NATS is away and a moment longer."""
        if self.publish == "both" or bus != "kafka" or "nats" not in self._lanes:
            return True
        nats = self._lanes["nats"].out
        return not nats.up or time.monotonic() - nats.back_since < OVERLAP_S

    def _on_bus(self) -> None:
        self._changed.set()
        self._wake()

    def _on_confirmed(self, sequence: int, all_below: bool) -> None:
        self.counts["confirmed"] += self._backlog.confirm(sequence, all_below)
        self._changed.set()

    def _on_token_trouble(self, error: TokenError) -> None:
        self._trouble(error)

    def _on_new_token(self) -> None:
        self.sender.token = self._tokens.current
        self._wake()

    def _next_for(self, cursor: int) -> Outgoing | None:
        """The message to send after that one; None: none, or none with a token that would be taken."""
        message = self._backlog.after(cursor)
        if message is None or message.ends_unix > time.time() + ON_ITS_WAY_S:
            return message
        if not self._tokens.usable:
            return None
        envelope = MLProcessingEnvelope.FromString(message.body)
        envelope.auth_token.jwt = self._tokens.current
        renewed = message._replace(body=envelope.SerializeToString(), ends_unix=self._tokens.ends_unix)
        self._backlog.renew(renewed)
        return renewed

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_s)
            if self._tokens.usable:
                await self.heartbeat()

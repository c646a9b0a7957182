"""NATS: connecting, and staying connected, for whoever reads or writes there.

Owns one connection of one process. Runs in ingress (reading) and egress (writing). What must stay
true: an outage shows within a second, because this side pings, and the server is tried again for
ever; nothing is sent on a connection that is not known to be up; what is published leaves in order, with
the client's own lines.
"""

import asyncio
import ssl
from collections.abc import Callable
from logging import Logger

from nats.aio.client import Client
from nats.errors import ConnectionClosedError, MaxPayloadError

from engine import limits
from engine.bus.wire import Wire
from engine.contract.names import MESSAGE_ID_HEADER
from engine.settings import Nats
from engine.shared import BusState

HEADER = b"NATS/1.0\r\n%s: %%s\r\n\r\n" % MESSAGE_ID_HEADER.encode()


class NatsLink:
    """A connection that is always being kept.

    Parameters
    ----------
    on_state
        Called with `BusState.UP` or `DOWN` whenever it changes.
    take
        Called with (body, subject) of each message, in order, as it is read; None: the client's subscriptions get them.
    """

    def __init__(
        self,
        settings: Nats,
        name: str,
        log: Logger,
        on_state: Callable[[BusState], None],
        take: Callable[[bytes, str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.name = name
        self.log = log
        self.on_state = on_state
        self.client = Client()
        self.client._transport = self._wire = Wire(take)
        self.connections = 0  # how often it came up
        self.on_trouble: Callable[[Exception], None] = lambda error: None  # each failure, for whoever acts upon it
        self._failures = 0
        self._connecting: asyncio.Task | None = None
        self._came = False  # the client says connected a little before it says that it came up

    @property
    def is_up(self) -> bool:
        return self._came and self.client.is_connected and self._wire.is_open

    def publish(self, subject: str, body: bytes, name: str = "") -> None:
        """Into the connection's buffer. ConnectionClosedError, MaxPayloadError; `name` is the message's id."""
        if not self.is_up:
            raise ConnectionClosedError
        header = HEADER % name.encode() if name else b""
        if len(header) + len(body) > self.client.max_payload:
            raise MaxPayloadError
        if len(subject.split()) != 1 or len(name.split()) > 1:
            raise ValueError(f"expected a subject and a name without blanks, found {subject!r} and {name!r}")
        sizes = f"{len(header)} {len(header) + len(body)}" if name else f"{len(body)}"
        line = f"{'HPUB' if name else 'PUB'} {subject} {sizes}\r\n".encode()
        self._wire.write(b"".join((line, header, body, b"\r\n")))

    async def flush(self, timeout_s: float) -> None:
        """Returns once the server has all that was published before. TimeoutError, or an error of the client's."""
        await self.client.flush(timeout=timeout_s)  # type: ignore[arg-type]  # seconds, and it takes a fraction

    def ping(self) -> asyncio.Future[bool]:
        """Is done once the server has all that was published before; never, if the connection breaks first."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.client._pongs.append(pong)
        self._wire.write(b"PING\r\n")
        return pong

    def check(self) -> None:
        """Raises what kept the first connection from being made: a file that cannot be read, never an absent server."""
        if self._connecting is not None and self._connecting.done() and not self._connecting.cancelled():
            self._connecting.result()

    def open(self, then: Callable[[Client], object] | None = None) -> None:
        """Starts connecting and returns; `then`, a coroutine function, runs once the first connection stands."""
        self.on_state(BusState.DOWN)
        self._connecting = asyncio.get_running_loop().create_task(self._connect(then))

    async def close(self) -> None:
        """Whether or not it was ever opened, or ever came up."""
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        if self.client.is_connected or self.client.is_connecting or self.client.is_reconnecting:
            await self.client.close()

    async def _connect(self, then) -> None:
        settings = self.settings
        options: dict = {}
        if settings.credentials_file:
            options["user_credentials"] = settings.credentials_file
        if settings.tls_ca or settings.tls_cert:
            context = ssl.create_default_context(cafile=settings.tls_ca or None)
            if settings.tls_cert:
                context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
            options["tls"] = context
        await self.client.connect(
            servers=[url.strip() for url in settings.url.split(",")],
            name=self.name,
            connect_timeout=2,
            ping_interval=limits.NATS_PING_S,  # type: ignore[arg-type]  # seconds, and it takes a fraction
            max_outstanding_pings=limits.NATS_PINGS_MISSED_MAX,
            reconnect_time_wait=limits.NATS_RETRY_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            disconnected_cb=self._went_down,
            reconnected_cb=self._came_up,
            error_cb=self._failed,
            **options,
        )
        if then is not None:
            await then(self.client)
        await self._came_up()

    async def _came_up(self) -> None:
        self.connections += 1
        self._came = True
        self.log.info("nats is up at %s", self.client.connected_url.netloc if self.client.connected_url else "?")
        self.on_state(BusState.UP)

    async def _went_down(self) -> None:
        self._came = False
        self.log.warning("nats is away; trying again every %d ms", int(limits.NATS_RETRY_S * 1000))
        self.on_state(BusState.DOWN)

    async def _failed(self, error: Exception) -> None:
        self._failures += 1
        self.on_trouble(error)
        if (
            self._failures & (self._failures - 1) == 0
        ):  # the 1st, 2nd, 4th, 8th ...: a flood of them is one piece of news
            self.log.warning("nats, failure %d: %s: %s", self._failures, type(error).__name__, error)

"""A producer's way out over one bus: what is handed to it, and what it confirmed.

Owns one connection a bus. Runs in a producer's process, on its loop; writes messages to NATS, Kafka or the local
bus. What must stay true: a message counts as confirmed only after the other side has it (NATS: the PONG to a PING
sent after the bytes; Kafka: its delivery report; local: the engine has read all that was written), and nothing here
forgets one that is not.

| bus | comes up | is away |
| --- | --- | --- |
| NATS | once connected; tried again for ever | when PINGs are not answered for half a second |
| Kafka | once it tells its topics | when all brokers are; librdkafka keeps trying |
| local | once connected; tried again for ever | when the engine closes the socket |
"""

import array
import asyncio
import contextlib
import fcntl
import termios
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import nats.errors

from engine.bus import frames
from engine.bus.nats import NatsLink
from engine.client.connecting import BUS_LOG, check_files, reason
from engine.client.staying import stay_connected
from engine.errors import BusError
from engine.knobs import without_passwords
from engine.settings import Local, Nats
from engine.shared import BusState

FLUSH_S = 5.0  # a connection that does not answer a PING for so long is dead long before
READ_POLL_S = 0.001


class Outgoing(NamedTuple):
    """A numbered message; a heartbeat has no name."""

    sequence: int
    name: str
    subject: str
    key: str
    body: bytes
    ends_unix: float = float("inf")  # when the token in it does


class Lane(Protocol):
    """What a producer needs of a bus. `came` and `confirmed` are set before `open`."""

    bus: str
    where: str
    up: bool
    back_since: float  # when it came back, CLOCK_MONOTONIC seconds
    why: str  # the last trouble
    came: Callable[[], None]  # it came up: whatever is not confirmed goes out again
    went: Callable[[], None]
    confirmed: Callable[[int, bool], None]  # (sequence, whether all below it too)
    trouble: Callable[[BusError], None]

    def open(self) -> None: ...

    def absent(self, within_s: float) -> BusError: ...

    async def send(self, message: Outgoing) -> bool: ...

    async def close(self) -> None: ...


class BusLane:
    """What the three have in common: who is told of what, and since when it is up."""

    bus = ""

    def __init__(self, where: str) -> None:
        self.where = where
        self.up = False
        self.back_since = float("-inf")
        self.came: Callable[[], None] = nothing
        self.went: Callable[[], None] = nothing
        self.confirmed: Callable[[int, bool], None] = nothing
        self.trouble: Callable[[BusError], None] = nothing
        self.why = ""
        self._was_up = False

    def _turn(self, up: bool) -> None:
        if up == self.up:
            return
        self.up = up
        if up and self._was_up:
            self.back_since = time.monotonic()
        self._was_up = True
        (self.came if up else self.went)()


def nothing(*_: object) -> None:
    """Until a producer says what to do."""


class NatsLane(BusLane):
    """Publishes with the message's name as header; confirms by PING and PONG."""

    bus = "nats"

    def __init__(self, section: Nats, name: str) -> None:
        super().__init__(without_passwords(section.url))
        check_files(section)
        self._link = NatsLink(section, name, BUS_LOG, self._on_state)
        self._link.on_trouble = self._on_trouble
        self._last = 0  # sequence that was written last, on this connection
        self._written = asyncio.Event()
        self._confirming: asyncio.Task[None] | None = None
        self._forbidden = False

    def open(self) -> None:
        self._link.open()
        self._confirming = asyncio.get_running_loop().create_task(self._confirm())

    def absent(self, within_s: float) -> BusError:
        with contextlib.suppress(BusError):
            try:
                self._link.check()
            except (OSError, ValueError, nats.errors.Error) as error:
                self.why = str(error)
        return BusError(
            f"bus.nats.url = {self.where}: no connection within {within_s:g} s ({self.why or 'no answer'}); "
            "start nats-server, or correct the URL"
        )

    def _on_state(self, state: BusState) -> None:
        self._forbidden = False
        self._last = 0
        self._turn(state == BusState.UP)

    def _on_trouble(self, error: Exception) -> None:
        self.why = str(error) or type(error).__name__
        if "permissions violation" in self.why.lower():
            self._forbidden = True  # its PONG comes all the same
            self.trouble(BusError(f"bus.nats.url = {self.where}: {self.why}; see whether this user may publish there"))

    async def send(self, message: Outgoing) -> bool:
        if not (self.up and self._link.is_up) or self._forbidden:
            return False
        connection = self._link.connections
        try:
            self._link.publish(message.subject, message.body, message.name)
        except nats.errors.MaxPayloadError:
            self.trouble(
                BusError(
                    f"bus.nats.url = {self.where}: {message.name} has {len(message.body)} bytes, the server takes "
                    f"{self._link.client.max_payload}; send fewer vectors in one message, or raise its max_payload"
                )
            )
            return True
        except (nats.errors.Error, OSError) as error:
            self.why = reason(error)
            return False
        if connection != self._link.connections:  # it broke in the middle
            return False
        if message.name:
            self._last = message.sequence
            self._written.set()
        return True

    async def _confirm(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            connection, last = self._link.connections, self._last
            if not self._link.is_up:
                continue
            try:
                await self._link.flush(FLUSH_S)
            except (TimeoutError, nats.errors.Error, OSError) as error:
                self.why = reason(error)
                continue
            if last and connection == self._link.connections and self._link.is_up and not self._forbidden:
                self.confirmed(last, True)

    async def close(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
        if self.up:
            with contextlib.suppress(TimeoutError, nats.errors.Error, OSError):
                await self._link.flush(1)  # a last heartbeat leaves too
        await self._link.close()


class LocalLane(BusLane):
    """Writes frames to the socket of producers; confirms once the engine has read them."""

    bus = "local"

    def __init__(self, section: Local) -> None:
        super().__init__(section.path)
        self._writer: asyncio.StreamWriter | None = None
        self._last = 0
        self._written = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(stay_connected(self.where, self._keep, self._left))

    def absent(self, within_s: float) -> BusError:
        return BusError(
            f"bus.local.path = {self.where}: nobody answers ({self.why or 'no answer'}); "
            "start the engine with the same configuration"
        )

    async def _keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.transport.set_write_buffer_limits(high=1 << 20, low=1 << 16)
        self._writer, self._last = writer, 0
        self._turn(True)
        confirming = asyncio.create_task(self._confirm(writer))
        try:
            await reader.read()  # the engine says nothing here; its end is the end
        finally:
            confirming.cancel()
        return "the engine closed the connection"

    def _left(self, why: str) -> None:
        self.why, self._writer = why, None
        self._turn(False)

    async def send(self, message: Outgoing) -> bool:
        writer = self._writer
        if writer is None or writer.is_closing():
            return False
        writer.write(frames.encode(message.body))
        try:
            await writer.drain()
        except OSError as error:
            self.why = reason(error)
            return False
        if message.name and writer is self._writer:
            self._last = message.sequence
            self._written.set()
        return writer is self._writer

    async def _confirm(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            last = self._last
            while _unread(writer):
                await asyncio.sleep(READ_POLL_S)
            if last:
                self.confirmed(last, True)

    async def close(self) -> None:
        writer = self._writer
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.drain(), 1)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _unread(writer: asyncio.StreamWriter) -> bool:
    """Whether the other side has not read all yet: ours to write, or in the socket."""
    if writer.transport.get_write_buffer_size():
        return True
    waiting = array.array("i", [0])
    try:
        fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
    except OSError:
        return True
    return waiting[0] > 0

"""The local bus: Unix sockets for producers and readers on the same host.

Owns the sockets at `bus.local.path` (ingress) and `bus.local.path` + `.out` (egress). What must stay
true: a frame's length is checked before it is believed, a reader sees its own company's answers only,
and one that does not read is cut off rather than waited for.
"""

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from logging import Logger
from pathlib import Path

from engine.bus.frames import FrameReader, encode
from engine.errors import BusError, TickpathError


def bind(path: str) -> socket.socket:
    """A listening socket at the path, for this user only. What a dead engine left there is replaced.

    Raises
    ------
    BusError
        Somebody listens there, or the path cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        try:
            listener.bind(path)
        except OSError:
            if _answers(path):
                raise BusError(
                    f"bus.local.path: somebody listens at {path} already; end it or choose another path"
                ) from None
            os.unlink(path)
            listener.bind(path)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise BusError(
            f"bus.local.path: cannot listen at {path}: {error.strerror}; its folder must exist and be writable"
        ) from None
    finally:
        os.umask(mask)
    listener.setblocking(False)
    return listener


def unbind(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


class Producer(asyncio.Protocol):
    """A producer's connection: frames in, nothing out.

    Parameters
    ----------
    on_message
        Called with each envelope's bytes; gives the company that has no room for more, empty: go on.
    on_oversized
        Called when a frame is larger than any message may be; the connection ends with it.
    """

    def __init__(
        self,
        bytes_max: int,
        on_message: Callable[[bytes], str],
        on_oversized: Callable[[], None],
        open_connections: set,
    ) -> None:
        self.frames = FrameReader(bytes_max)
        self.on_message = on_message
        self.on_oversized = on_oversized
        self.open_connections = open_connections
        self.held: deque[bytes] = deque()  # came together with one after which no more was wanted
        self.waits_for = ""  # the company that has no room for more
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.open_connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.open_connections.discard(self)

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        try:
            self.held.extend(self.frames.feed(data))
        except BusError:
            self.on_oversized()
            self.transport.close()
            return
        if self.waits_for or not self._pass_on():
            self.transport.pause_reading()

    def pause(self) -> None:
        """Reads no more; what was read already is still passed on by `resume`."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self, has_room: Callable[[str], bool], reading: bool) -> None:
        if not self.waits_for or not has_room(self.waits_for):
            return
        if self._pass_on() and reading and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _pass_on(self) -> bool:
        self.waits_for = ""
        while self.held and not self.waits_for:
            self.waits_for = self.on_message(self.held.popleft())
        return not self.waits_for


class Reader(asyncio.Protocol):
    """A reader's connection: one `subscribe` envelope in, its company's answers out.

    Parameters
    ----------
    admit
        Called with the first frame; gives the company and when its token ends (Unix seconds), or raises.
    """

    def __init__(
        self,
        bytes_max: int,
        admit: Callable[[bytes], tuple[str, float]],
        readers: dict[str, set["Reader"]],
        unsent_max: int,
        log: Logger,
    ) -> None:
        self.frames = FrameReader(bytes_max)
        self.admit = admit
        self.readers = readers
        self.unsent_max = unsent_max
        self.log = log
        self.company = ""
        self.ends_unix = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        try:
            frames = self.frames.feed(data)
            if frames and self.company:
                raise BusError("a reader sends one subscribe envelope and nothing else")
            if frames:
                self.company, self.ends_unix = self.admit(frames[0])
                self.readers.setdefault(self.company, set()).add(self)
        except TickpathError as error:
            self.log.info("local reader refused: %s", error)
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        readers = self.readers.get(self.company)
        if readers is not None:
            readers.discard(self)
            if not readers:
                del self.readers[self.company]

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def send(self, body: bytes) -> bool:
        """False: it does not read, and was cut off."""
        assert self.transport is not None
        if self.transport.get_write_buffer_size() > self.unsent_max:
            self.transport.abort()
            return False
        self.transport.write(encode(body))
        return True

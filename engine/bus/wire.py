"""The connection below the NATS client: messages go straight to whoever takes them, all else to the client.

Owns the protocol object of one connection. Runs in the event loop of whoever reads or writes there. What must stay
true: connecting, authentication, TLS, pings and reconnecting stay the client's; what breaks here looks to it like a
connection that broke.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from nats.aio.transport import TcpTransport
from nats.errors import ProtocolError

from fastpath.messages import Messages

BYTES_MAX = 64 << 20  # the most that a server may be configured to take


class Splitting(asyncio.BufferedProtocol):
    """Takes the place of the stream's protocol once the connection stands; the stream keeps all but the messages."""

    def __init__(self, stream: Any, reader: asyncio.StreamReader, take: Callable[[bytes, str], None]) -> None:
        self.reader = reader
        self.messages = Messages(take, reader.feed_data, BYTES_MAX)
        self.get_buffer = self.messages.room  # type: ignore  # no call in between
        for name in ("connection_lost", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(stream, name))

    def buffer_updated(self, nbytes: int) -> None:
        self.messages.came(nbytes)
        if self.messages.broken and self.reader.exception() is None:
            self.reader.set_exception(ProtocolError(f"nats: {self.messages.broken}"))

    def begin(self, read_already: bytes) -> None:
        """With what the stream had read, and its reader did not ask for."""
        while read_already:
            room = self.messages.room(len(read_already))
            count = min(len(room), len(read_already))
            room[:count] = read_already[:count]
            self.buffer_updated(count)
            read_already = read_already[count:]


class Wire(TcpTransport):
    """What the client reads and writes by. `take` gets (body, subject) of each message, None: the client does."""

    def __init__(self, take: Callable[[bytes, str], None] | None) -> None:
        super().__init__()
        self.take = take

    def __bool__(self) -> bool:
        return True  # or the client would make itself another one

    @property
    def is_open(self) -> bool:
        """Known here before the client hears of it; uvloop raises where a closed one is written to."""
        return self._io_writer is not None and not self._io_writer.is_closing()

    @property
    def writer(self) -> asyncio.StreamWriter:
        assert self._io_writer is not None
        return self._io_writer

    async def read(self, buffer_size: int) -> bytes:
        """The first time, the client is through with connecting."""
        if self.take is not None and not isinstance(self.writer.transport.get_protocol(), Splitting):
            self._split(self.take)
        return await super().read(buffer_size)

    def _split(self, take: Callable[[bytes, str], None]) -> None:
        transport, reader = self.writer.transport, self._io_reader
        assert reader is not None
        splitting = Splitting(transport.get_protocol(), reader, take)
        read_already = bytes(reader._buffer)  # type: ignore[attr-defined]  # what nobody asked for has no other name
        reader._buffer.clear()  # type: ignore[attr-defined]
        reader._maybe_resume_transport()  # type: ignore[attr-defined]
        transport.set_protocol(splitting)
        splitting.begin(read_already)

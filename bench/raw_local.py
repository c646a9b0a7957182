"""The local bus over blocking Unix sockets, with nothing between the bytes and the caller.

Owns the two connections of one producer that reads its own answers. Used by the load's generator; the echo has the
other end of both. What must stay true: bytes may arrive cut anywhere; a message is given once, whole and in order;
its name is looked for after a round, off the clock.
"""

import socket
from collections.abc import Iterable, Sequence

from bench.raw_nats import HEADER_LINE, NAME_HEADER, RECEIVE_BYTES, Message, ProtocolError
from engine.bus.frames import FrameReader, encode
from engine.client.sender import Message as Sent
from engine.client.sender import subscription
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope

FRAME_BYTES_MAX = 1 << 20


class LocalConnection:
    """`open`, then `send`, `read` and `parse`, then `close`; `socket` is the one that is read.

    Parameters
    ----------
    path : of the producers' socket; the readers' is `.out` beside it
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._frames = FrameReader(FRAME_BYTES_MAX)

    def open(self, company: str, user: str, token: str) -> None:
        self._out, self.socket = (socket.socket(socket.AF_UNIX) for _ in range(2))
        self._out.connect(self.path)
        self.socket.connect(f"{self.path}.out")
        self.socket.sendall(encode(subscription(company, user, "bench", token)))

    @staticmethod
    def wrap(message: Sent) -> bytes:
        """Ready for the socket."""
        return encode(message.body)

    def send(self, wire: bytes) -> None:
        self._out.sendall(wire)

    def read(self, flags: int = 0) -> bytes:
        data = self.socket.recv(RECEIVE_BYTES, flags)
        if not data:
            raise ProtocolError(f"{self.path}.out: expected an open connection, found its end; see the server's log")
        return data

    def parse(self, data: bytes) -> list[Message]:
        return [Message(b"", b"", body) for body in self._frames.feed(data)]

    def close(self) -> None:
        self._out.close()
        self.socket.close()


def named(
    arrived: Iterable[tuple[int, Message]], names: Sequence[str], is_echo: bool
) -> list[tuple[int, Message]]:  # fmt: skip
    """The same messages with their names: an echo's by their order, a service's by what they say they answer."""
    found = []
    for n, (at_ns, message) in enumerate(arrived):
        if is_echo:
            name = names[n] if n < len(names) else ""
        else:
            name = MLProcessingEnvelope.FromString(message.body).correlation_id
        header = HEADER_LINE + NAME_HEADER + name.encode() + b"\r\n\r\n"
        found.append((at_ns, message._replace(header=header)))
    return found

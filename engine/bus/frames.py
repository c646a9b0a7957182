"""Frames of the local bus: a little-endian u32 length, then that many bytes.

Owns the framing and nothing else: no sockets, no envelopes. Ingress and egress use it, and so do
producers and readers on the same host. What must stay true: which payloads come out does not depend
on how the bytes were cut on their way, and a length is never believed before it was compared with
what is allowed, so a connection costs at most one frame and one chunk of memory.
"""

import struct

from engine.errors import BusError

_LENGTH = struct.Struct("<I")


def encode(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """One direction of one connection.

    Parameters
    ----------
    bytes_max : the largest payload that is accepted, in bytes

    Examples
    --------
    >>> reader = FrameReader(1024)
    >>> reader.feed(encode(b"one") + encode(b"two")[:5])
    [b'one']
    >>> reader.feed(b"wo")
    [b'two']
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._buffer = bytearray()
        self._refused: BusError | None = None

    @property
    def pending(self) -> int:
        """Bytes of a frame that has not come whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are whole now.

        A length over `bytes_max` makes this call, or where payloads came before it the next one,
        raise BusError, and every later one too: what follows cannot be understood, so the
        connection is to be closed.
        """
        if self._refused is not None:
            raise self._refused
        buffer = self._buffer
        buffer += data
        payloads: list[bytes] = []
        begin = 0
        while len(buffer) - begin >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, begin)
            if size > self.bytes_max:
                return self._refuse(size, payloads)
            end = begin + _LENGTH.size + size
            if len(buffer) < end:
                break
            payloads.append(bytes(memoryview(buffer)[begin + _LENGTH.size : end]))
            begin = end
        del buffer[:begin]
        return payloads

    def _refuse(self, size: int, payloads: list[bytes]) -> list[bytes]:
        self._refused = BusError(
            f"a frame says it has {size} bytes; at most {self.bytes_max} are allowed: "
            "send a little-endian u32 length before each envelope, and smaller envelopes"
        )
        self._buffer.clear()
        if not payloads:
            raise self._refused
        return payloads

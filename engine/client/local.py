"""Blocking clients of the local bus, for producers and readers on the engine's host.

Owns one Unix socket each. Runs in a producer's or reader's process; an asyncio program takes
`asyncio.open_unix_connection` and `engine.bus.frames` instead. Writes envelopes to the socket of
producers, reads answers from the socket of readers. What must stay true: whatever the engine does,
a call returns within its timeout or raises BusError that says what to look at.
"""

import socket
import time

from engine.bus import frames
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.errors import BusError

ANSWER_BYTES_MAX = 8 << 20  # far above any answer; a length beyond it is no frame of ours


def subscription(company: str, user: str, reader: str, token: str) -> bytes:
    """The envelope that a reader sends first; its company's answers follow."""
    envelope = MLProcessingEnvelope(
        message_type="subscribe", company_id=company, user_id=user, service_source=reader, timestamp=time.time_ns()
    )
    envelope.auth_token.jwt = token
    return envelope.SerializeToString()


def _connect(path: str, timeout_s: float) -> socket.socket:
    """Waits for the socket to be there: an engine may be starting."""
    give_up = time.monotonic() + timeout_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(path)
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() >= give_up:
                raise BusError(
                    f"{path}: nobody answers within {timeout_s:g} s ({error.strerror or error}); "
                    "start the engine with bus.local.path set to this path, or correct the path"
                ) from error
        time.sleep(0.02)


class LocalProducer:
    """Writes envelopes to `bus.local.path`; full buffers make `send` wait, so the engine sets the pace."""

    def __init__(self, path: str, timeout_s: float = 5.0) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def open(self) -> None:
        self._socket = _connect(self.path, self.timeout_s)

    def send(self, body: bytes) -> None:
        assert self._socket is not None, "open comes before send"
        try:
            self._socket.sendall(frames.encode(body))
        except OSError as error:
            raise BusError(
                f"{self.path}: the engine takes no more input ({error.strerror or error}); "
                "see its log, connect again, and send again what was not answered, under its names"
            ) from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class LocalReader:
    """Reads its company's answers from `bus.local.path` + `.out`."""

    def __init__(
        self, path: str, company: str, user: str, token: str, reader: str = "reader", timeout_s: float = 5.0
    ) -> None:
        self.path = f"{path}.out"
        self.timeout_s = timeout_s
        self._subscription = (company, user, reader, token)
        self._frames = frames.FrameReader(ANSWER_BYTES_MAX)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        self._socket = _connect(self.path, self.timeout_s)
        self._socket.sendall(frames.encode(subscription(*self._subscription)))

    def receive(self, timeout_s: float) -> list[bytes]:
        """The answers that come within the time, as soon as there is one; empty: none came."""
        assert self._socket is not None, "open comes before receive"
        give_up = time.monotonic() + timeout_s
        while (left := give_up - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError:
                return []
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error
            if not data:
                raise self._gone("it closed the connection")
            if payloads := self._frames.feed(data):
                return payloads
        return []

    def _gone(self, why: str) -> BusError:
        return BusError(
            f"{self.path}: the engine sends no more answers ({why}); "
            "check that the token is valid for this company, and the engine's log"
        )

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

"""The NATS text protocol over a blocking socket, with nothing between the bytes and the caller.

Owns one connection. Used by the load's generator and by the echo, whose cost must be next to nothing.
What must stay true: bytes may arrive cut anywhere; a message is given once, whole and in order.
https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

import json
import socket
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.client.sender import Message as Sent

RECEIVE_BYTES = 1 << 16
HEADER_LINE = b"NATS/1.0\r\n"
NAME_HEADER = b"Nats-Msg-Id: "


class ProtocolError(Exception):
    """The server said something that this side does not understand, or refused something."""


class Message(NamedTuple):
    subject: bytes
    header: bytes  # as it stands on the wire, empty where there is none
    body: bytes


def publication(subject: str, name: str, body: bytes) -> bytes:
    """A message ready for the socket; its name goes into the header `Nats-Msg-Id`.

    >>> publication("a.b", "", b"body")
    b'PUB a.b 4\\r\\nbody\\r\\n'
    """
    if not name:
        return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(body), body)
    return publication_with(subject.encode(), HEADER_LINE + NAME_HEADER + name.encode() + b"\r\n\r\n", body)


def publication_with(subject: bytes, header: bytes, body: bytes) -> bytes:
    """The same, with a header that is ready for the wire."""
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(header), len(header) + len(body), header, body)


def name_in(header: bytes) -> str:
    """What `Nats-Msg-Id` says, empty where it is not there."""
    for line in header.split(b"\r\n"):
        if line.startswith(NAME_HEADER):
            return line[len(NAME_HEADER) :].decode()
    return ""


class Parser:
    """What a server says, cut into messages; `pings` counts the PINGs that were not answered yet.

    >>> parser = Parser()
    >>> list(parser.feed(b"MSG a 1 3\\r\\nab"))
    []
    >>> list(parser.feed(b"c\\r\\nPING\\r\\n")), parser.pings
    ([Message(subject=b'a', header=b'', body=b'abc')], 1)
    """

    def __init__(self) -> None:
        self.pings = 0
        self.pongs = 0
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        rest = self._rest + data if self._rest else data
        at = 0
        while (end := rest.find(b"\r\n", at)) >= 0:
            line = rest[at:end]
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split(b" ")
                after = end + 2 + int(words[-1])
                if len(rest) < after + 2:
                    break
                begin = end + 2 + (int(words[-2]) if line.startswith(b"H") else 0)
                yield Message(words[1], rest[end + 2 : begin], rest[begin:after])
                at = after + 2
            else:
                self._control(line)
                at = end + 2
        self._rest = rest[at:]

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self.pings += 1
        elif line == b"PONG":
            self.pongs += 1
        elif not line.startswith((b"+OK", b"INFO ")):
            raise ProtocolError(f"nats-server: expected MSG, HMSG, PING, PONG or INFO, found {line[:200]!r}")


class Connection:
    """`open`, then `subscribe`, `send` and `receive`, then `close`.

    Parameters
    ----------
    url : nats://user:password@host:port; user and password may be left out
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._parser = Parser()
        self._subscriptions = 0

    def open(self) -> None:
        parts = urlsplit(self.url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=5)
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        options = {
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "name": self.name,
            "lang": "raw",
            "version": "1",
        }
        if parts.username:
            options |= {"user": parts.username, "pass": parts.password}
        self.socket.sendall(b"CONNECT %b\r\n" % json.dumps(options).encode())
        self.settle()

    def close(self) -> None:
        self.socket.close()

    def subscribe(self, subject: str) -> None:
        """Stands at the server when the call returns."""
        self._subscriptions += 1
        self.socket.sendall(f"SUB {subject} {self._subscriptions}\r\n".encode())
        self.settle()

    def settle(self) -> None:
        """Returns once the server has done all that was sent; no message may be on its way then."""
        self.socket.sendall(b"PING\r\n")
        waited = self._parser.pongs + 1
        while self._parser.pongs < waited:
            found = self.receive()
            assert not found, f"{self.url}: expected no messages yet, found {len(found)}"

    @staticmethod
    def wrap(message: Sent) -> bytes:
        """Ready for the socket."""
        return publication(message.subject, message.name, message.body)

    def send(self, wire: bytes) -> None:
        self.socket.sendall(wire)

    def receive(self, flags: int = 0) -> list[Message]:
        """What arrived; waits for bytes, unless MSG_DONTWAIT is among the flags (then BlockingIOError)."""
        return self.parse(self.read(flags))

    def read(self, flags: int = 0) -> bytes:
        data = self.socket.recv(RECEIVE_BYTES, flags)
        if not data:
            raise ProtocolError(f"{self.url}: expected an open connection, found its end; see the server's log")
        return data

    def parse(self, data: bytes) -> list[Message]:
        found = list(self._parser.feed(data))
        while self._parser.pings:
            self._parser.pings -= 1
            self.socket.sendall(b"PONG\r\n")
        return found

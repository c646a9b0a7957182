"""NATS messages out of bytes: what nats-py's own parser finds in them, however they are cut."""

import asyncio
import random
from typing import Any

import pytest
from nats.protocol.parser import Parser

from fastpath.messages import Messages


class Listener:
    """What the parser of nats-py tells its client; the real parser, and nothing of a connection."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, payload: bytes, header: bytes | None) -> None:
        self.found.append((payload, subject.decode()))

    async def _process_ping(self) -> None:
        self.found.append(b"PING\r\n")

    async def _process_pong(self) -> None:
        self.found.append(b"PONG\r\n")

    async def _process_err(self, text: str) -> None:
        self.found.append(b"-ERR " + text.encode() + b"\r\n")

    async def _process_info(self, info: dict) -> None:
        self.found.append(b"INFO")


def by_nats_py(stream: bytes) -> list[Any]:
    listener = Listener()
    asyncio.run(Parser(listener).parse(stream))
    return listener.found


def split(stream: bytes, chance: random.Random, bytes_max: int = 1 << 20) -> tuple[list[Any], str]:
    """Read in pieces of random sizes, as a socket would give them."""
    found: list[Any] = []
    messages = Messages(lambda body, subject: found.append((body, subject)), found.append, bytes_max)
    while stream and not messages.broken:
        room = messages.room(-1)
        count = min(len(stream), len(room), chance.choice((1, 2, 7, 100, 5000, 1 << 20)))
        room[:count] = stream[:count]
        messages.came(count)
        stream = stream[count:]
    return found, messages.broken


def message(chance: random.Random) -> bytes:
    subject = f"trading.features.c{chance.randrange(99)}.s"
    reply = chance.choice(("", "", "_INBOX.x "))
    body = chance.randbytes(chance.choice((0, 1, 2, 80, 3000, 70_000, 200_000)))
    if chance.random() < 0.3:
        header = b"NATS/1.0\r\nNats-Msg-Id: a/1/2\r\n\r\n"
        return f"HMSG {subject} 1 {reply}{len(header)} {len(header) + len(body)}\r\n".encode() + header + body + b"\r\n"
    return f"MSG {subject} 1 {reply}{len(body)}\r\n".encode() + body + b"\r\n"


def line(chance: random.Random) -> bytes:
    return chance.choice((b"PING\r\n", b"PONG\r\n", b"-ERR 'permissions violation'\r\n"))


def test_messages_and_lines_are_those_that_nats_py_finds() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(40):
        stream = b"".join(
            message(chance) if chance.random() < 0.8 else line(chance) for _ in range(chance.randrange(1, 30))
        )
        assert split(stream, chance) == (by_nats_py(stream), "")


def test_a_line_of_the_server_goes_on_whole() -> None:
    info = b'INFO {"server_id":"' + b"x" * 5000 + b'"}\r\n'
    found, broken = split(b"MSG a 1 1\r\nx\r\n" + info + b"+OK\r\nMSG a 1 1\r\ny\r\n", random.Random(1))
    assert (found, broken) == ([(b"x", "a"), info, b"+OK\r\n", (b"y", "a")], "")


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"MSG a 1 -5\r\n", "a message's line with a size that is none, or beyond 1000 bytes"),
        (b"MSG a 1 1001\r\n", "a message's line with a size that is none, or beyond 1000 bytes"),
        (b"MSG a 1 99999999999999999999\r\n", "a message's line with a size that is none, or beyond 1000 bytes"),
        (b"MSG a 1 \xff\r\n", "a message's line with a size that is none, or beyond 1000 bytes"),
        (b"HMSG a 1 9 8\r\n", "a message's line with a size that is none, or beyond 1000 bytes"),
        (b"MSG a 1\r\n", "a message's line without its words"),
        (b"MSG a 1 b 5 6\r\n", "a message's line without its words"),
        (b"MSG a b c d e f g h i\r\n", "a message's line without its words"),
        (b"MSG a 1 5\n", "a message's line without its words"),
        (b"MSG a 1 2\r\nabcd", "a message whose end is not where its size says"),
        (b"x" * 70_000, "a line of more than 65536 bytes"),
    ],
)
def test_what_makes_no_sense_ends_it(stream: bytes, why: str) -> None:
    """Nothing behind it is believed either."""
    good = b"MSG a 1 1\r\nx\r\n"
    assert split(good + stream + good * 50, random.Random(1), 1000) == ([(b"x", "a")], why)


def test_a_count_beyond_the_room_is_refused() -> None:
    messages = Messages(print, print, 1000)
    room = len(messages.room(-1))
    with pytest.raises(ValueError, match=f"expected at most {room} bytes, found {room + 1}"):
        messages.came(room + 1)

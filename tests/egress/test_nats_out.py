"""What NATS missed while it was away: who is told to have been written, and by which connection.

The link is stood in for by a list that breaks when told to; real servers are asked in test_egress and tests/system.
"""

import logging
from typing import Any

import pytest
from nats.errors import MaxPayloadError

from engine.egress.encoding import Answer
from engine.egress.nats_out import NatsOut
from engine.shared import Count

SMALL, LARGE = b"s" * 10, b"l" * 1000


class Link:
    def __init__(self) -> None:
        self.is_up, self.connections = True, 1
        self.written: list[str] = []
        self.breaks_at = ""

    def publish(self, subject: str, body: bytes, name: str) -> None:
        if len(body) > 100:
            raise MaxPayloadError
        self.written.append(name)
        self.is_up = name != self.breaks_at


@pytest.fixture
def out() -> NatsOut:
    link: Any = Link()
    return NatsOut(link, memoryview(bytearray(8 * 64)).cast("Q"), 1 << 20, logging.getLogger("t"))


def keep(out: NatsOut, **bodies: bytes) -> None:
    for name, body in bodies.items():
        out.keep(Answer("acme", "s", name, body), f"owner of {name}")


def test_what_is_too_large_for_a_server_that_came_back_was_written_by_no_connection(out: NatsOut) -> None:
    keep(out, a=SMALL, b=LARGE, c=SMALL)
    assert out.empty_outbox() == [("owner of a", 1), ("owner of c", 1)]
    assert (out.counters[Count.OUTBOX_DROPPED], out.waiting_bytes, len(out.outbox)) == (1, 0, 0)


def test_what_a_connection_broke_over_was_carried_by_it_and_the_rest_waits_for_the_next_one(out: NatsOut) -> None:
    link: Any = out.link
    link.breaks_at = "b"
    keep(out, a=SMALL, b=SMALL, c=SMALL)
    assert out.empty_outbox() == [("owner of a", 1), ("owner of b", 1)]
    link.is_up, link.connections, link.breaks_at = True, 2, ""
    assert out.empty_outbox() == [("owner of c", 2)]
    assert link.written == ["a", "b", "c"]
    assert (out.waiting_bytes, len(out.outbox)) == (0, 0)

"""The ring to Kafka, as its reader empties it: nothing leaves that Kafka may still take, whatever it says meanwhile.

The producer is stood in for by a list; real brokers are asked in tests/system.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from engine.bus import kafka
from engine.kafka import outlet
from engine.kafka.outlet import Outlet
from engine.settings import Kafka
from engine.shared import Count, Shared
from tests.ingress.stand import SMALL, arena

LATER, NEVER = KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.MSG_SIZE_TOO_LARGE


class Given:
    """What a producer was given: bodies, and whom to tell."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.tell: list[Any] = []

    def produce(self, topic: str, body: bytes, key: bytes, headers: Any, on_delivery: Any) -> None:
        self.bodies.append(body)
        self.tell.append(on_delivery)

    def poll(self, _: float) -> None:
        pass

    def answers(self, *codes: int | None) -> None:
        """Of the oldest records that were given and not heard of, one code each; None: taken."""
        for code in codes:
            self.tell.pop(0)(KafkaError(code) if code is not None else None, Message())


class Message:
    def topic(self) -> str:
        return "t"

    def __len__(self) -> int:
        return 1


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outlet]:
    monkeypatch.setattr(outlet, "AGAIN_S", 0.0)
    with arena(replace(SMALL, bus=replace(SMALL.bus, kafka=Kafka("127.0.0.1:1")))) as shared:
        child: Any = SimpleNamespace(shared=shared, counters=[0] * 64, log=logging.getLogger("t"))
        made = Outlet(child)
        made.producer = Given()  # type: ignore[assignment]
        for number in range(4):
            put(shared, b"%d" % number)
        yield made


def put(shared: Shared, body: bytes) -> None:
    assert shared.kafka_out is not None
    assert kafka.put_output(shared.kafka_out, 1, 0, b"acme/feed", b"name", body) > 0


def left(out: Outlet) -> list[bytes]:
    """Bodies that the ring still holds for whoever comes after."""
    return [bytes(each.body) for each in kafka.outputs(out.ring, out.ring.tail)]


def test_what_kafka_may_take_later_stays_and_goes_out_again_with_all_behind_it(out: Outlet, caplog: Any) -> None:
    given: Any = out.producer
    out.turn()
    given.answers(None, LATER, None)
    out.turn()
    assert left(out) == [b"1", b"2", b"3"]
    put(out.child.shared, b"4")
    out.turn()
    assert given.bodies == [b"0", b"1", b"2", b"3"], "the last one was not heard of"
    given.answers(LATER)
    out.turn()
    out.turn()
    assert given.bodies[4:] == [b"1", b"2", b"3", b"4"]
    given.answers(None, None, None, None)
    out.turn()
    assert (left(out), out.unconfirmed) == ([], False)
    assert out.counters[Count.KAFKA_REFUSED] == 0
    assert len([text for text in caplog.messages if "does not take" in text]) == 1


def test_what_kafka_will_never_take_is_let_go_told_and_counted(out: Outlet, caplog: Any) -> None:
    given: Any = out.producer
    out.turn()
    given.answers(None, NEVER, None, None)
    out.turn()
    assert left(out) == []
    assert (out.counters[Count.KAFKA_REFUSED], out.counters[Count.KAFKA_PUBLISHED]) == (1, 3)
    assert "kafka will not take 1 bytes for t" in caplog.text


def test_a_successor_sends_again_what_its_predecessor_saw_fail(out: Outlet) -> None:
    given: Any = out.producer
    out.turn()
    given.answers(None, LATER)
    out.turn()
    successor = Outlet(out.child)
    successor.producer = Given()  # type: ignore[assignment]
    successor.turn()
    assert successor.producer.bodies == [b"1", b"2", b"3"]  # type: ignore[attr-defined]

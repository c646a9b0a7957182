"""Answers to Kafka's ring: which bus carries what, and when an input is done.

The kafka process is stood in for by whoever moves the ring's tail, and by the word that says Kafka is up.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.bus import kafka
from engine.egress.kafka_out import KafkaOut
from engine.settings import Kafka, Settings
from engine.shared import KAFKA, BusState, Count, Expired, Shared
from tests.egress.role import done
from tests.egress.stand import Desk, answer, run
from tests.ingress.stand import SMALL, Sender, Stand, arena, vector


class Lost:
    """A NATS link that is away."""

    is_up = False
    connections = 0


@pytest.fixture
def settings() -> Settings:
    return replace(SMALL, bus=replace(SMALL.bus, kafka=Kafka("127.0.0.1:1")))


@pytest.fixture
def shared(settings: Settings) -> Iterator[Shared]:
    with arena(settings) as made:
        yield made


@pytest.fixture
def stand(shared: Shared, settings: Settings) -> Stand:
    return Stand(shared, settings)


def kafka_is(shared: Shared, state: BusState) -> None:
    shared.children[KAFKA.row]["bus_kafka"] = state


def desk_with(shared: Shared, folder: Path, both: bool, waiting_bytes: int = 1 << 20, link: Any = None) -> Desk:
    desk = Desk(shared, folder, link=link)
    desk.delivery.kafka = KafkaOut(shared, desk.counters, both, waiting_bytes)
    return desk


def take(stand: Stand, sender: Sender, count: int = 1) -> None:
    for _ in range(count):
        assert stand.take(sender.batch(vector(minute=sender.next)), received_ns=time.monotonic_ns() + 10**10)


def published(shared: Shared, begin: int = 0) -> list[str]:
    assert shared.kafka_out is not None
    return [each.name.rsplit("/", 1)[-1] for each in kafka.outputs(shared.kafka_out, begin)]


def confirm(shared: Shared) -> None:
    assert shared.kafka_out is not None
    shared.kafka_out.release(shared.kafka_out.head)


@pytest.mark.parametrize("both", [True, False])
def test_an_answer_is_done_when_kafka_confirmed_it_and_not_before(
    shared: Shared, stand: Stand, tmp_path: Path, both: bool
) -> None:
    async def main() -> None:
        desk = desk_with(shared, tmp_path, both, link=Lost())
        kafka_is(shared, BusState.UP)
        take(stand, Sender(), 3)
        answer(shared)
        await desk.pass_on()
        desk.delivery.hear_kafka()
        assert published(shared) == ["1", "2", "3"]
        assert not done(shared, 1)
        confirm(shared)
        desk.delivery.hear_kafka()
        assert done(shared, 1, 2, 3)
        assert shared.answers[0].tail == 3
        assert [name.name.rsplit("/", 1)[-1] for name, _ in desk.nats.outbox] == ["1", "2", "3"]  # for its return

    run(main())


class Link:
    """A NATS link that is there, until told otherwise; it keeps the names of what it was given."""

    client = SimpleNamespace(max_payload=1 << 20)

    def __init__(self) -> None:
        self.is_up, self.connections = True, 1
        self.names: list[str] = []

    def publish(self, subject: str, body: bytes, name: str) -> None:
        self.names.append(name.rsplit("/", 1)[-1])


def test_what_nats_left_to_kafka_goes_over_nats_again_where_kafka_went_away_too(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        link = Link()
        desk = desk_with(shared, tmp_path, both=True, link=link)
        kafka_is(shared, BusState.UP)
        take(stand, Sender(), 2)
        answer(shared)
        await desk.pass_on()
        link.is_up = False
        desk.delivery.connection_lost()
        await desk.pass_on()
        link.is_up, link.connections = True, 2
        desk.delivery.move_unconfirmed()
        await desk.pass_on()
        assert link.names == ["1", "2"], "it is on its way to Kafka"
        kafka_is(shared, BusState.DOWN)
        for _ in range(2):
            desk.delivery.move_unconfirmed()
            await desk.pass_on()
        assert link.names == ["1", "2"] * 2
        assert [pending.nats_connection for pending in desk.delivery._unconfirmed] == [2, 2]
        assert published(shared) == ["1", "2"]

    run(main())


def test_with_no_bus_up_nothing_is_decided_and_it_leaves_once_kafka_is_there(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = desk_with(shared, tmp_path, both=True, link=Lost())
        kafka_is(shared, BusState.DOWN)
        take(stand, Sender(), 2)
        answer(shared)
        await desk.pass_on()
        assert published(shared) == []
        assert desk.count(Count.SENT) == 0
        kafka_is(shared, BusState.UP)
        await desk.pass_on()
        assert published(shared) == ["1", "2"]

    run(main())


def test_what_was_answered_before_the_start_is_done_and_said_to_nobody(
    shared: Shared, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        desk = desk_with(shared, tmp_path, both=True)
        kafka_is(shared, BusState.UP)
        monkeypatch.setattr("engine.ingress.admission.Message.expired", lambda *_: Expired.ANSWERED_BEFORE)
        sender = Sender()
        take(stand, sender, 2)
        monkeypatch.undo()
        take(stand, sender)
        answer(shared)
        await desk.pass_on()
        assert done(shared, 1, 2)
        assert published(shared) == ["3"]

    run(main())


def test_copies_for_a_kafka_that_is_away_are_bounded_and_leave_in_order_when_it_makes_room(
    shared: Shared, stand: Stand, tmp_path: Path
) -> None:
    async def main() -> None:
        desk = desk_with(shared, tmp_path, both=True, waiting_bytes=3000)
        inbox_of: Any = await desk.open()
        inbox = await inbox_of.reader("acme")
        kafka_is(shared, BusState.DOWN)
        ring: Any = shared.kafka_out
        filler = 0
        while kafka.put_output(ring, 1, 0, b"", b"", bytes(1 << 20)) >= 0:
            filler = ring.head
        while kafka.put_output(ring, 1, 0, b"", b"", bytes(400)) >= 0:
            filler = ring.head
        sender = Sender()
        for _ in range(30):
            take(stand, sender)
            answer(shared)
            await desk.pass_on()
            stand.sequencer.advance_tail()
        out = desk.delivery.kafka
        assert out is not None
        assert out.waiting_bytes <= 3000
        assert desk.count(Count.OUTBOX_DROPPED) > 0
        assert shared.answers[0].tail == 30  # the local reader has them all
        ring.release(filler)
        desk.delivery.hear_kafka()
        left = [int(each) for each in published(shared, filler)]
        assert left == list(range(31 - len(left), 31))
        assert out.waiting_bytes == 0
        await inbox.close()
        await desk.close()

    run(main())

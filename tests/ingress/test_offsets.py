"""What may be committed to Kafka: records whose inputs are done, and never one more."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

import pytest

from engine import limits
from engine.bus import kafka
from engine.ingress.offsets import Offsets, Place
from engine.settings import Kafka
from engine.shared import INGRESS, Shared
from tests.egress.stand import run, until
from tests.ingress.role import opened, settings_for
from tests.ingress.stand import SMALL, arena
from tests.system.servers import Issuer

SETTINGS = replace(SMALL, bus=replace(SMALL.bus, kafka=Kafka("127.0.0.1:1")))


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena(SETTINGS) as made:
        yield made


def put(shared: Shared, partition: int, offset: int, answered: bool = False) -> None:
    assert shared.kafka_in is not None
    assert kafka.put_input(shared.kafka_in, 1 + offset, partition, offset, answered, b"acme/feed", b"raw")


def begun(shared: Shared, partitions: int = 1, last: int = 0) -> Offsets:
    shared.kafka[0]["partitions"] = partitions
    offsets = Offsets(shared)
    offsets.open(last)
    return offsets


def test_the_watermark_is_that_of_a_model_whatever_the_order_of_settling_and_of_answers(shared: Shared) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    offsets = begun(shared, 3)
    places: list[Place] = []
    following, position, tail = [0, 0, 0], 0, 1
    for _ in range(2000):
        what = chance.random()
        if what < 0.4:
            partition = chance.randrange(3)
            put(shared, partition, following[partition])
            following[partition] += 1
            places += [place for place, _ in offsets.waiting(lambda company: True)]
        elif what < 0.8 and (open_ := [each for each in places if each.position < 0]):
            position += chance.random() < 0.7  # else it was a duplicate, or reported
            offsets.settle(chance.choice(open_[:5]), position)
        else:
            tail = chance.randint(tail, position + 1)
        offsets.advance(tail)
        settled = list(takewhile(lambda each: each.position >= 0, places))
        for partition in range(3):
            mine = [each for each in settled if each.partition == partition]
            done = len(list(takewhile(lambda each, tail=tail: each.position < tail, mine)))
            assert int(shared.partitions[partition]["done"]) == done


def test_a_successor_commits_nothing_that_its_predecessor_had_not_seen_done(shared: Shared) -> None:
    first = begun(shared)
    for offset in range(4):
        put(shared, 0, offset)
    for number, (place, _) in enumerate(first.waiting(lambda company: True)):
        if number < 3:
            first.settle(place, number + 1)
    first.advance(tail_position=2)
    row = shared.partitions[0]
    assert (int(row["settled"]), int(row["done"])) == (3, 1)
    second = begun(shared, last=3)
    assert [record.offset for _, record in second.waiting(lambda company: True)] == [
        3
    ]  # again, and the arbiter will know it
    second.advance(tail_position=3)
    assert int(row["done"]) == 1
    second.advance(tail_position=4)
    assert int(row["done"]) == 3
    assert not second.idle


def test_recovery_ends_once_all_was_settled_that_was_there_at_the_start(shared: Shared) -> None:
    assert not Offsets(shared).recovered()  # nobody knows the partitions yet
    shared.partitions[0]["noted_end"] = 2
    offsets = begun(shared)
    assert not offsets.recovered()
    for offset in range(3):
        put(shared, 0, offset, answered=True)
    for number, (place, _) in enumerate(offsets.waiting(lambda company: True)):
        assert place.answered
        assert offsets.recovered() == (number >= 2)
        offsets.settle(place, number + 1)
        offsets.advance(1)
    assert offsets.recovered()


def test_windows_are_filled_again_from_the_oldest_record_of_any_live_one(shared: Shared) -> None:
    offsets = begun(shared)
    for minute in range(limits.WINDOW_MINUTES + 50):
        for stream, offset in ((0, 2 * minute), (1, 2 * minute + 1)):
            if stream == 0 or minute < 30:
                offsets.note_minute(Place(0, 0, offset, False), stream, minute)
    offsets.note_rewinds()
    assert int(shared.partitions[0]["rewind"]) == 1  # of the stream that stopped, whose window is its last minutes


def test_a_record_that_came_before_anybody_could_be_rung_has_its_turn(
    shared: Shared, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        settings = settings_for(issuer)
        ingress = opened(shared, replace(settings, bus=replace(settings.bus, kafka=SETTINGS.bus.kafka)))
        shared.kafka[0]["partitions"] = 1
        ingress.offsets.open(0)
        ring, bell = shared.kafka_in, shared.bells[INGRESS.row]
        assert ring is not None

        def come(_: int) -> None:
            monkeypatch.undo()
            put(shared, 0, 0)
            assert not bell.ring(), "ingress is up"

        bell.wake()
        monkeypatch.setattr(ingress.offsets, "advance", come)  # after it looked, before it can be rung
        ingress.read_kafka()
        assert ingress.offsets.read < ring.head
        await until(lambda: ingress.offsets.read == ring.head, "it looks once more")

    run(main())

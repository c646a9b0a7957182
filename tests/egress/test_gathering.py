"""Answer slots become whole answers: however they were cut into microbatches, repeated, or read again."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contract.names import Reason
from engine.egress.gathering import Gathered, Gatherer
from engine.shared import Shared
from fastpath.answers import words
from fastpath.ring import Ring
from tests.egress.stand import add_versions, answer
from tests.ingress.stand import SMALL, Sender, Stand, arena, vector


def gatherer(shared: Shared, worker: int = 0) -> Gatherer:
    return Gatherer(worker, shared.answers[worker], shared.inputs)


def parts(gathered: Gathered) -> list[tuple[int, bytes]]:
    return [(int(slot["index"]), bytes(slot["symbol"])) for slot in gathered.slots]


def take(stand: Stand, *sizes: int) -> None:
    sender = Sender()
    for number, size in enumerate(sizes):
        assert stand.take(sender.batch(*[vector(f"S{each}", number) for each in range(size)]))


def test_an_input_comes_out_whole_once_its_last_slot_was_published(shared: Shared, stand: Stand) -> None:
    take(stand, 3, 1)
    gather = gatherer(shared)
    answer(shared, most=2)
    assert list(gather.drain()) == []
    answer(shared, most=1)
    (first,) = gather.drain()
    assert (first.position, first.end, parts(first)) == (1, 3, [(0, b"S0"), (1, b"S1"), (2, b"S2")])
    assert (first.record.company, first.record.stream, first.record.raw) == ("acme", "feed-0", b"")
    answer(shared)
    (second,) = gather.drain()
    assert (second.position, second.end) == (2, 4)
    assert not gather.ready()


def test_a_repeated_slot_is_dropped(shared: Shared, stand: Stand) -> None:
    take(stand, 4, 2)
    gather = gatherer(shared)
    answer(shared, most=3)
    assert list(gather.drain()) == []
    answer(shared, most=2, repeat=2)
    (first,) = gather.drain()
    assert (first.position, parts(first)) == (1, [(index, f"S{index}".encode()) for index in range(4)])
    answer(shared, repeat=1)
    (second,) = gather.drain()
    assert (second.position, len(second.slots)) == (2, 2)
    assert second.end == shared.answers[0].head


@pytest.mark.parametrize("poison", [0, 1, 2])
def test_an_input_with_a_poisoned_slot_says_so_and_the_next_does_not(shared: Shared, stand: Stand, poison: int) -> None:
    take(stand, 3, 2, 1)
    answer(shared)
    shared.answers[0].slots["reason"][poison] = Reason.POISON
    assert [gathered.poisoned for gathered in gatherer(shared).drain()] == [True, False, False]


def test_a_ring_of_smaller_slots_is_no_ring_of_answers() -> None:
    ring = Ring(bytearray(Ring.bytes_needed(64, 8)), "u8")
    with pytest.raises(ValueError, match=r"an answer slot has \d+ bytes, found 8"):
        words(ring, 0)


def test_what_is_not_released_is_gathered_again_by_a_successor(shared: Shared, stand: Stand) -> None:
    take(stand, 2, 3)
    answer(shared)
    first, second = gatherer(shared).drain()
    shared.answers[0].release(first.end)
    (again,) = gatherer(shared).drain()
    assert (again.position, parts(again)) == (second.position, parts(second))


def test_a_missing_part_is_a_corrupt_arena(shared: Shared, stand: Stand) -> None:
    take(stand, 3)
    answer(shared)
    shared.answers[0].slots[1]["index"] = 2
    with pytest.raises(RuntimeError) as caught:
        list(gatherer(shared).drain())
    assert str(caught.value) == ("answer to request 1: expected part 1 of its input, found 2; the arena is corrupt")


def test_a_record_of_another_input_is_a_corrupt_arena(shared: Shared, stand: Stand) -> None:
    take(stand, 1, 1)
    answer(shared)
    shared.answers[0].slots[0]["record"] = shared.answers[0].slots[1]["record"]
    with pytest.raises(RuntimeError) as caught:
        list(gatherer(shared).drain())
    assert str(caught.value) == "answer of input 1 points at the record of 2; the arena is corrupt"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    cuts=st.lists(st.tuples(st.integers(1, 7), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_any_cut_and_any_repeat_gives_each_input_once_in_order(sizes: list[int], cuts: list[tuple[int, int]]) -> None:
    with arena(SMALL, workers=2) as shared:
        add_versions(shared)
        stand = Stand(shared)
        senders = [Sender(f"company-{number}") for number in range(4)]
        for number, size in enumerate(sizes):
            envelope = senders[number % 4].batch(*[vector(f"S{each}", number) for each in range(size)])
            assert stand.take(envelope)
        for worker in range(2):
            gather, out = gatherer(shared, worker), []
            for most, repeat in [*cuts, (100, 0)]:
                answer(shared, worker, most, repeat=min(repeat, shared.answers[worker].head and 1))
                out += list(gather.drain())
            mine = [record for record in stand.records() if record.head.worker == worker]
            assert [each.position for each in out] == [record.head.position for record in mine]
            assert [len(each.slots) for each in out] == [record.head.count for record in mine]

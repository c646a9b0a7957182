"""What a dead worker had in hand: suspect after one death of its own, poison after a second on the same slot."""

from collections.abc import Iterator

import numpy as np
import pytest

from engine.shared import Phase, Shared
from engine.supervision.suspects import WORDS, remember
from fastpath import layout
from tests.ingress.stand import arena

RING = 0


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        yield made


def die(
    shared: Shared, first: int, end: int, model: int = 0, self_inflicted: bool = True, phase: Phase = Phase.IDLE
) -> int:
    hand = np.zeros(1, layout.child_row_dtype)[0]
    hand["hand_first"], hand["hand_end"], hand["hand_model"], hand["phase"] = first, end, model, phase
    return remember(shared.supervisor[0], RING, hand, shared.requests[RING], self_inflicted)


def words(shared: Shared) -> tuple[int, ...]:
    return tuple(int(shared.supervisor[0][name][RING]) for name in WORDS)


def test_a_death_in_a_model_makes_its_slots_suspect_and_names_the_model(shared: Shared) -> None:
    assert die(shared, 10, 42, model=6) == 5
    assert words(shared) == (10, 42, 6, 0, 0)
    assert int(shared.supervisor[0]["hand_end"][RING]) == 42


def test_a_death_outside_of_any_model_blames_none(shared: Shared) -> None:
    assert die(shared, 10, 42) == -1
    assert words(shared) == (10, 42, 0, 0, 0)


def test_a_foreign_kill_makes_nothing_suspect_and_forgets_nothing(shared: Shared) -> None:
    die(shared, 10, 42, model=6)
    assert die(shared, 12, 13, model=2, self_inflicted=False) == -1
    assert words(shared) == (10, 42, 6, 0, 0)


def test_a_death_with_nothing_in_hand_makes_nothing_suspect(shared: Shared) -> None:
    shared.requests[RING].claim(20)
    shared.requests[RING].publish(20)
    shared.requests[RING].release(20)
    assert die(shared, 10, 20, model=6) == -1
    assert die(shared, 0, 0) == -1
    assert words(shared) == (0, 0, 0, 0, 0)


def test_a_death_in_a_rehearsal_names_the_model_and_no_slot(shared: Shared) -> None:
    shared.requests[RING].claim(42)
    shared.requests[RING].publish(42)
    shared.requests[RING].release(42)
    assert die(shared, 10, 42, model=6, phase=Phase.IN_MODEL) == 5
    assert words(shared) == (0, 0, 0, 0, 0)


def test_a_second_death_on_a_slot_makes_it_poison_and_leaves_its_neighbours_suspect(shared: Shared) -> None:
    die(shared, 10, 42, model=6)
    assert die(shared, 12, 13, model=2) == 1
    assert words(shared) == (10, 42, 6, 13, 2)
    assert die(shared, 12, 13) == -1  # even as poison it killed
    assert words(shared) == (10, 42, 6, 13, 3)
    die(shared, 20, 21)
    assert words(shared) == (10, 42, 6, 21, 2)


def test_a_death_beyond_the_suspect_slots_begins_anew(shared: Shared) -> None:
    die(shared, 10, 42, model=6)
    die(shared, 12, 13)
    die(shared, 42, 50, model=3)
    assert words(shared) == (42, 50, 3, 0, 0)

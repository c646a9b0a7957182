"""A worker may die at any instruction: slots taken again give the same bytes."""

import numpy as np
import pytest

from engine import limits
from engine.inference.microbatch import cut
from engine.inference.predictor import Predictor
from engine.inference.windows import enter
from tests.inference.conftest import MAX_BATCH, answer
from tests.inference.market import FIRST_MINUTE, Market, walk, windows

KEYS = 3


def busy_market(rng: np.random.Generator, count: int) -> Market:
    """Several keys and tiers: several vectors a minute, empty minutes, holes, old, late and expired vectors."""
    market = Market()
    clock = np.full(KEYS, FIRST_MINUTE * 60_000_000_000)
    mids = np.array([1.3, 95.0, 1300.0])
    for key in range(KEYS):
        history = walk(rng, int(rng.integers(0, 240)), mids[key])
        clock[key] += 60_000_000_000
        market.vector(key, int(clock[key]), mids[key], history=history, tier=key + 1)
    while len(market.given) < count:
        key = int(rng.integers(KEYS))
        seconds = float(rng.choice([5, 30, 60, 60, 60, 200, 900], p=[0.2, 0.2, 0.2, 0.2, 0.15, 0.04, 0.01]))
        mids[key] *= np.exp(1e-4 * rng.normal())
        kind = rng.random()
        if kind < 0.06:  # old: not newer than its key's last
            back = int(rng.integers(0, 4)) * 60_000_000_000
            market.vector(key, int(clock[key]) - back, mids[key] * (1 + 1e-4 * rng.normal()), tier=key + 1)
            continue
        if kind < 0.1:
            at = int(clock[key]) - int(rng.integers(0, 20)) * 60_000_000_000
            market.vector(key, at, mids[key], tier=key + 1, late=True)
            continue
        clock[key] += int(seconds * 1e9)
        spread = mids[key] * 1e-5 if rng.random() < 0.8 else np.nan
        scores = tuple(rng.uniform(-1, 1, 3)) if rng.random() < 0.5 else ()
        expired = bool(rng.random() < 0.05)
        market.vector(
            key, int(clock[key]), mids[key], spread=spread, tier=key + 1, expired=expired, correlations=scores
        )
    return market


def die_within(predictor: Predictor, slots: np.ndarray, first: int, most: int, window: np.ndarray, how: str) -> None:
    """What a worker that dies in its next microbatch, of so many slots at most, leaves behind."""
    size = cut(slots, first, most, limits.STEPS_SPARE, np.zeros(most, "u4"), np.zeros(most, "i8"))
    if how == "after entering":
        predictor._view(slots, predictor._answers, window)
        verdicts = np.ones(size, "u1")
        enter(
            predictor._request_view, len(slots) - 1, first, size, verdicts, predictor._window_view,
            predictor._cross_asset, predictor._bounds, predictor._batch.records,
        )  # fmt: skip
    elif how == "before publishing":
        answer(predictor, slots, first + size, window, first=first)


@pytest.mark.parametrize("seed", range(6))
def test_slots_taken_again_after_a_death_give_the_same_bytes(predictor, seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    count = 500
    slots = busy_market(rng, count).slots()
    undisturbed = windows(KEYS)
    expected = answer(predictor, slots, count, undisturbed)
    window, answers = windows(KEYS), np.zeros_like(expected)
    position = 0
    while position < count:
        published = min(position + int(rng.integers(1, MAX_BATCH)), count)
        answer(
            predictor,
            slots,
            published,
            window,
            first=position,
            answers=answers,
            largest=int(rng.integers(1, MAX_BATCH + 1)),
        )
        position = published
        lost = min(int(rng.integers(1, MAX_BATCH + 1)), count - position)
        if lost:
            die_within(
                predictor, slots, position, lost, window, str(rng.choice(["after entering", "before publishing"]))
            )
    assert answers[:count].tobytes() == expected[:count].tobytes()
    assert window.tobytes() == undisturbed.tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_answers_do_not_depend_on_the_microbatch_they_were_in(predictor, seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(100 + seed)
    slots = busy_market(rng, 300).slots()
    together, alone = windows(KEYS), windows(KEYS)
    assert (
        answer(predictor, slots, 300, together).tobytes() == answer(predictor, slots, 300, alone, largest=1).tobytes()
    )
    assert together.tobytes() == alone.tobytes()


def test_answers_of_a_key_do_not_depend_on_other_keys(predictor):
    slots = busy_market(np.random.default_rng(7), 300).slots()
    own = np.flatnonzero(slots["key"][:300] == 1)
    lonely = np.zeros_like(slots)
    lonely[: len(own)] = slots[own]
    among = answer(predictor, slots, 300, windows(KEYS))
    alone = answer(predictor, lonely, len(own), windows(KEYS))
    for each in (among, alone):
        each["request"] = 0
    raw = among.view("u1").reshape(len(among), -1)
    assert raw[own].tobytes() == alone[: len(own)].tobytes()


def test_entries_of_an_earlier_owner_of_the_row_are_never_read(predictor):
    rng = np.random.default_rng(8)
    used, fresh = windows(1), windows(1)
    before, after = Market(generation=1), Market(generation=2)
    for n, mid in enumerate(walk(rng, 300, 95.0)):
        before.minute(0, n, mid)
    for n, mid in enumerate(walk(rng, 80, 1.3)):
        after.minute(0, n, mid)
    answer(predictor, before.slots(), 300, used)
    assert answer(predictor, after.slots(), 80, used).tobytes() == answer(predictor, after.slots(), 80, fresh).tobytes()


def test_lost_windows_are_warming_not_wrong(predictor):
    """Another worker's memory, or none: depth is what the stamps say, whatever the slot hopes for."""
    market = Market(tier=1)
    for n, mid in enumerate(walk(np.random.default_rng(9), 100)):
        market.minute(0, n, mid)
    slots = market.slots()
    answers = answer(predictor, slots, 100, windows(1), first=90)
    assert set(answers["status"][90:100]) == {3}


def test_outside_slots_leave_windows_alone_and_see_only_minutes_before_theirs(predictor):
    mids = walk(np.random.default_rng(10), 100)
    market, reference = Market(), Market()
    for n, mid in enumerate(mids):
        market.minute(0, n, mid)
    for n, mid in enumerate(mids[:81]):
        reference.minute(0, n, mid)
    market.vector(0, (FIRST_MINUTE + 81) * 60_000_000_000 - 1_000_000, mids[80], late=True)
    window = windows(1)
    slots = market.slots()
    answer(predictor, slots, 100, window)
    before = window.tobytes()
    late = answer(predictor, slots, 101, window, first=100)[100]
    assert window.tobytes() == before
    then = answer(predictor, reference.slots(), 81, windows(1))[80]
    for name in ("price", "lower", "upper", "pattern_probability", "buy", "hold", "sell", "shap", "trend_strength"):
        np.testing.assert_array_equal(late[name], then[name], err_msg=name)

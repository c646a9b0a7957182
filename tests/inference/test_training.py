"""What the bundled models were made from: labels, parts, rules, and the same features as live."""

import itertools
import math

import numpy as np
import pytest

from engine.inference.predictor import Predictor
from engine.training.data import (
    BARRIER,
    EMBARGO_MINUTES,
    SIMULTANEOUS,
    Bars,
    drawn,
    futures,
    labels,
    parts_of,
    read_bars,
)
from engine.training.data import walk as through_kernels
from tests.inference.conftest import STORE, answer
from tests.inference.market import Market, walk, windows

DATA = STORE.parent / "data" / "fx_m1"


def test_training_features_equal_live_ones_to_the_bit(predictor: Predictor):
    """A whole file, with its empty minutes, holes and crossed closes: two vectors a minute, as they would come."""
    bars = read_bars(DATA / "GBPUSD.csv.gz")
    count = len(bars.minute)
    shown = drawn(bars, np.full(count, "train"), seed=52)
    assert [int((shown.quarter == each).sum()) > count / 5 for each in range(4)] == [True] * 4
    offline = through_kernels(bars, np.full((count, 1), np.nan), shown)
    assert (np.diff(bars.minute) > 1).any()
    predictor.models.clear()  # what models see is the same whether or not one looks
    window, market = windows(1), Market(tier=3)
    for first in range(0, count, 1000):
        market.given.clear()
        own = range(first, min(first + 1000, count))
        for n in own:
            spread = bars.ask[n] - bars.bid[n] if bars.ask[n] > bars.bid[n] else np.nan
            at = int(bars.minute[n]) * 60_000_000_000
            market.vector(0, at + int(shown.passed_ns[n]), shown.mid[n], spread=spread)
            market.vector(0, at + 59_999_500_000, bars.mid[n], spread=spread)
        slots, answers = market.slots(), None
        for n in own:
            at = 2 * (n - first)
            answers = answer(predictor, slots, at + 2, window, first=at, answers=answers)
            for name in ("rows", "columns", "path"):
                assert getattr(predictor._batch, name)[0].tobytes() == offline[name][n].tobytes(), (name, n)
            assert predictor._batch.entry["sigma"][0] == offline["sigma"][n]


def test_labels_are_the_first_touch_within_fifteen_closes():
    rng = np.random.default_rng(51)
    for _ in range(300):
        mid, sigma = 1.3, float(rng.uniform(0.5, 3))
        future = walk(rng, 60, mid, bp=sigma)[None]
        if rng.random() < 0.2:
            future[0, int(rng.integers(60)) :] = np.nan
        barrier = BARRIER * sigma * math.sqrt(15) * 1e-4
        expected = 1
        for close in future[0, :15]:
            if math.isnan(close):
                expected = -1
                break
            move = math.log(close / mid)
            if abs(move) >= barrier:
                expected = 2 if move > 0 else 0
                break
        assert labels(np.array([mid]), np.array([sigma]), future)[0] == expected


def test_futures_repeat_through_empty_minutes_and_end_at_holes():
    minute = np.array([0, 1, 4, 20])
    bars = Bars("X", minute, np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    future, quoted = futures(bars)
    assert list(future[0, :9]) == [2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    assert np.isnan(future[0, 9:19]).all()
    assert future[0, 19] == 4.0
    assert list(np.flatnonzero(quoted[0])) == [0, 3, 19]


@pytest.mark.parametrize("symbol", ["EURUSD", "GBPUSD"])
def test_parts_lie_hours_apart_and_never_overlap(symbol):
    minute = read_bars(DATA / f"{symbol}.csv.gz").minute
    part = parts_of(minute, minute)
    spans = [minute[part == name] for name in ("train", "calibration", "test")]
    for before, after in itertools.pairwise(spans):
        assert after.min() - before.max() >= EMBARGO_MINUTES
    assert all(len(each) > 2000 for each in spans)


def test_simultaneous_files_are_split_at_the_same_instants():
    bars = [read_bars(DATA / f"{symbol}.csv.gz") for symbol in SIMULTANEOUS]
    group = np.concatenate([each.minute for each in bars])
    parts = [parts_of(each.minute, group) for each in bars]
    ends = {
        name: [each.minute[part == name] for each, part in zip(bars, parts, strict=True)] for name in ("train", "test")
    }
    assert max(each.max() for each in ends["train"]) + EMBARGO_MINUTES <= min(each.min() for each in ends["test"])

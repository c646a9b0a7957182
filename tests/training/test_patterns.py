"""The patterns' rules: drawn patterns are found, scale does not matter, and nothing looks ahead."""

import numpy as np
import pytest

from engine.inference.geometry import AGE_MIN, LAST, scale, smoothed, turns
from engine.training import patterns
from engine.training.patterns import NAMES, label, shapes
from tests.inference.market import walk

MINUTES = 64
NOISE = 0.015  # of the range, standard deviation
IDEALS = {
    "head_and_shoulders": ((0, 0.0), (12, 0.7), (21, 0.4), (32, 1.0), (43, 0.4), (52, 0.7), (63, 0.42)),
    "double_top": ((0, 0.0), (18, 1.0), (31, 0.45), (45, 1.0), (63, 0.6)),
    "double_bottom": ((0, 1.0), (18, 0.0), (31, 0.55), (45, 0.0), (63, 0.4)),
    "triangle": ((0, 0.2), (10, 1.0), (21, 0.2), (32, 0.82), (43, 0.36), (53, 0.65), (63, 0.5)),
    "flag": ((0, 0.3), (34, 0.1), (44, 1.0), (63, 0.7)),
    "pennant": ((0, 0.3), (34, 0.1), (43, 1.0), (46, 0.72), (49, 0.92), (53, 0.78), (57, 0.86), (60, 0.81), (63, 0.84)),
    "wedge": ((0, 0.4), (8, 0.0), (20, 0.6), (32, 0.33), (43, 0.84), (54, 0.62), (63, 0.88)),
}
WAYS = {
    "head_and_shoulders": -1, "double_top": -1, "double_bottom": 1, "triangle": 1, "flag": 1, "pennant": 1, "wedge": -1,
}  # fmt: skip
HEIGHTS = {
    "head_and_shoulders": 0.6, "double_top": 0.55, "double_bottom": 0.55, "triangle": 0.88, "flag": 0.85,
    "pennant": 0.9, "wedge": 0.44,
}  # fmt: skip

SPANS = {
    "head_and_shoulders": 40, "double_top": 27, "double_bottom": 27, "triangle": 43, "flag": 29, "pennant": 29,
    "wedge": 46,
}  # fmt: skip


def drawn(name: str, seed: int = -1) -> np.ndarray:
    """Straight lines through (minute, level), with a seed also noise: mids around 1.3."""
    at, level = zip(*IDEALS[name], strict=True)
    path = np.interp(np.arange(MINUTES), at, level)
    if seed >= 0:
        path = path + np.random.default_rng(seed).normal(0.0, NOISE, MINUTES)
    return 1.3 * (1.0 + 1e-3 * path)


@pytest.mark.parametrize("name", NAMES)
def test_rules_see_the_pattern_that_was_drawn(name):
    assert label(drawn(name)[None])[0].tolist() == [each == name for each in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_rules_see_the_pattern_through_noise(name):
    found = label(np.array([drawn(name, seed) for seed in range(300)])).mean(axis=0)
    assert found[NAMES.index(name)] > 0.7, found


@pytest.mark.parametrize("name", NAMES)
def test_target_and_span_are_the_drawn_shapes_own(name):
    path = drawn(name)
    way, height, span = shapes(path[None])[0, NAMES.index(name)]
    assert way == WAYS[name]
    assert height / (path.max() - path.min()) == pytest.approx(HEIGHTS[name], abs=0.2)
    assert span == pytest.approx(SPANS[name], abs=5)


def test_upside_down_markets_point_the_other_way():
    for name in ("triangle", "flag", "pennant", "wedge"):
        path = drawn(name)
        k = NAMES.index(name)
        assert label((2.6 - path)[None])[0, k] == 1
        assert shapes((2.6 - path)[None])[0, k, 0] == -WAYS[name]


def test_rules_see_nothing_in_a_straight_line_or_a_flat_one():
    assert not label(np.linspace(1.3, 1.4, MINUTES)[None]).any()
    assert not label(np.full((1, MINUTES), 1.3)).any()


def test_rules_know_neither_price_nor_volatility():
    paths = np.array([walk(np.random.default_rng(seed), MINUTES) for seed in range(2000)])
    paths = np.round(paths * 2**24)  # whole numbers, so that what follows rounds nothing
    found = label(paths)
    assert found.any(axis=0).sum() >= 5
    np.testing.assert_array_equal(found, label(paths * 1024.0))
    np.testing.assert_array_equal(found, label(paths - 2**20))
    np.testing.assert_array_equal(found, label(64.0 * paths + 2**22))


def test_later_minutes_change_no_earlier_label():
    path = walk(np.random.default_rng(61), 4000)
    windows = np.lib.stride_tricks.sliding_window_view(path, MINUTES)
    before = label(np.ascontiguousarray(windows[:2000]))
    changed = path.copy()
    changed[2000 + MINUTES - 1 :] *= 1.01
    again = np.lib.stride_tricks.sliding_window_view(changed, MINUTES)
    np.testing.assert_array_equal(label(np.ascontiguousarray(again[:2000])), before)
    assert before.any()


def test_last_turning_point_is_at_least_three_steps_old():
    level, smooth, places = np.zeros(MINUTES), np.zeros(MINUTES), np.zeros(MINUTES, "i8")
    youngest = []
    for seed in range(2000):
        scale(walk(np.random.default_rng(seed), MINUTES), level)
        smoothed(level, smooth)
        count = turns(smooth, places)
        youngest.append(LAST - places[count - 1] if count else MINUTES)
        assert (np.diff(places[:count]) > 0).all()
        rises = np.sign(np.diff(smooth[places[:count]]))
        assert (rises[1:] == -rises[:-1]).all()
    assert min(youngest) == AGE_MIN


def test_rules_hold_on_few_random_walks():
    paths = np.array([walk(np.random.default_rng(seed), MINUTES) for seed in range(20_000)])
    found = label(paths)
    assert 0.02 < found.any(axis=1).mean() < 0.04
    assert (found.mean(axis=0) > 0.001).all()
    assert (found.mean(axis=0) < 0.01).all()
    assert patterns.NAMES == NAMES

"""Interval multipliers follow what came true, exactly as the rule says."""

import math

import numpy as np
import pytest

from tests.inference.conftest import answer
from tests.inference.market import FIRST_MINUTE, Market, walk, windows

MINUTES, RATES = (1, 5, 15, 60), (0.02, 0.02, 0.02, 0.01)


def test_multipliers_move_once_a_minute_and_horizon_by_the_rule(predictor):
    """Replayed from the answers alone: the last prediction of minute m against the close of minute m + h."""
    rng = np.random.default_rng(21)
    market, window = Market(), windows(1)
    minute, closes = 0, {}
    for _ in range(400):
        minute += int(rng.choice([1, 1, 1, 1, 1, 2, 8]))
        for second in sorted(rng.choice(59, size=int(rng.integers(1, 3)), replace=False)):
            mid = 1.3 * math.exp(3e-4 * rng.normal())
            market.vector(0, (FIRST_MINUTE + minute) * 60_000_000_000 + int(second) * 1_000_000_000, mid)
            closes[minute] = mid
    count = len(market.given)
    slots = market.slots()
    answers = answer(predictor, slots, count, window)
    minutes = slots["minute"][:count] - FIRST_MINUTE
    last = {int(m): n for n, m in enumerate(minutes)}
    offset = np.zeros(4)
    row = int(answers["contribution_version"][count - 1][0])
    manifest_q = predictor._book.q[row]
    priced = (answers["contribution_count"][:count] > 0) & (answers["contribution_version"][:count, 0] == row)
    samples = np.zeros(4, int)
    previous = None
    for m in sorted(last):
        if previous is not None:
            for h in range(4):
                n = last.get(previous - MINUTES[h])
                if n is None or not priced[n]:
                    continue
                missed = not answers["lower"][n][h] <= closes[previous] <= answers["upper"][n][h]
                offset[h] = min(max(offset[h] + RATES[h] * (missed - 0.1), -0.7), 0.7)
                samples[h] += 1
        previous = m
    assert (samples > 100).all()
    own, final = window[0][int(slots["step"][count - 1]) & 255], answers[count - 1]
    np.testing.assert_allclose(own["log_q"], offset, atol=1e-12)
    expected = manifest_q * np.exp(offset) * own["sigma"] * np.sqrt(MINUTES) * 1e-4 * final["base_price"]
    np.testing.assert_allclose((final["upper"] - final["lower"]) / 2, expected, rtol=1e-9)
    np.testing.assert_allclose((final["upper"] + final["lower"]) / 2, final["price"], rtol=1e-12)


@pytest.mark.parametrize(("jumps", "low", "high"), [(0.0, -0.7, -0.6), (0.15, 0.3, 0.7)])
def test_multipliers_move_both_ways_and_stay_within_their_reach(predictor, jumps, low, high):
    """A still market only hits; one that stands still and sometimes jumps misses more than it should."""
    rng = np.random.default_rng(24)
    market, window = Market(), windows(1)
    mid = 1.3
    for n in range(1000):
        market.minute(0, n, mid)
        mid *= math.exp(5e-4 * rng.choice([-1, 1])) if rng.random() < jumps else 1.0
    answer(predictor, market.slots(), 1000, window)
    log_q = window[0][int(market.given[-1]["step"]) & 255]["log_q"]
    assert (np.abs(log_q) <= 0.7).all()
    assert low <= log_q[0] <= high


def test_pooled_coverage_on_random_walks_is_near_ninety_percent(predictor):
    rng = np.random.default_rng(22)
    inside, total = np.zeros(3), np.zeros(3)
    for _ in range(4):
        mids = walk(rng, 1200)
        market = Market()
        for n, mid in enumerate(mids):
            market.minute(0, n, mid)
        answers = answer(predictor, market.slots(), 1200, windows(1))
        for h in range(3):
            then = np.arange(100, 1200 - MINUTES[h])
            close = mids[then + MINUTES[h]]
            inside[h] += ((answers["lower"][then, h] <= close) & (close <= answers["upper"][then, h])).sum()
            total[h] += len(then)
    np.testing.assert_allclose(inside / total, 0.9, atol=0.03)


def test_expired_vector_voids_its_minute_and_nothing_else(predictor):
    """Which of a minute's vectors expired may differ after a death; what its window holds may not."""
    mids = walk(np.random.default_rng(23), 120)
    market = Market()
    for n, mid in enumerate(mids):
        market.vector(0, (FIRST_MINUTE + n) * 60_000_000_000 + 1, mid)
        market.minute(0, n, mid * 1.00001)
    slots, window = market.slots(), windows(1)
    verdicts = np.ones(240, "u1")
    verdicts[201] = 2
    answer(predictor, slots, 240, window, verdicts=verdicts)
    entry = window[0][int(slots["step"][201]) & 255]
    assert np.isnan(entry["predicted"]).all()
    assert np.isnan(entry["half"]).all()
    assert entry["mid"] == slots["mid"][201]
    other = window[0][int(slots["step"][199]) & 255]
    assert np.isfinite(other["predicted"]).all()

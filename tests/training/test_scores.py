"""Losses are proper, identities of the literature hold, and intervals are judged with the right allowance."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from engine.training import scores
from tests.training.conftest import untimed

chances = st.floats(0.01, 0.99)


@untimed
@given(chances, chances)
def test_saying_what_one_believes_is_best(truth, said):
    """The expected loss of any chance, under the true one, is never below that of the true one."""
    for loss in (scores.brier, scores.log_loss):
        happened = np.array([True, False])
        weights = np.array([truth, 1.0 - truth])

        def expected(chance, loss=loss, happened=happened, weights=weights):
            return float((weights * loss(np.full(2, chance), happened)).sum())

        assert expected(truth) <= expected(said) + 1e-12


@untimed
@given(st.lists(chances, min_size=3, max_size=3), st.lists(chances, min_size=3, max_size=3))
def test_saying_what_one_believes_is_best_of_three_classes_too(truth, said):
    true, other = np.array(truth) / sum(truth), np.array(said) / sum(said)
    for loss in (scores.brier, scores.log_loss):
        own = (true * loss(np.tile(true, (3, 1)), np.arange(3))).sum()
        others = (true * loss(np.tile(other, (3, 1)), np.arange(3))).sum()
        assert own <= others + 1e-12


@untimed
@given(st.floats(-3, 3), st.sampled_from([0.05, 0.25, 0.5, 0.9]))
def test_a_quantile_loses_least_at_its_own_level(said, level):
    outcomes = norm.ppf((np.arange(2000) + 0.5) / 2000)
    best = scores.pinball(np.full(2000, norm.ppf(level)), outcomes, level).mean()
    assert best <= scores.pinball(np.full(2000, said), outcomes, level).mean() + 1e-6


@untimed
@given(st.floats(-5, 5), st.floats(0.0, 5), st.floats(-20, 20))
def test_interval_score_is_the_pinball_losses_of_its_ends(lower, width, outcome):
    """Gneiting and Raftery 2007, equation 43 against 40: 2 / alpha times both pinball losses."""
    one, low, high = np.array([outcome]), np.array([lower]), np.array([lower + width])
    ends = scores.pinball(low, one, 0.05) + scores.pinball(high, one, 0.95)
    assert scores.winkler(low, high, one)[0] == pytest.approx(20.0 * ends[0], abs=1e-9)


@untimed
@given(st.floats(-4, 4))
def test_quantile_crps_reaches_the_closed_form_of_the_normal(outcome):
    """Gneiting and Raftery 2007, equation 21."""
    levels = (np.arange(400) + 0.5) / 400
    exact = outcome * (2 * norm.cdf(outcome) - 1) + 2 * norm.pdf(outcome) - 1 / math.sqrt(math.pi)
    found = scores.crps(norm.ppf(levels)[None], np.array([outcome]), list(levels))[0]
    assert found == pytest.approx(exact, abs=5e-3)


def test_absolute_error_is_twice_the_median_loss(rng):
    median, outcome = rng.normal(size=50), rng.normal(size=50)
    np.testing.assert_allclose(scores.absolute(median, outcome), 2 * scores.pinball(median, outcome, 0.5))


def test_a_certain_forecast_that_fails_costs_much_and_not_everything():
    lost = scores.log_loss(np.array([0.0, 1.0]), np.array([True, False]))
    assert lost.tolist() == [-math.log(scores.SURE)] * 2


def test_baselines_know_what_training_knew_and_nothing_of_the_test_rows(rng):
    move = rng.normal(size=20_000)
    rise = rng.random(20_000) < np.where(move > 0, 0.4, 0.6)  # moves reverse
    simple = scores.baselines(move, move, rise, np.array([1.0, -1.0, 0.0]), np.array([1.0, -1.0, 0.0]))
    assert simple.random_walk.tolist() == [0.5, 0.5, 0.5]
    np.testing.assert_allclose(simple.climatology, 0.5, atol=0.01)
    np.testing.assert_allclose(simple.last_direction, [0.4, 0.6, 0.5], atol=0.01)
    np.testing.assert_allclose(simple.mean_reversion, [0.4, 0.6, 0.5], atol=0.01)


def test_sign_without_a_past_says_one_half():
    nothing = np.array([])
    assert scores.sign_chances(nothing, nothing, np.array([1, -1])).tolist() == [0.5, 0.5]


def test_allowance_grows_with_the_horizon_and_holds_for_overlapping_outcomes(rng):
    """Right intervals of 60 minutes: 300 minutes cover anything, and the allowance says so."""
    kept = dict.fromkeys((1, 60), 0)
    for _ in range(200):
        walk = np.cumsum(rng.standard_normal(6060))
        inside = np.abs(walk[60:] - walk[:-60]) <= norm.ppf(0.95) * math.sqrt(60)
        for horizon in kept:
            kept[horizon] += scores.coverage(inside, horizon).within(0.9, 0.9)
    assert kept[60] >= 185  # two standard errors: about 19 of 20
    assert kept[1] < 80  # as if rows were independent


def test_coverage_by_name_splits_rows_and_nothing_else():
    inside, name = np.array([True, True, False, True]), np.array(["A", "A", "B", "B"])
    found = scores.coverage_by(inside, name, 1)
    assert {each: (one.share, one.rows) for each, one in found.items()} == {"A": (1.0, 2), "B": (0.5, 2)}


def test_wasteful_intervals_are_wider_than_plain_ones_and_knowing_ones_narrower(rng):
    """Wasteful: widths at random. Knowing: widths follow a volatility that the plain scale does not see."""
    n, zero = 40_000, np.zeros(40_000)
    hidden = np.exp(rng.normal(size=n))
    outcome = hidden * rng.normal(size=n)
    knowing = scores.widths(-1.645 * hidden, 1.645 * hidden, outcome, zero, np.ones(n))
    assert knowing.ratio < 0.7
    assert knowing.share == pytest.approx(0.9, abs=0.005)
    noise = np.exp(0.8 * rng.normal(size=n))
    wasteful = scores.widths(-2.2 * noise, 2.2 * noise, rng.normal(size=n), zero, np.ones(n))
    assert wasteful.ratio > 1.1
    assert math.isclose(wasteful.plain_median, 2 * wasteful.multiplier)

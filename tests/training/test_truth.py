"""The truth told of a simulated market is true: against closed forms, drawn futures, and what came."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from engine.training.bootstrap import difference
from engine.training.data import futures as quoted_futures
from engine.training.data import labels
from engine.training.reliability import calibration
from engine.training.scores import brier, climatology, coverage
from engine.training.simulate import COARSE, FINE, Market, draw, random_walk
from engine.training.truth import futures, touches, truth

LAWS = {"fine": FINE, "coarse": COARSE, "coarse with momentum": COARSE._replace(momentum=0.2)}
MINUTES = 12_000


@pytest.fixture(scope="module", params=LAWS)
def market(request: pytest.FixtureRequest) -> Market:
    return draw(LAWS[request.param], MINUTES, 20260302)


def half_ticks(market: Market, prices: np.ndarray) -> np.ndarray:
    return np.rint(2 * prices / market.law.tick)


@pytest.mark.parametrize("horizon", [1, 5, 15, 60])
def test_quantiles_of_a_random_walk_are_normal_ones(horizon):
    walk = draw(random_walk(2.0)._replace(drift=0.1), 300, 5)
    told = truth(walk, horizon, (0.05, 0.5, 0.95))
    for level, found in zip((0.05, 0.5, 0.95), told.quantiles.T, strict=True):
        moved = 1e4 * (np.log(found) - walk.log_price) - 0.1 * horizon
        np.testing.assert_allclose(moved / (2.0 * math.sqrt(horizon)), norm.ppf(level), atol=0.025)
    np.testing.assert_allclose(told.rise, norm.cdf(0.05 * math.sqrt(horizon)), atol=0.01)
    assert told.moves.min() > 0.999


def test_one_minute_ahead_is_the_exact_mixture_of_steps_and_jumps(market):
    """Every spread and side of the flicker, a normal step, with a jump or without: summed by hand."""
    law, told = market.law, truth(market, 1)
    present, sigma = half_ticks(market, market.mid), np.sqrt(market.variance)
    fall = np.zeros(len(present))
    for spread, chance in zip(law.spreads, law.spread_chances, strict=True):
        for side in (-0.5, 0.5):
            edge = law.tick * ((present - 1 - spread) // 2 + 0.5 + spread / 2 - side * law.bounce * spread)
            move = 1e4 * (np.log(edge) - market.log_price) - law.momentum * market.step
            jumped = norm.cdf(move / np.hypot(sigma, law.jump))
            fall += chance / 2 * ((1 - law.jump_rate) * norm.cdf(move / sigma) + law.jump_rate * jumped)
    np.testing.assert_allclose((1 - told.rise) * told.moves, fall, atol=6e-3)


@pytest.mark.parametrize("horizon", [5, 60])
def test_drawn_futures_agree_with_what_is_told(market, horizon):
    rows, paths = np.array([100, 2000, 7777]), 8000
    told = truth(market, horizon)
    then = half_ticks(market, futures(market, rows, horizon, paths, 9)[:, :, -1])
    for n, row in enumerate(rows):
        present = half_ticks(market, market.mid[row])
        error = 0.5 / math.sqrt(paths)
        assert (then[n] != present).mean() == pytest.approx(told.moves[row], abs=4 * error)
        assert (then[n] > present).mean() == pytest.approx(told.moves[row] * told.rise[row], abs=4 * error)
        for level, quantile in zip((0.05, 0.5, 0.95), half_ticks(market, told.quantiles[row]), strict=True):
            assert (then[n] <= quantile).mean() >= level - 4 * error
            assert (then[n] < quantile).mean() <= level + 4 * error


@pytest.mark.parametrize("horizon", [1, 15])
def test_what_came_is_as_certain_as_told(market, horizon):
    """Quantiles within two standard errors at n / h, chances of a rise inside the null band."""
    told = truth(market, horizon)
    present, then = half_ticks(market, market.mid)[:-horizon], half_ticks(market, market.mid)[horizon:]
    low, _, high = half_ticks(market, told.quantiles[:-horizon]).T
    assert coverage(then >= low, horizon, nominal=0.95).share >= 0.95 - coverage(then >= low, horizon).allowance
    assert coverage(then <= high, horizon, nominal=0.95).share >= 0.95 - coverage(then <= high, horizon).allowance
    moved = then != present
    assert moved.mean() == pytest.approx(told.moves[:-horizon].mean(), abs=0.015)
    found = calibration(told.rise[:-horizon][moved], (then > present)[moved], horizon, draws=200)
    assert found.inside, found


def test_known_skill_can_be_had_and_none_where_there_is_none():
    for momentum, exists in ((0.2, True), (0.0, False)):
        market = draw(random_walk(1.5)._replace(momentum=momentum), MINUTES, 20260303)
        told, rise = truth(market, 1).rise[:-1], np.diff(market.mid) > 0
        assert difference(brier(np.full(len(rise), 0.5), rise), brier(told, rise), 1).above() == exists
        assert ((told > 0.5) == rise).mean() == pytest.approx(0.5 + math.asin(momentum) / math.pi, abs=0.015)


def test_nobody_knows_of_a_shock_before_it_comes():
    market = draw(random_walk(1.5)._replace(shock=3.0, shock_minute=100), 200, 6)
    told = truth(market, 15)
    unknown = np.isnan(told.rise)
    assert np.flatnonzero(unknown).tolist() == list(range(85, 99))
    assert np.isnan(told.quantiles).any(axis=1).tolist() == unknown.tolist()
    width = np.log(told.quantiles[:, 2] / told.quantiles[:, 0])
    assert width[150] / width[50] == pytest.approx(3.0, rel=0.01)


def test_touches_are_as_likely_as_labels_of_the_loader_say():
    """Mean chances over many rows against the labels that the loader gives the same rows; the sides are mirrored."""
    market = draw(COARSE, MINUTES, 20260304)
    rows = np.flatnonzero(market.quoted)[:-100]
    sigma = np.full(len(rows), COARSE.volatility)
    came = labels(market.mid[rows], sigma, quoted_futures(market.bars())[0][:-100])
    shares = climatology(came[came >= 0], 1)[0]
    told = touches(market, rows[::60], sigma[::60], 400, 7)
    np.testing.assert_allclose(told.sum(axis=1), 1.0)
    np.testing.assert_allclose(told.mean(axis=0), shares, atol=0.03)
    calm, wild = np.argsort(market.variance[rows[::60]])[[0, -1]]
    assert told[calm, 1] > told[wild, 1] + 0.2

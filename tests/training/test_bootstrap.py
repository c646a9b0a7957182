"""Standard errors are right where scores overlap in time, and quiet data raise no alarm."""

import math

import numpy as np
import pytest

from engine.training import bootstrap
from engine.training.bootstrap import When, difference, mean_score, skill
from tests.training.conftest import exactly


def overlapping(rng: np.random.Generator, rows: int, horizon: int) -> np.ndarray:
    """Scores of labels that share h - 1 of their h minutes."""
    walk = np.concatenate([[0.0], np.cumsum(rng.standard_normal(rows + horizon))])
    return (walk[horizon:] - walk[:-horizon])[:rows] / math.sqrt(horizon)


@pytest.mark.parametrize("kind", ["moving", "stationary"])
@pytest.mark.parametrize("horizon", [1, 15, 60])
def test_standard_error_is_that_of_many_repetitions(rng, kind, horizon):
    """Against the truth: the variance of the mean of a moving sum is horizon / rows in the long run."""
    rows = 12_000
    found = [
        mean_score(overlapping(rng, rows, horizon), horizon, kind=kind, draws=300).standard_error for _ in range(12)
    ]
    assert np.mean(found) == pytest.approx(math.sqrt(horizon / rows), rel=0.2)


def test_rows_taken_for_independent_would_look_eight_times_as_sure(rng):
    scores = overlapping(rng, 12_000, 60)
    naive = scores.std() / math.sqrt(len(scores))
    assert mean_score(scores, 60).standard_error > 4 * naive


def test_equally_good_forecasts_raise_no_alarm(rng):
    """Quiet data: two forecasters of one skill differ by two standard errors in few of 200 comparisons."""
    alarms = 0
    for _ in range(200):
        scores, reference = overlapping(rng, 4000, 15) ** 2, overlapping(rng, 4000, 15) ** 2
        alarms += difference(scores, reference, 15, draws=200).above()
    assert alarms <= 14  # 2.3 of 100 where everything is normal and exact


def test_a_worse_forecast_is_found(rng):
    scores = overlapping(rng, 4000, 15) ** 2
    found = difference(scores + 0.05 + 0.1 * rng.random(4000), scores, 15)
    assert found.above()
    assert found.low > 0.0
    assert found.low < found.mean < found.high


def test_symbols_that_move_as_one_count_as_one(rng):
    """The same scores under three names say no more than under one; from other times they do."""
    scores, minute = overlapping(rng, 6000, 15), np.arange(6000)
    one = mean_score(scores, 15, when=When(minute, np.zeros(6000)))
    copies = mean_score(np.tile(scores, 3), 15, when=When(np.tile(minute, 3), np.zeros(18_000)))
    assert copies.standard_error == pytest.approx(one.standard_error, rel=1e-9)
    other = np.concatenate([overlapping(rng, 6000, 15) for _ in range(3)])
    apart = mean_score(other, 15, when=When(np.tile(minute, 3), np.repeat(["A", "B", "C"], 6000)))
    assert apart.standard_error == pytest.approx(one.standard_error / math.sqrt(3), rel=0.25)


def test_order_of_rows_does_not_matter_where_their_minutes_are_given(rng):
    scores, minute = overlapping(rng, 2000, 5), np.arange(2000)
    mixed = rng.permutation(2000)
    expected = mean_score(scores, 5, when=When(minute, np.zeros(2000)))
    found = mean_score(scores[mixed], 5, when=When(minute[mixed], np.zeros(2000)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_seed_gives_the_same_bands_again(rng):
    scores = rng.normal(size=500)
    assert mean_score(scores, 5, seed=7) == mean_score(scores, 5, seed=7)
    assert mean_score(scores, 5, seed=7) != mean_score(scores, 5, seed=8)


def test_skill_is_one_less_the_ratio_of_losses_with_a_band_around_it(rng):
    reference = rng.exponential(size=5000)
    found = skill(0.9 * reference, reference, 1)
    assert found.mean == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(0.0, abs=1e-9)
    rough = skill(rng.exponential(size=5000), reference, 1)
    assert rough.low < 0.0 < rough.high


def test_every_draw_takes_as_many_instants_as_there_are(rng):
    given = bootstrap.instants(np.ones((997, 1)))
    for kind in ("moving", "stationary"):
        assert (bootstrap.resample(given, 30, draws=200, kind=kind) == 997).all()


def test_no_rows_are_refused():
    with pytest.raises(
        ValueError, match=exactly("scores: expected at least one row, found none; choose a part that has labels")
    ):
        mean_score(np.array([]), 1)

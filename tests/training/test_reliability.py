"""Perfect forecasters stay inside the null band as often as it says, others leave it."""

import numpy as np
import pytest

from engine.training.bootstrap import When
from engine.training.reliability import (
    bins_of,
    calibration,
    calibration_error,
    confidence_calibration,
    limits,
    perfect_outcomes,
)
from tests.training.conftest import exactly


def test_bins_hold_equally_many_rows_and_never_tear_equal_chances_apart(rng):
    place = bins_of(rng.random(1000), 10)
    assert np.bincount(place).tolist() == [100] * 10
    coarse = rng.choice([0.3, 0.5, 0.7], size=1000)
    place = bins_of(coarse, 10)
    for each in (0.3, 0.5, 0.7):
        assert len(np.unique(place[coarse == each])) == 1


@pytest.mark.parametrize("horizon", [1, 30])
def test_perfect_forecasters_stay_inside_the_band(rng, horizon):
    """Quiet data: about one in twenty leaves a 95 % band, with overlapping outcomes too."""
    outside, repeats = 0, 150
    for _ in range(repeats):
        said = rng.uniform(0.3, 0.7, 1500)
        happened = next(perfect_outcomes(said, horizon, draws=1, seed=int(rng.integers(1 << 30))))
        outside += not calibration(said, happened, horizon, draws=100).inside
    assert outside <= 17


def test_overlapping_outcomes_would_alarm_if_taken_for_independent(rng):
    """The reason for the band's overlap: without it most perfect forecasters of 60 minutes would be refused."""
    alarms = 0
    for _ in range(40):
        said = rng.uniform(0.4, 0.6, 3000)
        happened = next(perfect_outcomes(said, 60, draws=1, seed=int(rng.integers(1 << 30))))
        alarms += not calibration(said, happened, 1, draws=60).inside
    assert alarms > 25


def test_an_overconfident_forecaster_leaves_the_band(rng):
    true = rng.uniform(0.4, 0.6, 4000)
    happened = rng.random(4000) < true
    found = calibration(np.clip(0.5 + 3 * (true - 0.5), 0, 1), happened, 1)
    assert not found.inside
    assert found.p_value == pytest.approx(1 / 401)
    assert found.error > 4 * found.expected


def test_drawn_outcomes_happen_as_often_as_said_and_overlap_as_moves_do(rng):
    """Signs of sums that share half of their steps agree in 2/3 of cases (arcsine law: 1/2 + asin(1/2) / pi)."""
    said = np.array([0.2, 0.9])
    rows = np.repeat(said, 5000)
    drawn = np.mean(list(perfect_outcomes(rows, 10, draws=40)), axis=0)
    assert drawn[:5000].mean() == pytest.approx(0.2, abs=0.01)
    assert drawn[5000:].mean() == pytest.approx(0.9, abs=0.01)
    even = np.full(50_000, 0.5)
    one = next(perfect_outcomes(even, 10, draws=1))
    assert (one[5:] == one[:-5]).mean() == pytest.approx(2 / 3, abs=0.01)
    assert (one[10:] == one[:-10]).mean() == pytest.approx(1 / 2, abs=0.01)


def test_holes_and_symbols_part_what_does_not_share_minutes(rng):
    """Rows 60 minutes apart share nothing; two symbols do as far as they are correlated."""
    even = np.full(40_000, 0.5)
    spaced = When(np.arange(40_000) * 60, np.zeros(40_000))
    one = next(perfect_outcomes(even, 60, spaced, draws=1))
    assert (one[1:] == one[:-1]).mean() == pytest.approx(0.5, abs=0.015)
    pair = When(np.tile(np.arange(20_000), 2), np.zeros(40_000), np.repeat(["EURUSD", "NZDUSD"], 20_000))
    for correlation, agreement in ((0.0, 0.5), (0.5, 2 / 3), (1.0, 1.0)):
        both = next(perfect_outcomes(even, 1, pair, correlation=correlation, draws=1))
        assert (both[:20_000] == both[20_000:]).mean() == pytest.approx(agreement, abs=0.015)


def test_error_of_a_perfect_forecaster_falls_with_the_number_of_rows_and_is_never_nil(rng):
    """Known values for ten bins and chances from 0.4 to 0.6: 0.088 at 200 rows, 0.039 at 1,000, 0.018 at 5,000."""
    for rows, expected in ((200, 0.088), (1000, 0.039), (5000, 0.018)):
        said = rng.uniform(0.4, 0.6, rows)
        found = calibration(said, rng.random(rows) < said, 1)
        assert found.expected == pytest.approx(expected, rel=0.08)
        assert found.expected < found.band


def test_diagram_adds_up_to_the_error_and_its_bars_hold_perfect_shares(rng):
    said = rng.random(5000)
    happened = rng.random(5000) < said
    found = calibration(said, happened, 1)
    chance, share, rows, low, high = found.diagram
    assert (rows * np.abs(share - chance)).sum() / rows.sum() == pytest.approx(found.error)
    assert found.error == calibration_error(said, happened)
    assert ((low <= share) & (share <= high)).sum() >= 8
    assert (np.diff(chance) > 0).all()


def test_a_seed_gives_the_same_band_again(rng):
    said = rng.random(300)
    happened = rng.random(300) < said
    again = [calibration(said, happened, 5, draws=50, seed=seed).band for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_numbers_that_are_no_chances_are_refused():
    with pytest.raises(
        ValueError,
        match=exactly(
            "calibration: expected as many chances from 0 to 1 as outcomes, and at least one; found 3 and 3, "
            "2 of them no chances; leave out what was not forecast"
        ),
    ):
        calibration(np.array([0.5, np.nan, 1.2]), np.array([True, False, True]), 1)


def test_ninety_five_of_a_hundred_perfect_sets_stay_within_their_common_band(rng):
    alone, together = limits(np.abs(rng.normal(size=(20_000, 7))))
    fresh = np.abs(rng.normal(size=(20_000, 7)))
    assert (fresh <= together).all(axis=1).mean() == pytest.approx(0.95, abs=0.006)
    assert (fresh <= alone).mean(axis=0) == pytest.approx(np.full(7, 0.95), abs=0.006)
    assert (fresh <= alone).all(axis=1).mean() == pytest.approx(0.95**7, abs=0.01)


def test_a_drift_makes_chances_of_a_rise_false_and_leaves_the_confidence_true(rng):
    chance = rng.uniform(0.4, 0.6, 20_000)
    risen = rng.random(20_000) < chance + 0.03
    assert not calibration(chance, risen, 1).inside
    assert confidence_calibration(chance, risen, 1).inside


def test_a_confidence_that_is_too_high_lies_outside_of_its_band(rng):
    chance = rng.uniform(0.4, 0.6, 20_000)
    risen = rng.random(20_000) < 0.5
    found = confidence_calibration(chance, risen, 1)
    assert not found.inside
    assert found.diagram.chance.min() >= 0.5
    assert found.error == pytest.approx(0.05, abs=0.01)


def test_perfect_confidences_lie_within_their_band_95_times_in_100(rng):
    """With labels that overlap and sides that change from row to row."""
    inside = 0
    for seed in rng.integers(1 << 30, size=100):
        chance = np.random.default_rng(seed).uniform(0.35, 0.65, 1500)
        (risen,) = perfect_outcomes(chance, 5, draws=1, seed=int(seed))
        inside += confidence_calibration(chance, risen, 5, draws=60, seed=int(seed) + 1).inside
    assert 88 <= inside <= 100

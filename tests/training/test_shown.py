"""Pattern models are taught by nothing real, find nothing in shuffled labels, and are honest on simulated markets."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.models.cnn import PatternModel
from engine.registry.manifest import read_manifest
from engine.training import bootstrap, lessons, reliability, shown
from engine.training.patterns import NAMES, label
from engine.training.simulate import FINE, draw
from engine.training.touch import Touch
from tests.inference.patterns import chances

ROOT = Path(__file__).parents[2]
MODELS = {"simple_pattern": "1.0", "cnn_patterns": "1.8"}
SEED = 20260117


@pytest.fixture(scope="module", params=MODELS)
def bundled(request):
    opened = PatternModel(read_manifest(ROOT / "models" / request.param / MODELS[request.param]))
    opened.open()
    return opened


@pytest.mark.parametrize("law", shown.LAWS)
def test_bundled_models_are_honest_on_simulated_markets(bundled, law):
    """A small version of the card's table: ticks, jumps, bounce, and a fifth of the minutes missing."""
    known = bundled.manifest.calibration
    touch = Touch(known["touch_slope"][0], np.array(known["touch_bias"]))
    found = shown.simulated(partial(chances, bundled), touch, law, 12_000, SEED)
    count, said, happened, error = found["touch"]
    share = np.array(found["calibration_error"]) / np.array(found["family_band"])
    print(f"seed {SEED}, {bundled.manifest.name}: errors {share.round(2)} of the band of all seven")
    print(f"{count:.0f} targets: said {said:.3f}, touched {happened:.3f} +- {error:.3f}")
    assert share.max() <= 1.0
    assert abs(said - happened) < 2 * error
    assert found["any_shown"][0] < 0.05


def test_bundled_models_say_what_they_were_measured_by(bundled):
    quality, card = bundled.manifest.quality, (bundled.manifest.folder / "card.md").read_text()
    losses, watched = quality["loss_by_epoch"], quality["watched_loss_by_epoch"]
    assert len(losses) == len(watched) >= 3
    assert losses == sorted(losses, reverse=True)
    pairs = zip(NAMES, quality["calibration_error"], quality["family_band"], strict=True)
    beyond = ", ".join(name for name, error, limit in pairs if error > limit) or "none"
    assert f"Outside of the band of all seven: {beyond}." in card
    learned, error = np.array(quality["shuffled_brier_difference"]), np.array(quality["shuffled_standard_error"])
    assert (learned > -2.0 * error).all()


def test_hours_keep_two_days_from_every_file_of_minutes():
    minute = np.array([50_000, 60_000, 70_000])
    examples = shown.market("fine", 600, SEED)
    begin, end = examples.minute.min(), examples.minute.max()
    at = np.array([begin - 2881, begin - 2880, begin, end, end + 2880, end + 2881])
    assert lessons.near(at, examples).tolist() == [False, True, True, True, True, False]
    assert not lessons.near(minute, examples).any()


def test_hours_come_in_whole_windows_of_ten_symbols():
    found = lessons.hours(ROOT / "data" / "fx_h1", shown.market("fine", 600, SEED))
    assert found.path.shape[1] == IMAGE_MINUTES
    assert len(np.unique(found.symbol)) == 10
    assert (found.path > 0.0).all()


def test_patterns_come_in_as_long_runs_as_the_band_is_drawn_with():
    counts, minutes, markets = [], 22_000, 40
    for seed in range(markets):
        market = draw(FINE, minutes, SEED + seed)
        last_quoted = np.maximum.accumulate(np.where(market.quoted, np.arange(minutes), 0))
        windows = np.lib.stride_tricks.sliding_window_view(market.mid[last_quoted], IMAGE_MINUTES)
        counts.append(label(np.ascontiguousarray(windows)).sum(axis=0))
    rows = minutes - IMAGE_MINUTES + 1
    rate = np.mean(counts, axis=0) / rows
    for k, run in enumerate(shown.RUNS):
        drawn = [each.sum() for each in reliability.perfect_outcomes(np.full(rows, rate[k]), run, draws=100)]
        ratio = np.std(drawn) / np.std([each[k] for each in counts])
        print(f"{NAMES[k]}: {ratio:.2f}")
        assert 0.6 < ratio < 1.6


def test_scores_know_a_perfect_forecaster_from_one_that_is_twice_too_sure(rng):
    chance = np.repeat(rng.uniform(0.002, 0.02, (2000, 1)), len(NAMES), axis=1)
    outcomes = [next(reliability.perfect_outcomes(chance[:, k], 1, draws=1, seed=SEED + k)) for k in range(len(NAMES))]
    when = bootstrap.When(np.arange(2000) * 100, np.zeros(2000, "i8"))
    honest = shown.calibrated(shown.Judged(chance, np.stack(outcomes, axis=1), when))
    boasting = shown.calibrated(shown.Judged(4.0 * chance, np.stack(outcomes, axis=1), when))
    assert not honest.outside.any()
    assert boasting.outside.all()
    assert (honest.band < honest.together).all()

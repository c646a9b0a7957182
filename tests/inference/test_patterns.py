"""What is said of chart patterns: rarely on random walks, honestly on unseen markets, from their own shape."""

import numpy as np
import pytest

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.ensemble import PATTERN_SHOWN
from engine.inference.geometry import touch_chance, walk_odds
from engine.inference.image import FINE_HEIGHT, PICTURES, draw_fine
from engine.inference.models.cnn import PatternModel
from engine.registry.manifest import read_manifest
from engine.training.data import SIMULTANEOUS, futures
from engine.training.data import load as load_examples
from engine.training.data import walk as through_kernels
from engine.training.patterns import NAMES, label, shapes
from engine.training.simulate import COARSE, FINE, draw
from tests.inference.conftest import STORE
from tests.inference.market import walk
from tests.inference.patterns import chances
from tests.training.test_patterns import WAYS, drawn

MODELS = {"simple_pattern": "1.0", "cnn_patterns": "1.8"}
STRETCH = 120  # minutes in which patterns stand or fall together


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    opened = PatternModel(read_manifest(STORE / request.param / MODELS[request.param]))
    opened.open()
    return opened


@pytest.fixture(scope="module")
def unseen():
    """Every fourth minute of the bundled data's last part."""
    examples = load_examples(STORE.parent / "data" / "fx_m1")
    rows = np.flatnonzero((examples.depth >= IMAGE_MINUTES) & (examples.part == "test"))[::4]
    group = np.where(np.isin(examples.symbol, SIMULTANEOUS), SIMULTANEOUS[0], examples.symbol)[rows]
    stretch = np.unique(group, return_inverse=True)[1] * 10_000_000 + examples.minute[rows] // STRETCH
    return examples.path[rows], np.unique(stretch, return_inverse=True)[1]


def standard_error(values: np.ndarray, stretch: np.ndarray) -> float:
    """Of the mean; values of one stretch stand or fall together."""
    return float(np.sqrt((np.bincount(stretch, values - values.mean()) ** 2).sum()) / len(values))


def test_under_five_percent_of_random_walks_show_any_pattern(model):
    paths = np.array([walk(np.random.default_rng(seed), IMAGE_MINUTES) for seed in range(6000)])
    shown = (chances(model, paths) > PATTERN_SHOWN).any(axis=1).mean()
    assert shown < 0.05
    (on_card,) = model.manifest.quality["any_shown_on_random_walks"]
    assert shown == pytest.approx(on_card, abs=4 * np.sqrt(on_card / len(paths)))
    assert f"{100 * on_card:.2f} % of the random walks" in (model.manifest.folder / "card.md").read_text()


def test_brier_score_on_unseen_minutes_is_not_above_the_rates(model, unseen):
    paths, stretch = unseen
    said, held = chances(model, paths), label(paths)
    for k, name in enumerate(NAMES):
        worse = (said[:, k] - held[:, k]) ** 2 - (held[:, k].mean() - held[:, k]) ** 2
        assert worse.mean() < 2 * standard_error(worse, stretch), name


@pytest.mark.parametrize("law", [FINE, COARSE], ids=["fine ticks", "coarse ticks"])
def test_chances_are_right_to_two_standard_errors_on_a_simulated_market(model, law):
    market = draw(law, 40_000, seed=71)
    mids = market.mid[np.maximum.accumulate(np.where(market.quoted, np.arange(40_000), 0))]
    starts = np.arange(0, 40_000 - IMAGE_MINUTES, 8)
    paths = np.lib.stride_tricks.sliding_window_view(mids, IMAGE_MINUTES)[starts]
    said, held = chances(model, paths), label(np.ascontiguousarray(paths))
    gap = (said - held).sum(axis=1)  # of all patterns together
    error = standard_error(gap, starts // STRETCH)
    print(f"{model.manifest.name}: said {said.sum(1).mean():.4f}, held {held.sum(1).mean():.4f} +- {error:.4f}")
    # The small model cannot tell a walk from a market, where flags and pennants come more often, and stands between.
    assert abs(gap.mean()) < (2 if model.manifest.id == "cnn_patterns" else 3) * error
    worse = ((said - held) ** 2 - (held.mean(axis=0) - held) ** 2).sum(axis=1)
    assert worse.mean() < 2 * standard_error(worse, starts // STRETCH)


@pytest.mark.parametrize("law", [FINE, COARSE], ids=["fine ticks", "coarse ticks"])
def test_targets_are_touched_as_often_as_said_on_a_simulated_market(law):
    """Confidence of the shown patterns, by the geometry and the constants that answers use."""
    opened = PatternModel(read_manifest(STORE / "cnn_patterns" / "1.8"))
    opened.open()
    known, bars = opened.manifest.calibration, draw(law, 25_000, seed=82).bars()
    seen, (future, _) = through_kernels(bars, np.full((len(bars.minute), 1), np.nan)), futures(bars)
    rows = np.flatnonzero(seen["depth"] >= IMAGE_MINUTES)[::2]
    path, mid, sigma = (seen[name][rows] for name in ("path", "mid", "sigma"))
    found, shown = shapes(path), chances(opened, path) > PATTERN_SHOWN
    gaps, minutes = [], []
    for n, k in np.argwhere(shown):
        way, height, span = found[n, k]
        ahead = (future[rows[n], : int(span)] - mid[n]) * way
        first = next((each for each in ahead if np.isnan(each) or abs(each) >= height), 0.0)
        if not np.isnan(first):
            said = touch_chance(known["touch_bias"][k], known["touch_slope"][0], height, span, mid[n], sigma[n])
            gaps.append(said - (first > 0.0))
            minutes.append(bars.minute[rows[n]] // STRETCH)
    assert len(gaps) > 100
    error = standard_error(np.array(gaps), np.unique(minutes, return_inverse=True)[1])
    print(f"{len(gaps)} shown, said less found {np.mean(gaps):.4f} +- {error:.4f}")
    assert abs(np.mean(gaps)) < 2 * error


def test_fine_picture_shows_every_close_and_the_height_of_the_smoothed_path():
    path = walk(np.random.default_rng(72), IMAGE_MINUTES)
    image = np.full(PICTURES["image_fine"].canvas, 9.0, "f4")
    draw_fine(path, image)
    assert image.min() == 0.0
    assert image.max() == 1.0
    assert (image[0].sum(axis=0) >= 0.999).all()
    level = (path - path.min()) / (path.max() - path.min())
    at = FINE_HEIGHT - 1 - np.floor(level * (FINE_HEIGHT - 1)).astype(int)
    assert (image[0, at, np.arange(IMAGE_MINUTES)] > 0.0).all()
    steps = np.arange(IMAGE_MINUTES)
    weight = np.exp(-0.5 * ((steps[:, None] - steps) / 2.0) ** 2) * (abs(steps[:, None] - steps) <= 8)
    np.testing.assert_allclose(image[1].sum(axis=0) / FINE_HEIGHT, weight @ level / weight.sum(axis=1), atol=1e-5)
    draw_fine(np.full(IMAGE_MINUTES, 1.3), image)
    assert np.isfinite(image).all()


@pytest.mark.parametrize("name", NAMES)
def test_targets_follow_the_shape_and_not_the_price_scale(name):
    path, k = drawn(name), NAMES.index(name)
    small, large = shapes(path[None])[0, k], shapes(1000.0 * path[None])[0, k]
    assert small[0] == large[0] == WAYS[name]
    assert large[1] == pytest.approx(1000.0 * small[1])
    assert small[2] == large[2]
    assert walk_odds(small[1], small[2], path[-1], 2.0) == pytest.approx(
        walk_odds(large[1], large[2], 1000.0 * path[-1], 2.0)
    )


@pytest.mark.parametrize(("height_bp", "minutes"), [(2.0, 10), (6.0, 20), (12.0, 40)])
def test_odds_of_a_target_are_those_of_random_walks(height_bp, minutes):
    rng = np.random.default_rng(73)
    print("seed 73")
    ahead = np.cumsum(rng.normal(0.0, 1.5, (40_000, minutes)), axis=1)
    hit, stop = ahead >= height_bp, ahead <= -height_bp
    first = np.where(hit.any(1), hit.argmax(1), minutes) < np.where(stop.any(1), stop.argmax(1), minutes)
    said = 1.0 / (1.0 + np.exp(-walk_odds(1e-4 * height_bp, float(minutes), 1.0, 1.5)))
    assert said == pytest.approx(first.mean(), abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_drawn_patterns_are_ten_times_as_likely_to_the_larger_model_as_they_come(name):
    opened = PatternModel(read_manifest(STORE / "cnn_patterns" / "1.8"))
    opened.open()
    k, paths = NAMES.index(name), np.array([drawn(name, seed) for seed in range(40)])
    seen = chances(opened, paths[label(paths)[:, k] > 0])[:, k].mean()
    assert seen > 10.0 * opened.manifest.quality["rate"][k], seen

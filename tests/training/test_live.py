"""What the bundled price models answer, judged by the engine's own answers on data that they never saw."""

import shutil

import numpy as np
import pytest

from engine.inference.predictor import Predictor
from engine.training import live, price_scores, simulate
from engine.training.live import Said
from engine.training.price_scores import Judged
from engine.training.scores import coverage
from tests.inference.conftest import STORE

DATA = STORE.parent / "data" / "fx_m1"
MODELS = ("basic_lstm", "advanced_lstm")


def alone(tmp_path_factory: pytest.TempPathFactory, model: str) -> Predictor:
    """A store with this model and no other: prices and intervals need no more."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copytree(STORE / model, folder / model)
    return live.open_predictor(folder)


@pytest.fixture(scope="module", params=MODELS)
def predictor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return alone(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def said(predictor: Predictor) -> tuple[Said, Said]:
    return live.answers_of_files(predictor, DATA, lambda line: None)


@pytest.fixture(scope="module")
def judged(predictor: Predictor, said: tuple[Said, Said]) -> list[Judged]:
    return price_scores.judge(*said, next(iter(predictor.models.values())).manifest.calibration["q"])


def test_every_price_lies_inside_its_interval_and_every_chance_is_one(said):
    late = said[0]
    assert len(late.minute) > 20_000
    assert np.isfinite(late.price).all()
    assert ((late.lower < late.price) & (late.price < late.upper)).all()
    assert ((late.rise >= 0.0) & (late.rise <= 1.0)).all()
    assert (np.abs(late.log_q) <= 0.7).all()


def test_intervals_cover_nine_in_ten_on_the_part_never_seen(judged):
    for each in judged:
        assert 0.88 <= each.moving.share <= 0.92, each.minutes
        for symbol, share in each.coverage_by["symbol"].items():
            allowed = share.allowance if each.minutes == 60 else 0.0
            assert 0.85 - allowed <= share.share <= 0.95 + allowed, (each.minutes, symbol)


def test_intervals_are_hardly_wider_than_plain_ones_of_the_same_coverage(judged):
    assert {each.minutes: each.width.ratio <= 1.1 for each in judged} == {1: True, 5: True, 15: True, 60: True}


def test_chances_of_a_rise_are_no_worse_than_climatology_on_the_part_never_seen(judged):
    for each in judged:
        assert not each.excess["climatology"].above(0.0, 2.0), each.minutes


def test_the_published_confidence_comes_true_as_often_as_it_says_on_the_part_never_seen(judged):
    """Within what 95 of 100 perfect forecasters show, with overlapping labels and symbols that move together."""
    for each in judged:
        assert each.confident.inside, (each.minutes, each.confident.error, each.confident.band)


def test_manifests_hold_what_the_engine_answers(predictor, judged):
    quality = next(iter(predictor.models.values())).manifest.quality
    found = price_scores.quality(judged)
    for name in ("rows", "coverage", "brier", "over_climatology", "confidence_error", "confidence_band", "right"):
        np.testing.assert_allclose(quality[name], found[name], atol=2e-6, err_msg=name)


def test_skill_is_no_larger_than_markets_leave(judged):
    """More than 55 in 100 signs right would be a leak until shown otherwise."""
    for each in judged:
        assert each.right.mean - 2.0 * each.right.standard_error < 0.55, each.minutes
        assert each.error_share > 0.98, each.minutes


@pytest.mark.parametrize(
    "law", [simulate.FINE, simulate.COARSE, simulate.random_walk(1.5)], ids=["fine", "coarse", "walk"]
)
def test_on_a_market_of_known_law_intervals_cover_what_they_say(predictor, law):
    """GARCH with jumps, ticks of 0.1 and 1 pip, flickering quotes, a fifth of the minutes missing."""
    said = live.answers_of(predictor, simulate.draw(law, 9000, seed=61).bars())
    said = live.chosen(said, np.arange(1500, len(said.minute)))
    for h, minutes in enumerate(live.HORIZON_MINUTES):
        known = np.isfinite(said.outcome[:, h])
        inside = (said.lower[:, h] <= said.outcome[:, h]) & (said.outcome[:, h] <= said.upper[:, h])
        share = coverage(inside[known], minutes)
        assert abs(share.share - 0.9) <= share.allowance + 0.005, (minutes, share)

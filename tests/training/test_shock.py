"""The experiment moves multipliers as a worker does, and shows that they find their coverage again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.contract.names import HORIZON_MINUTES
from engine.inference.features import MASK
from engine.inference.predictor import Predictor
from engine.training import shock
from engine.training.simulate import GARCH, draw, random_walk
from tests.inference.conftest import STORE, answer, make_predictor
from tests.inference.market import Market, windows

ROOT = Path(__file__).parents[2]


def through_a_worker(predictor: Predictor, mids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entry that each minute has once its vector is answered, and the multipliers of who answered."""
    market, window = Market(), windows(1)
    for n, mid in enumerate(mids):
        market.minute(0, n, float(mid))
    slots = market.slots()
    entries = np.zeros(len(mids), window.dtype)
    for n in range(len(mids)):
        answers = answer(predictor, slots, n + 1, window, first=n)
        entries[n] = window[0][int(slots["step"][n]) & MASK]
    return entries, predictor._book.q[int(answers["contribution_version"][len(mids) - 1][0])]


def test_multipliers_move_as_in_a_worker_to_the_bit():
    mids = draw(GARCH._replace(missing=0.0, shock=3.0, shock_minute=400), 700, 20260305).mid
    entries, q = through_a_worker(make_predictor(STORE), mids)
    assert np.isfinite(entries["predicted"][100:]).all()
    said = shock.follow(mids, q, entries["predicted"].copy())
    for name in ("sigma", "log_q", "half"):
        np.testing.assert_array_equal(getattr(said, name), entries[name], err_msg=name)
    assert (np.abs(said.log_q[-1]) > 0.01).all()  # it was not equal because nothing moved


@pytest.fixture(scope="module")
def found() -> list[shock.Covered]:
    """Twelve of the markets that the command draws, over the same outcomes."""
    law = random_walk(1.5)
    return shock.summary(list(shock.simulate(law, np.full(4, 1.47), 12, 20260306)), law)


def test_coverage_is_found_again_after_volatility_tripled(found):
    for row in found:
        assert row.end - row.begin == 1500 * row.horizon - 500
        assert 0.88 <= row.means()["moving"] <= 0.92, row


def test_kept_widths_miss_most_and_kept_multipliers_stay_as_wrong_as_they_were(found):
    """The volatility estimate takes the shock in; a multiplier from another market is mended by moving alone."""
    for row in found:
        means = row.means()
        assert means["kept width"] < 0.5
        assert row.before < 0.89
        assert means["kept multiplier"] == pytest.approx(row.before, abs=0.04)  # the estimate's prior favours calm


def test_coverage_falls_at_the_shock_and_comes_back(found):
    for row in found:
        moving = row.course[0]
        assert moving[:2].mean() < 0.85
        assert moving[-20:].mean() == pytest.approx(0.9, abs=0.02)
    assert "moving, 60 min" in shock.picture(found, "twelve markets")


def test_moving_intervals_are_hardly_wider_than_ones_that_know(found):
    for row in found:
        assert 0.9 < row.width < 1.1


def test_without_a_shock_the_right_multiplier_stays_where_it_is():
    """Quiet data: nothing changes, and neither does the coverage, whose multipliers were right."""
    mids = draw(random_walk(1.5), 20_000, 20260307).mid
    right = np.full(4, 1.66)  # of the normal, and of a volatility that is estimated
    said = shock.follow(mids, right)
    assert np.abs(said.log_q[2000:].mean(axis=0)).max() < 0.1
    for k, horizon in enumerate(HORIZON_MINUTES):
        distance = np.abs(mids[2000:] - mids[2000 - horizon : -horizon])
        assert (distance <= said.half[2000 - horizon : -horizon, k]).mean() == pytest.approx(0.9, abs=0.01)


def test_command_prints_a_line_a_horizon_for_programs():
    run = subprocess.run(
        [sys.executable, "-m", "engine.training.shock", "--simulations", "2", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = json.loads(run.stdout)
    assert [row["horizon"] for row in rows] == [1, 5, 15, 60]
    assert [(row["begin"], row["end"]) for row in rows] == [(500, 1500 * h) for h in (1, 5, 15, 60)]
    assert set(rows[0]) == {"horizon", "begin", "end", "before", "width", *shock.KINDS}


def test_command_refuses_one_simulation():
    run = subprocess.run(
        [sys.executable, "-m", "engine.training.shock", "--simulations", "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == (
        "python -m engine.training.shock: error: --simulations: expected at least 2, found 1"
    )

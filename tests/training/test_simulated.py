"""Price models taught on a market of known law say what is true of it; and what is false is called so."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax", reason="the extra `train` is not installed")
pytest.importorskip("optax", reason="the extra `train` is not installed")

from engine.contract.names import HORIZON_MINUTES
from engine.training import live, simulated
from engine.training.data import Examples
from engine.training.simulate import Market

SEED = 20260107
MINUTES = 4000  # of each of three markets; the tool takes more


@pytest.fixture(scope="module")
def walk() -> tuple[Examples, list[Market]]:
    print(f"seed {SEED}")
    return simulated.examples_of(simulated.LAWS["random walk"], MINUTES, SEED)


def test_taught_on_a_random_walk_it_is_right_in_coverage_score_and_confidence(walk, tmp_path: Path):
    simulated.taught(walk[0], tmp_path)
    found = simulated.verdicts(*walk, tmp_path)
    assert [each.judged.minutes for each in found] == list(HORIZON_MINUTES)
    for each in found:
        assert (each.covers, each.scores, each.calibrated) == (True, True, True), each.line()


def said_of(market: Market, chance: float, width: float) -> live.Said:
    """One chance of a rise, up or down in turn, and intervals of so many standard deviations of the past minutes."""
    bars = market.bars("SIM0")
    said = live.plain(bars, np.arange(len(bars.minute)))
    n = len(bars.minute)
    reach = width * 1.5e-4 * bars.mid[:, None] * np.sqrt(np.array(HORIZON_MINUTES))
    side = np.where(np.random.default_rng(SEED).random((n, len(HORIZON_MINUTES))) < 0.5, chance, 1.0 - chance)
    price = np.repeat(bars.mid[:, None], len(HORIZON_MINUTES), axis=1)
    return said._replace(price=price, lower=price - reach, upper=price + reach, rise=side, sigma=np.full(n, 1.5))


@pytest.mark.parametrize(
    ("chance", "width", "right"),
    [(0.5, 1.645, (True, True, True)), (0.6, 1.645, (True, False, False)), (0.5, 1.3, (False, True, True))],
    ids=["honest", "too sure", "too narrow"],
)
def test_what_is_said_too_surely_or_too_narrowly_is_wrong(walk, chance, width, right):
    market = walk[1][0]
    said = said_of(market, chance, width)
    even = np.full((len(said.minute), len(HORIZON_MINUTES)), 0.5)
    found = simulated.verdict(said, even, said, 0, [width] * len(HORIZON_MINUTES))
    assert (found.covers, found.scores, found.calibrated) == right, found.line()

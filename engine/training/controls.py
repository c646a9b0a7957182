"""Runs that must find nothing: labels shuffled, and inputs hours older than they claim to be.

Owns the two controls of the price models; run by `python -m engine.training`. What must stay true: they
go the way of the small model, which is that of both; what they find on average is what leaks.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.training import network, price
from engine.training.data import Examples
from engine.training.scores import brier

SEEDS = 4
LAG_MINUTES = 300  # rows; farther than any input looks back


def shuffled(examples: Examples, seed: int) -> np.ndarray:
    """Moves of the training part, each given to another row of its symbol; those of the other parts stay."""
    move, rng = examples.move.copy(), np.random.default_rng(seed)
    for symbol in np.unique(examples.symbol):
        rows = np.flatnonzero((examples.symbol == symbol) & (examples.part == "train"))
        move[rows] = move[rng.permutation(rows)]
    return move


def lagged(examples: Examples) -> np.ndarray:
    """To each row the move of the row so many rows later, within its symbol and part; NaN at the end."""
    move = np.full_like(examples.move, np.nan)
    for symbol in np.unique(examples.symbol):
        for part in np.unique(examples.part):
            rows = np.flatnonzero((examples.symbol == symbol) & (examples.part == part))
            move[rows[:-LAG_MINUTES]] = examples.move[rows[LAG_MINUTES:]]
    return move


def found(
    examples: Examples, seed: int, move: np.ndarray, report: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """By horizon, on the last part: share of signs right, and Brier score less that of one half."""
    quick = price.BASIC._replace(epochs=1, seed=seed)
    fitted = price.learn(examples, price.ready_rows(examples, "train"), quick, report, move)
    last = price.ready_rows(examples, "test")
    logit = network.predict(network.lstm, fitted, examples.rows[last])[1]
    right, excess = np.zeros(len(HORIZON_MINUTES)), np.zeros(len(HORIZON_MINUTES))
    for h in range(len(HORIZON_MINUTES)):
        y = move[last, h]
        use = np.isfinite(y) & (y != 0.0)
        rise, z = y[use] > 0.0, logit[use, h]
        right[h] = ((z > 0.0) == rise).mean()
        excess[h] = brier(1.0 / (1.0 + np.exp(-z)), rise).mean() - 0.25
    return right, excess


def run(examples: Examples, report: Callable[[str], None]) -> dict[str, list[float]]:
    """For the manifest and the card: means over seeds, and how far seeds lie apart.

    What learned nothing still points some way through inputs that do tell something, another way with each seed: the
    share of right signs of one run scatters around one half by more than its own outcomes explain.
    """
    out: dict[str, list[float]] = {}
    for name in ("shuffled", "lagged"):
        rights, excesses = [], []
        for seed in range(price.BASIC.seed, price.BASIC.seed + SEEDS):
            move = shuffled(examples, seed) if name == "shuffled" else lagged(examples)
            right, excess = found(examples, seed, move, partial(_about, report, f"{name} labels: "))
            rights.append(right)
            excesses.append(excess)
        out[f"{name}_right"] = np.mean(rights, axis=0).tolist()
        out[f"{name}_right_spread"] = np.std(rights, axis=0, ddof=1).tolist()
        out[f"{name}_brier_excess"] = np.mean(excesses, axis=0).tolist()
    return out


def _about(report: Callable[[str], None], what: str, line: str) -> None:
    report(what + line)

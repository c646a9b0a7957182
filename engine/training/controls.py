"""Runs that must find nothing: labels shuffled, and inputs hours older than they claim to be.

Owns the two controls of the price models; run by `python -m engine.training`. What must stay true: they
go the way of the small model, which is that of both; each row is judged together with its mirror image, so
that neither an opinion that never changes nor a market that drifts can gain or lose anything.

A network that learned nothing may still say "down" always, and be right as often as prices fell in the last
part. Upside down, with every move turned, the same opinion is wrong exactly as often: over both it is
right half of the time, whatever prices did.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.training import network, price
from engine.training.bootstrap import mean_score
from engine.training.data import Examples
from engine.training.scores import brier

SEEDS = 8
LAG_MINUTES = 300  # rows; farther than any input looks back


class Scores(NamedTuple):
    """One row a move, each the mean over it and its mirror image."""

    right: np.ndarray
    excess: np.ndarray  # Brier score less that of one half


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


def mirrored(logit: np.ndarray, upside_down: np.ndarray, move: np.ndarray) -> Scores:
    """What logits of a rise were worth on rows whose move is not nil, and those of the mirrored rows on theirs.

    >>> scores = mirrored(np.array([-0.1, -0.1, -0.1]), np.array([-0.1, -0.1, -0.1]), np.array([1.0, 2.0, -1.0]))
    >>> scores.right.tolist()
    [0.5, 0.5, 0.5]
    """
    both = [(logit, move > 0.0), (upside_down, move < 0.0)]
    right = np.mean([(z > 0.0) == rise for z, rise in both], axis=0)
    return Scores(right, np.mean([brier(1.0 / (1.0 + np.exp(-z)), rise) for z, rise in both], axis=0) - 0.25)


def found(examples: Examples, seed: int, move: np.ndarray, report: Callable[[str], None]) -> list[Scores]:
    """By horizon, on the rows of the last part that moved."""
    quick = price.BASIC._replace(epochs=1, seed=seed)
    fitted = price.learn(examples, price.ready_rows(examples, "train"), quick, report, move).parameters
    last = price.ready_rows(examples, "test")
    rows = examples.rows[last]
    logit = network.predict(network.lstm, fitted, rows)[1]
    upside_down = network.predict(network.lstm, fitted, rows * price.MIRROR)[1]
    out = []
    for h in range(len(HORIZON_MINUTES)):
        use = moved(move[last, h])
        out.append(mirrored(logit[use, h], upside_down[use, h], move[last, h][use]))
    return out


def moved(move: np.ndarray) -> np.ndarray:
    return np.isfinite(move) & (move != 0.0)


def run(examples: Examples, report: Callable[[str], None]) -> dict[str, list[float]]:
    """For the manifest: means over seeds, their standard errors, and how far seeds lie apart.

    What learned nothing still points some way through inputs that do tell something, another way with each seed. So a
    standard error holds both: blocks of time for the mean of all seeds, and the seeds' own scatter.
    """
    out: dict[str, list[float]] = {}
    last = price.ready_rows(examples, "test")
    for name in ("shuffled", "lagged"):
        every = []
        for seed in range(price.BASIC.seed, price.BASIC.seed + SEEDS):
            move = shuffled(examples, seed) if name == "shuffled" else lagged(examples)
            every.append(found(examples, seed, move, partial(_about, report, f"{name} labels: ")))
        for h, minutes in enumerate(HORIZON_MINUTES):
            when = price.when_of(examples, last[moved(move[last, h])])
            for score in Scores._fields:
                seeds = np.array([getattr(each[h], score) for each in every])
                blocks = mean_score(seeds.mean(axis=0), minutes, when=when)
                spread = float(seeds.mean(axis=1).std(ddof=1))
                error = float(np.hypot(blocks.standard_error, spread / np.sqrt(SEEDS)))
                numbers = (blocks.mean, error, blocks.standard_error, spread)
                for kind, value in zip(("", "_standard_error", "_blocks", "_spread"), numbers, strict=True):
                    out.setdefault(f"{name}_{score}{kind}", []).append(value)
    return out


def _about(report: Callable[[str], None], what: str, line: str) -> None:
    report(what + line)

"""What pattern models are taught by: made-up walks, with what the rules say of them; and hours that judge them.

Owns both; run by `python -m engine.training`. Reads `data/fx_h1`. What must stay true: nothing real is among
the lessons; no hour is within two days of the minutes' files.

Shapes are free of scale: a rule holds on a walk, or on hours, for the same reason as on minutes. So the
networks are taught without any of the data that calibrates and judges them. Patterns are rare; of many walks
all with a pattern are kept and some without, weighted nearly as often as they come.

Hours could teach as well. Beside the same walks they took 2 to 3 % off both models' log loss on the calibrating
minutes (1 to 3 standard errors); twice as many walks did as much for the small one. So they were kept for judging.
"""

import csv
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.inference.batch import IMAGE_MINUTES
from engine.training.data import Examples
from engine.training.patterns import label

CHUNK = 50_000
WITHOUT = 0.05  # share of windows without a pattern that teach
WEIGHT_WITH = 0.5  # of a window with a pattern, beside one without
AWAY = 2 * 24 * 60  # minutes that hours keep from the minutes' files: the clocks differ by up to three hours
HOUR = 60  # minutes
STEP = 8  # hours between two windows: neighbours show about the same


class Lessons(NamedTuple):
    path: np.ndarray  # (n, 64) mids
    target: np.ndarray  # (n, 7) zeros and ones
    weight: np.ndarray  # (n,)


class Hours(NamedTuple):
    """Windows of 64 successive hours; a weekend is one step, as it is to the engine."""

    path: np.ndarray  # (n, 64)
    minute: np.ndarray  # (n,) Unix minute of the last hour's begin
    symbol: np.ndarray


def walks(count: int, seed: int) -> np.ndarray:
    """(count, 64) mids: steps with heavy tails and changing volatility, on ticks, with empty minutes."""
    rng = np.random.default_rng(seed)
    step = rng.standard_normal((count, IMAGE_MINUTES))
    step /= np.sqrt(rng.chisquare(5.0, step.shape) / 5.0) ** (rng.random((count, 1)) < 0.5)
    swing = np.cumsum(rng.normal(0.0, 0.15, step.shape), axis=1) * (rng.random((count, 1)) < 0.5)
    step *= np.exp(swing) * (rng.random(step.shape) >= rng.choice([0.0, 0.1, 0.2], (count, 1)))
    path = np.cumsum(step, axis=1)
    ticks = rng.choice([0.0, 2.0, 5.0], (count, 1))  # of a step's deviation, a tick's inverse; 0: none
    path = np.where(ticks > 0.0, np.round(path * ticks) / np.maximum(ticks, 1.0), path)
    return np.exp(1e-4 * path)


def random_walks(count: int, seed: int) -> np.ndarray:
    """(count, 64) mids of the plain kind, on which the shown patterns are counted."""
    return np.exp(1e-4 * np.cumsum(np.random.default_rng(seed).standard_normal((count, IMAGE_MINUTES)), axis=1))


def chosen(path: np.ndarray, rng: np.random.Generator) -> Lessons:
    """All windows with a pattern and some without."""
    target = label(path)
    has = target.any(axis=1)
    kept = has | (rng.random(len(path)) < WITHOUT)
    return Lessons(path[kept], target[kept], np.where(has[kept], WEIGHT_WITH, 1.0).astype("f4"))


def of_walks(count: int, seed: int) -> Lessons:
    rng = np.random.default_rng(seed)
    parts = [chosen(walks(CHUNK, seed + 1 + n), rng) for n in range(count // CHUNK)]
    return Lessons(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def near(minute: np.ndarray, examples: Examples) -> np.ndarray:
    """(n,) whether a file of minutes was recorded within two days."""
    out = np.zeros(len(minute), bool)
    for symbol in np.unique(examples.symbol):
        own = examples.minute[examples.symbol == symbol]
        out |= (minute >= own.min() - AWAY) & (minute <= own.max() + AWAY)
    return out


def hours(folder: Path, examples: Examples) -> Hours:
    """Every eighth window, none of whose hours lies near the minutes."""
    found = []
    for file in sorted(folder.glob("*.csv.gz")):
        with gzip.open(file, "rt", newline="") as rows:
            table = [(int(row["ts_ms"]) // 60_000, float(row["close"])) for row in csv.DictReader(rows)]
        minute, close = np.array([each for each, _ in table]), np.array([each for _, each in table])
        free = ~np.lib.stride_tricks.sliding_window_view(near(minute, examples), IMAGE_MINUTES).any(axis=1)
        path = np.lib.stride_tricks.sliding_window_view(close, IMAGE_MINUTES)[free][::STEP]
        found.append(
            Hours(path, minute[IMAGE_MINUTES - 1 :][free][::STEP], np.full(len(path), file.name.split(".")[0]))
        )
    return Hours(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

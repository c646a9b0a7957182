"""What pattern models are taught by: made-up walks, with what the rules say of them; and hours that judge them.

Owns both; run by `python -m engine.training`. Reads `data/fx_h1`. What must stay true: nothing real is among
the lessons; no hour is within two days of the minutes' files.

Shapes are free of scale: a rule holds on a walk, or on hours, for the same reason as on minutes. So the
networks are taught without any of the data that calibrates and judges them. Patterns are rare; of many walks
all with a pattern are kept and some without, weighted nearly as often as they come.

Hours could teach as well. Beside the walks of the first kind they took 2 to 3 % off both models' log loss on the
calibrating minutes (1 to 3 standard errors); more walks and more laws did as much. So they were kept for judging.
"""

import csv
import gzip
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.inference.batch import IMAGE_MINUTES
from engine.training.data import Examples
from engine.training.patterns import label

CHUNK = 50_000
WITHOUT = 0.05  # share of windows without a pattern that teach
WEIGHT_WITH = 0.5  # of a window with a pattern, beside one without
JUMP_RATE = 0.01
AWAY = 2 * 24 * 60  # minutes that hours keep from the minutes' files: the clocks differ by up to three hours
HOUR = 60  # minutes
STEP = 8  # hours between two windows: neighbours show about the same


class Lessons(NamedTuple):
    path: np.ndarray  # (n, 64) mids
    target: np.ndarray  # (n, 7) zeros and ones
    weight: np.ndarray  # (n,)

    @property
    def walks(self) -> np.ndarray:
        """(n,) how many walks each stands for."""
        return np.where(self.target.any(axis=1), 1.0, 1.0 / WITHOUT)


class Hours(NamedTuple):
    """Windows of 64 successive hours; a weekend is one step, as it is to the engine."""

    path: np.ndarray  # (n, 64)
    minute: np.ndarray  # (n,) Unix minute of the last hour's begin
    symbol: np.ndarray


def walks(count: int, seed: int) -> np.ndarray:
    """(count, 64) mids: quotes of a walk on ticks, some flickering, some missing; each walk has a law of its own.

    A rule is a function of the mids alone, so a network that has learned it is right under every law. One that has
    not quite is right on average over the laws that taught it: those are many, and none is a market's.
    """
    rng = np.random.default_rng(seed)

    def of(*values: float) -> np.ndarray:
        return rng.choice(values, (count, 1))

    step = rng.standard_normal((count, IMAGE_MINUTES))
    step /= np.sqrt(rng.chisquare(5.0, step.shape) / 5.0) ** (rng.random((count, 1)) < 0.5)  # heavy tails
    step *= np.exp(np.cumsum(of(0.0, 0.05, 0.15) * rng.standard_normal(step.shape), axis=1))
    step += of(0.0, 2.0, 5.0) * (rng.random(step.shape) < JUMP_RATE) * rng.standard_normal(step.shape)
    again = of(-0.3, -0.1, 0.0, 0.1, 0.3)[:, 0]  # share of the last step that comes again, or is taken back
    for n in range(1, IMAGE_MINUTES):
        step[:, n] += again * step[:, n - 1]
    flicker = of(0.0, 0.0, 0.3, 0.8) * rng.uniform(-1.0, 1.0, step.shape)
    ticks = of(0.0, 1.0, 2.0, 5.0, 10.0)  # of a step's deviation, a tick's inverse; 0: none
    path = np.cumsum(step, axis=1) + flicker
    path = np.where(ticks > 0.0, np.round(path * ticks) / np.maximum(ticks, 1.0), path)
    quoted = rng.random(path.shape) >= of(0.0, 0.0, 0.1, 0.2, 0.4)
    quoted[:, 0] = True
    last = np.maximum.accumulate(np.where(quoted, np.arange(IMAGE_MINUTES), 0), axis=1)
    return np.exp(1e-4 * np.take_along_axis(path, last, axis=1))


def random_walks(count: int, seed: int) -> np.ndarray:
    """(count, 64) mids of the plain kind, on which the shown patterns are counted."""
    return np.exp(1e-4 * np.cumsum(np.random.default_rng(seed).standard_normal((count, IMAGE_MINUTES)), axis=1))


def chosen(path: np.ndarray, rng: np.random.Generator) -> Lessons:
    """All windows with a pattern and some without."""
    target = label(path)
    has = target.any(axis=1)
    kept = has | (rng.random(len(path)) < WITHOUT)
    return Lessons(path[kept], target[kept], np.where(has[kept], WEIGHT_WITH, 1.0).astype("f4"))


@lru_cache(maxsize=2)
def of_walks(count: int, seed: int) -> Lessons:
    """The same for both models."""
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

"""How sure a mean score is, when neighbouring scores depend on each other.

Owns resampling in blocks of time; run by `python -m engine.training` and by tests. Reads arrays of
scores with the minute of each. What must stay true: rows of one instant stay together, because symbols
that move together are not independent cases; a block is longer than a label's reach; a seed gives the
same bands on every machine.

Labels of horizon h at neighbouring minutes share h - 1 of their minutes, so n scores tell about as much
as n / h independent ones. Resampling whole blocks keeps that dependence within each block.

References
----------
Kuensch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17, 1989.
Politis and Romano, A circular block-resampling procedure for stationary data, 1992; The stationary
bootstrap, JASA 89, 1994. Diebold and Mariano, Comparing predictive accuracy, JBES 13, 1995.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

SEED = 20260201
DRAWS = 2000
LEVEL = 0.95
LONG = 1 << 30  # minutes between two groups on the common axis of instants

Kind = Literal["moving", "stationary"]


class Estimate(NamedTuple):
    """A number, and how far it may be from what more data of the same kind would give."""

    mean: float
    standard_error: float
    low: float  # of the 95 % band
    high: float
    rows: int
    independent_rows: float  # about as many independent ones tell as much
    block: int  # instants in a block

    def above(self, limit: float = 0.0, errors: float = 2.0) -> bool:
        """Whether it exceeds the limit by more than so many standard errors.

        >>> Estimate(0.03, 0.01, 0.01, 0.05, 900, 60.0, 30).above()
        True
        >>> Estimate(0.03, 0.02, -0.01, 0.07, 900, 60.0, 30).above()
        False
        """
        return self.mean - limit > errors * self.standard_error


class When(NamedTuple):
    """Where rows stand in time."""

    minute: np.ndarray  # (n,) Unix minutes
    group: np.ndarray  # (n,) name or number of the set of files whose minutes are the same time
    symbol: np.ndarray | None = None  # (n,) where a group has several


class Instants(NamedTuple):
    """Columns added up over the rows of each instant, one stretch of time after the other."""

    sums: np.ndarray  # (instants, columns)
    edges: np.ndarray  # where each group begins, and the end


def independent_rows(rows: int, horizon: int) -> float:
    """Independent labels among `rows` overlapping ones of so many minutes.

    >>> independent_rows(6000, 60)
    100.0
    """
    return max(rows / horizon, 1.0)


def block_length(instants: int, horizon: int) -> int:
    """Twice a label's reach, or the cube root of the instants where that is longer; never over a quarter of them.

    >>> [block_length(20_000, h) for h in (1, 5, 15, 60)]
    [28, 28, 30, 120]
    """
    return max(min(max(2 * horizon, math.ceil(instants ** (1 / 3))), instants // 4), 1)


def instants(columns: np.ndarray, when: When | None = None) -> Instants:
    """Rows of one group and minute become one; without `when` each row is an instant of its own.

    columns: (n, c). Minutes without a row are passed over: what counts for a block is instants that were scored.
    """
    count = len(columns)
    if count == 0:
        raise ValueError("scores: expected at least one row, found none; choose a part that has labels")
    minute, group = np.arange(count), np.zeros(count, "i8")
    if when is not None:
        minute, group = np.asarray(when.minute, "i8"), np.unique(when.group, return_inverse=True)[1]
    axis = group * LONG + (minute - minute.min())
    found, place = np.unique(axis, return_inverse=True)
    sums = np.stack([np.bincount(place, column, len(found)) for column in np.asarray(columns, "f8").T], axis=1)
    edges = np.searchsorted(found, np.arange(group.max() + 2) * LONG)
    return Instants(sums, edges)


def _blocks(rng: np.random.Generator, size: int, block: int, draws: int, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Where each draw's blocks begin, and how long they are; each draw's lengths add up to `size`."""
    if kind == "moving":
        number = math.ceil(size / block)
        lengths = np.full((draws, number), block)
    else:
        number = math.ceil(2 * size / block) + 20
        lengths = rng.geometric(1.0 / block, (draws, number))
        lengths[:, -1] = size  # in the unlikely case that the others do not fill it
    filled = np.minimum(np.cumsum(lengths, axis=1), size)
    return rng.integers(0, size, (draws, number)), np.diff(filled, prepend=0, axis=1)


def resample(given: Instants, block: int, *, draws: int = DRAWS, seed: int = SEED, kind: Kind = "moving") -> np.ndarray:
    """(draws, columns): totals of resampled time, each group resampled within itself, its end joined to its start."""
    rng = np.random.default_rng(seed)
    totals = np.zeros((draws, given.sums.shape[1]))
    for begin, end in zip(given.edges[:-1], given.edges[1:], strict=True):
        size = int(end - begin)
        own = given.sums[begin:end]
        before = np.concatenate([np.zeros((1, own.shape[1])), np.cumsum(np.concatenate([own, own]), axis=0)])
        start, length = _blocks(rng, size, min(block, size), draws, kind)
        for column in range(own.shape[1]):
            prefix = before[:, column]
            totals[:, column] += (prefix[start + length] - prefix[start]).sum(axis=1)
    return totals


def _estimate(value: float, drawn: np.ndarray, rows: int, horizon: int, block: int) -> Estimate:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    error = float(drawn.std(ddof=1))
    return Estimate(value, error, float(low), float(high), rows, independent_rows(rows, horizon), block)


def mean_score(
    scores: np.ndarray,
    horizon: int,
    *,
    when: When | None = None,
    kind: Kind = "moving",
    draws: int = DRAWS,
    seed: int = SEED,
) -> Estimate:
    """Mean of scores whose labels reach `horizon` minutes ahead.

    Parameters
    ----------
    scores : (n,) finite numbers
    when : of each row; without it, each is an instant of its own, in order
    kind : "moving" blocks of one length, or "stationary" ones of random length
    """
    scores = np.asarray(scores, "f8")
    given = instants(np.stack([scores, np.ones_like(scores)], axis=1), when)
    block = block_length(len(given.sums), horizon)
    total = resample(given, block, draws=draws, seed=seed, kind=kind)
    return _estimate(float(scores.mean()), total[:, 0] / total[:, 1], len(scores), horizon, block)


def difference(
    scores: np.ndarray,
    reference: np.ndarray,
    horizon: int,
    *,
    when: When | None = None,
    kind: Kind = "moving",
    draws: int = DRAWS,
    seed: int = SEED,
) -> Estimate:
    """How much higher (for losses: worse) the mean score is than the reference's on the same rows.

    >>> rng = np.random.default_rng(1)
    >>> here = difference(rng.normal(1.0, 1.0, 500), np.zeros(500), 1)
    >>> f"{here.mean:.2f} +- {here.standard_error:.2f}, {here.above()}"
    '0.96 +- 0.04, True'
    """
    return mean_score(
        np.asarray(scores, "f8") - np.asarray(reference, "f8"),
        horizon, when=when, kind=kind, draws=draws, seed=seed,
    )  # fmt: skip


def skill(
    scores: np.ndarray,
    reference: np.ndarray,
    horizon: int,
    *,
    when: When | None = None,
    kind: Kind = "moving",
    draws: int = DRAWS,
    seed: int = SEED,
) -> Estimate:
    """1 - loss / reference's loss: 0 where nothing is gained over the reference, 1 where nothing is lost at all."""
    scores, reference = np.asarray(scores, "f8"), np.asarray(reference, "f8")
    given = instants(np.stack([scores, reference], axis=1), when)
    block = block_length(len(given.sums), horizon)
    total = resample(given, block, draws=draws, seed=seed, kind=kind)
    value = 1.0 - float(scores.mean() / reference.mean())
    return _estimate(value, 1.0 - total[:, 0] / total[:, 1], len(scores), horizon, block)

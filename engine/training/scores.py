"""What a forecast lost: proper scores, the forecasts that need no model, coverage and width of intervals.

Owns the formulas; run by `python -m engine.training` and by tests. Reads arrays, one row a forecast;
losses come back one a row, so that `engine.training.bootstrap` can say how sure their means are.
What must stay true: smaller is better; a loss is proper, so that saying what one believes is best; a
baseline is fitted on the training part alone.

References
----------
Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, JASA 102, 2007: Brier,
logarithmic, quantile, interval score and CRPS. Winkler, A decision-theoretic approach to interval
estimation, JASA 67, 1972. Meese and Rogoff, Empirical exchange rate models of the seventies, 1983: the
random walk that is hard to beat.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.training.bootstrap import independent_rows

SURE = 1e-6  # no chance is taken to be nearer to 0 or 1: one forecast must not decide a mean
NOMINAL = 0.9


# -- losses, one a row -----------------------------------------------------------------------------


def brier(chance: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """(n,) of chances against what happened, or (n, classes) of them against (n,) numbers of the classes.

    >>> brier(np.array([0.8, 0.5]), np.array([True, False])).round(2).tolist()
    [0.04, 0.25]
    >>> brier(np.array([[0.2, 0.5, 0.3]]), np.array([1])).round(2).tolist()
    [0.38]
    """
    chance = np.asarray(chance, "f8")
    if chance.ndim == 2:
        return ((chance - np.eye(chance.shape[1])[happened]) ** 2).sum(axis=1)
    return (chance - np.asarray(happened, "f8")) ** 2


def log_loss(chance: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """Shapes as of `brier`; in nats.

    >>> log_loss(np.array([0.5, 0.8]), np.array([True, True])).round(4).tolist()
    [0.6931, 0.2231]
    """
    chance = np.asarray(chance, "f8")
    given = chance[np.arange(len(chance)), happened] if chance.ndim == 2 else np.where(happened, chance, 1.0 - chance)
    return -np.log(np.clip(given, SURE, 1.0))


def pinball(quantile: np.ndarray, outcome: np.ndarray, level: float) -> np.ndarray:
    """Loss of a quantile; at level 0.5 half the absolute error.

    >>> pinball(np.array([1.0, 1.0]), np.array([3.0, 0.0]), 0.9).round(2).tolist()
    [1.8, 0.1]
    """
    above = np.asarray(outcome, "f8") - quantile
    return np.maximum(level * above, (level - 1.0) * above)


def crps(quantiles: np.ndarray, outcome: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Twice the mean pinball loss over evenly spread levels: the CRPS as far as these quantiles tell it.

    quantiles: (n, levels). Levels (k + 0.5) / K make it exact as K grows.

    >>> crps(np.array([[-1.0, 0.0, 1.0]]), np.array([0.0]), [1 / 6, 1 / 2, 5 / 6]).round(4).tolist()
    [0.2222]
    """
    losses = [pinball(quantiles[:, k], outcome, level) for k, level in enumerate(levels)]
    return 2.0 * np.mean(losses, axis=0)


def winkler(lower: np.ndarray, upper: np.ndarray, outcome: np.ndarray, nominal: float = NOMINAL) -> np.ndarray:
    """Width, and for an outcome beyond it 2 / (1 - nominal) times how far beyond.

    >>> winkler(np.array([-1.0, -1.0]), np.array([1.0, 1.0]), np.array([0.5, 1.5])).round(2).tolist()
    [2.0, 12.0]
    """
    beyond = np.maximum(lower - outcome, 0.0) + np.maximum(outcome - upper, 0.0)
    return (upper - lower) + 2.0 / (1.0 - nominal) * beyond


def absolute(median: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Proper for a median."""
    return np.abs(np.asarray(outcome, "f8") - median)


# -- forecasts that need no model ------------------------------------------------------------------


class Baselines(NamedTuple):
    """Chances of a rise, one a row, each known without a model."""

    random_walk: np.ndarray  # one half
    climatology: np.ndarray  # the training part's share of rises
    last_direction: np.ndarray  # that the last move goes on
    mean_reversion: np.ndarray  # that the gap to a mean closes

    def named(self) -> Mapping[str, np.ndarray]:
        return {name.replace("_", " "): chance for name, chance in zip(self._fields, self, strict=True)}


def climatology(happened: np.ndarray, count: int) -> np.ndarray:
    """What happened in training, said again and again: (n,) of a share, or (n, classes) of the classes' shares.

    >>> climatology(np.array([True, False, True, True]), 2).tolist()
    [0.75, 0.75]
    >>> climatology(np.array([0, 1, 1, 2]), 1).tolist()
    [[0.25, 0.5, 0.25]]
    """
    happened = np.asarray(happened)
    if happened.dtype == bool:
        return np.full(count, happened.mean())
    return np.tile(np.bincount(happened) / len(happened), (count, 1))


def sign_chances(
    fitted_sign: np.ndarray, fitted_rise: np.ndarray, sign: np.ndarray, known_rise: float = 0.5
) -> np.ndarray:
    """A rule that only points up or down, as chances: as often as it was right where it was fitted.

    A sign of 0 says nothing; it gets `known_rise`.

    >>> went_on = sign_chances(np.array([1, 1, -1, -1]), np.array([True, True, False, True]), np.array([1, -1, 0]))
    >>> went_on.tolist()
    [0.75, 0.25, 0.5]
    """
    spoke = np.asarray(fitted_sign) != 0
    right = ((np.asarray(fitted_sign) > 0) == np.asarray(fitted_rise, bool))[spoke]
    share = float(right.mean()) if len(right) else 0.5
    return np.where(sign > 0, share, np.where(sign < 0, 1.0 - share, known_rise))


def baselines(
    fitted_move: np.ndarray, fitted_gap: np.ndarray, fitted_rise: np.ndarray, move: np.ndarray, gap: np.ndarray
) -> Baselines:
    """All of them for rows whose last move and whose gap above (+) or below (-) a mean are these.

    `fitted_...` are the training part's.

    >>> moves, rises = np.array([1.0, -1.0, 2.0, 1.0]), np.array([True, False, False, True])
    >>> simple = baselines(moves, moves, rises, np.array([0.5]), np.array([0.5]))
    >>> {name: float(chance[0]) for name, chance in simple.named().items()}
    {'random walk': 0.5, 'climatology': 0.5, 'last direction': 0.75, 'mean reversion': 0.75}
    """
    count = len(move)
    return Baselines(
        np.full(count, 0.5),
        climatology(np.asarray(fitted_rise, bool), count),
        sign_chances(np.sign(fitted_move), fitted_rise, np.sign(move)),
        sign_chances(-np.sign(fitted_gap), fitted_rise, -np.sign(gap)),
    )


# -- coverage and width of intervals ---------------------------------------------------------------


class Coverage(NamedTuple):
    """How often outcomes lay inside, and what chance alone may do to that share."""

    share: float
    rows: int
    independent_rows: float
    allowance: float

    def within(self, low: float, high: float) -> bool:
        """Whether the share lies between, give or take its allowance.

        >>> coverage(np.arange(600) % 6 > 0, 60).within(0.88, 0.92)
        True
        >>> coverage(np.arange(600) % 6 > 0, 1).within(0.88, 0.92)
        False
        """
        return low - self.allowance <= self.share <= high + self.allowance


def coverage(inside: np.ndarray, horizon: int, *, nominal: float = NOMINAL, errors: float = 2.0) -> Coverage:
    """Allowance: so many binomial standard errors of n / h independent outcomes.

    >>> here = coverage(np.arange(1200) % 10 > 0, 60)
    >>> here.share, here.independent_rows, round(here.allowance, 3)
    (0.9, 20.0, 0.134)
    """
    independent = independent_rows(len(inside), horizon)
    allowance = errors * math.sqrt(nominal * (1.0 - nominal) / independent)
    return Coverage(float(np.mean(inside)), len(inside), independent, allowance)


def coverage_by(inside: np.ndarray, name: np.ndarray, horizon: int, nominal: float = NOMINAL) -> dict[str, Coverage]:
    """Of each name's rows: symbols, hours, parts."""
    return {str(each): coverage(inside[name == each], horizon, nominal=nominal) for each in np.unique(name)}


class Widths(NamedTuple):
    """A model's intervals beside plain ones, made to cover as much on the same rows."""

    median: float
    plain_median: float
    ratio: float  # of the medians; below 1: the model's are narrower
    share: float  # both cover this much
    multiplier: float  # of the plain ones


def widths(lower: np.ndarray, upper: np.ndarray, outcome: np.ndarray, mid: np.ndarray, scale: np.ndarray) -> Widths:
    """Median width beside that of mid +- q x scale with the one q that gives the same coverage here.

    Parameters
    ----------
    lower, upper, outcome, mid : (n,) prices
    scale : (n,) volatility over the horizon, in price: sigma sqrt(h)

    The plain ones are given the best q in hindsight, so a ratio of 1.1 is strict on the model.

    >>> rng = np.random.default_rng(5)
    >>> scale = np.exp(rng.normal(size=4000))
    >>> outcome = scale * rng.normal(size=4000)
    >>> same = widths(-1.7 * scale, 1.7 * scale, outcome, np.zeros(4000), scale)
    >>> round(same.ratio, 2), round(same.multiplier, 1)
    (1.0, 1.7)
    """
    inside = (lower <= outcome) & (outcome <= upper)
    distance = np.abs(outcome - mid) / scale
    rank = min(max(int(inside.sum()), 1), len(distance)) - 1
    multiplier = float(np.partition(distance, rank)[rank])
    median, plain = float(np.median(upper - lower)), float(np.median(2.0 * multiplier * scale))
    return Widths(median, plain, median / plain, float(inside.mean()), multiplier)

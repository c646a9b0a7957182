"""Whether chances come true as often as they say, and how far off a perfect forecaster would look.

Owns reliability diagrams, the calibration error and its null band; run by `python -m engine.training`
and by tests. Reads chances, what happened, and when. What must stay true: bins hold equally many
forecasts; an error is judged by the band that these very chances give when they are true, never by a
fixed number; outcomes that overlap in time are simulated as overlapping.

A binned error is never nil, least of all for a perfect forecaster with few cases. So outcomes are drawn
from the chances themselves, many times, and the error of each draw tells what calibration alone costs.
Labels of neighbouring minutes share most of their minutes: row t's outcome is drawn as "a random walk's
move over (t, t + h] lies below the chance's quantile", which happens with exactly the chance given and
leaves neighbours as dependent as their common minutes make them.

References
----------
Broecker and Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22, 2007:
consistency bars. Roelofs, Cain, Shlens and Mozer, Mitigating bias in calibration error estimation,
AISTATS 2022: equal-mass bins, and the bias for calibrated models. Vaicenavicius et al., Evaluating model
calibration in classification, AISTATS 2019: consistency resampling.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from engine.training.bootstrap import LEVEL, LONG, When, independent_rows

BINS = 10
DRAWS = 400
FAMILY_DRAWS = 1000  # its band lies farther out
SEED = 20260202


class Diagram(NamedTuple):
    """One entry a bin, from the smallest chances to the largest."""

    chance: np.ndarray  # mean of the bin's chances
    share: np.ndarray  # how often it happened
    rows: np.ndarray
    low: np.ndarray  # of the shares that 95 of 100 perfect forecasters would show here
    high: np.ndarray


class Family(NamedTuple):
    """Several forecasters that are judged at once; (forecasters,) each."""

    error: np.ndarray
    band: np.ndarray  # 95 of 100 perfect forecasters stay below, each by itself
    together: np.ndarray  # 95 of 100 perfect sets stay below with all of theirs

    @property
    def outside(self) -> np.ndarray:
        """Which of them no perfect set is likely to show."""
        return self.error > self.together


class Calibration(NamedTuple):
    """A forecaster's calibration error beside those of perfect ones with the same chances."""

    error: float
    expected: float  # mean of the perfect ones'
    band: float  # 95 of 100 perfect ones stay below
    p_value: float  # share of perfect ones with an error as large
    rows: int
    independent_rows: float
    diagram: Diagram

    @property
    def inside(self) -> bool:
        """Whether a perfect forecaster may look like this."""
        return self.error <= self.band


def bins_of(chance: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(n,) number of each row's bin: equally many rows in each, equal chances never torn apart.

    >>> bins_of(np.array([0.1, 0.9, 0.4, 0.6, 0.2, 0.8]), 3).tolist()
    [0, 2, 1, 1, 0, 2]
    >>> bins_of(np.array([0.5, 0.5, 0.5, 0.7]), 2).tolist()
    [0, 0, 0, 1]
    """
    ordered = np.sort(chance)
    last = np.maximum((np.arange(1, bins) * len(ordered)) // bins - 1, 0)  # of each bin but the highest
    raw = np.searchsorted(np.unique(ordered[last]), chance, side="left")
    return np.unique(raw, return_inverse=True)[1]


def _errors(place: np.ndarray, chance: np.ndarray, happened: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean distance of shares from chances, weighted by rows; and each bin's share."""
    rows = np.bincount(place)
    share = np.bincount(place, happened) / rows
    distance = np.abs(share - np.bincount(place, chance) / rows)
    return float((distance * rows).sum() / rows.sum()), share


def calibration_error(chance: np.ndarray, happened: np.ndarray, bins: int = BINS) -> float:
    """Mean distance between what was said and what happened, over bins of equally many rows.

    >>> calibration_error(np.array([0.2, 0.2, 0.8, 0.8]), np.array([False, False, True, False]), 2)
    0.25
    """
    chance = np.asarray(chance, "f8")
    return _errors(bins_of(chance, bins), chance, np.asarray(happened, "f8"))[0]


def perfect_outcomes(
    chance: np.ndarray,
    horizon: int,
    when: When | None = None,
    *,
    correlation: float = 0.0,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Iterator[np.ndarray]:
    """What may happen if the chances are true: (n,) booleans, `draws` times.

    correlation: between the moves of two symbols of one group at the same instants; the nearer to 1, the wider the
    band, because symbols that move as one are one symbol.
    """
    rng = np.random.default_rng(seed)
    edge = ndtri(np.clip(chance, 0.0, 1.0))
    rows = np.arange(len(chance))
    minute, group, symbol = (rows, 0 * rows, 0 * rows) if when is None else (when.minute, when.group, when.symbol)
    own, common = _timeline(minute, group if symbol is None else symbol, horizon), _timeline(minute, group, horizon)
    for _ in range(draws):
        move = np.sqrt(1.0 - correlation) * _moves(rng, own, horizon)
        if correlation > 0.0:
            move += np.sqrt(correlation) * _moves(rng, common, horizon)
        yield move < edge


def _moves(rng: np.random.Generator, place: np.ndarray, horizon: int) -> np.ndarray:
    """A random walk's moves over the `horizon` steps after each place, of variance 1."""
    size = int(place.max()) + 1
    walk = np.zeros(size + horizon)
    np.cumsum(rng.standard_normal(size + horizon - 1), out=walk[1:])
    return ((walk[horizon:] - walk[:size]) / np.sqrt(horizon))[place]


def _timeline(minute: np.ndarray, name: np.ndarray, horizon: int) -> np.ndarray:
    """(n,) place of each row on one axis on which no two names, nor two sides of a long hole, share a label."""
    code = np.unique(name, return_inverse=True)[1]
    axis = code * LONG + (np.asarray(minute, "i8") - np.min(minute))
    found, back = np.unique(axis, return_inverse=True)
    steps = np.minimum(np.diff(found, prepend=found[0]), horizon)
    return np.cumsum(steps)[back]


def calibration(
    chance: np.ndarray,
    happened: np.ndarray,
    horizon: int,
    when: When | None = None,
    *,
    correlation: float = 0.0,
    bins: int = BINS,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Calibration:
    """The error, its null band, and the diagram with consistency bars.

    Parameters
    ----------
    chance : (n,) what was said
    happened : (n,) booleans
    horizon : minutes that a label reaches ahead
    when : of each row; without it, rows are successive minutes of one symbol
    correlation : between symbols at the same instants, as in `perfect_outcomes`

    >>> rng = np.random.default_rng(3)
    >>> said = rng.uniform(0.4, 0.6, 2000)
    >>> honest = calibration(said, rng.random(2000) < said, 1)
    >>> honest.inside, round(honest.expected, 3), round(honest.band, 3)
    (True, 0.028, 0.039)
    """
    chance, happened = _checked(chance, happened)
    perfect = perfect_outcomes(chance, horizon, when, correlation=correlation, draws=draws, seed=seed)
    return _beside(chance, happened, perfect, horizon, bins)


def confidence_calibration(
    chance: np.ndarray,
    happened: np.ndarray,
    horizon: int,
    when: When | None = None,
    *,
    correlation: float = 0.0,
    bins: int = BINS,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Calibration:
    """Of a forecaster that names the likelier side and its chance: what it said against whether that side came.

    Parameters as of `calibration`. Outcomes are drawn by the chances first and then seen from the side that was named:
    two rows that name opposite sides of one move are not right together. Where both sides are named about equally
    often, a drift of the market makes one of them right more often and the other less, and cancels.

    >>> rng = np.random.default_rng(3)
    >>> said = rng.uniform(0.4, 0.6, 9000)
    >>> risen = rng.random(9000) < said + 0.05
    >>> calibration(said, risen, 1).inside, confidence_calibration(said, risen, 1).inside
    (False, True)
    """
    chance, happened = _checked(chance, happened)
    side = chance > 0.5
    perfect = perfect_outcomes(chance, horizon, when, correlation=correlation, draws=draws, seed=seed)
    said = np.where(side, chance, 1.0 - chance)
    return _beside(said, happened == side, (each == side for each in perfect), horizon, bins)


def _checked(chance: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chance, happened = np.asarray(chance, "f8"), np.asarray(happened, bool)
    if len(chance) == 0 or len(chance) != len(happened) or not ((chance >= 0.0) & (chance <= 1.0)).all():
        raise ValueError(
            f"calibration: expected as many chances from 0 to 1 as outcomes, and at least one; found {len(chance)} "
            f"and {len(happened)}, {int((~((chance >= 0.0) & (chance <= 1.0))).sum())} of them no chances; "
            "leave out what was not forecast"
        )
    return chance, happened


def _beside(
    chance: np.ndarray, happened: np.ndarray, perfect: Iterator[np.ndarray], horizon: int, bins: int
) -> Calibration:
    """The error of what happened beside those of what a perfect forecaster's outcomes were."""
    place = bins_of(chance, bins)
    error, share = _errors(place, chance, happened.astype("f8"))
    drawn = [_errors(place, chance, each.astype("f8")) for each in perfect]
    null = np.array([each for each, _ in drawn])
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile([shares for _, shares in drawn], [tail, 100 - tail], axis=0)
    rows = np.bincount(place)
    return Calibration(
        error,
        float(null.mean()),
        float(np.quantile(null, LEVEL)),
        float((1 + (null >= error).sum()) / (1 + len(null))),
        len(chance),
        independent_rows(len(chance), horizon),
        Diagram(np.bincount(place, chance) / rows, share, rows, low, high),
    )


def limits(null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Below which 95 of 100 perfect forecasters stay, each by itself; and below which 95 of 100 sets stay whole.

    null: (draws, forecasters), errors of perfect ones. One level for all of them: the lowest at which 95 of 100 draws
    have no error above it, a draw counting by the highest rank among its errors.

    >>> alone, together = limits(np.random.default_rng(5).random((20_000, 7)))
    >>> alone.round(2).tolist(), [float(each.round(3)) for each in (together.min(), together.max())]
    ([0.95, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95], [0.992, 0.994])
    """
    ranks = null.argsort(axis=0).argsort(axis=0)
    level = int(np.quantile(ranks.max(axis=1), LEVEL, method="higher"))
    return np.quantile(null, LEVEL, axis=0), np.sort(null, axis=0)[level]


def family(
    chance: np.ndarray,
    happened: np.ndarray,
    horizons: Sequence[int],
    when: When | None = None,
    *,
    correlation: float = 0.0,
    bins: int = BINS,
    draws: int = FAMILY_DRAWS,
    seed: int = SEED,
) -> Family:
    """Errors of several forecasters, (n, forecasters) each, beside the bands of each and of all at once.

    horizons: of each; when and correlation: as in `calibration`.

    Each is drawn from a seed of its own: forecasters whose events have nothing to do with each other need the widest
    common band.
    """
    errors, null = [], []
    for k, horizon in enumerate(horizons):
        place = bins_of(chance[:, k], bins)
        errors.append(_errors(place, chance[:, k], happened[:, k].astype("f8"))[0])
        drawn = perfect_outcomes(chance[:, k], horizon, when, correlation=correlation, draws=draws, seed=seed + k)
        null.append([_errors(place, chance[:, k], each.astype("f8"))[0] for each in drawn])
    return Family(np.array(errors), *limits(np.array(null).T))

"""How likely a shown pattern's target is touched: a random walk's odds, corrected by what markets showed.

Owns that fit; run by `python -m engine.training`. Reads paths and the closes after them. What must stay
true: the odds are those that answers use; a target counts as touched by a close, in time and before the
mirror stop.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.optimize import minimize

from engine.inference.geometry import walk_odds
from engine.training.data import Examples
from engine.training.patterns import NAMES, shapes

PRIOR_BIAS = 0.3  # standard deviation of what a pattern's own shapes may add to all shapes' log odds
OVERLAP = 8.0  # neighbouring minutes that show about the same shape, and count as one


def touched(mid: np.ndarray, height: np.ndarray, span: np.ndarray, way: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Whether a close touches the target in time and before the mirror stop; NaN where the closes end before either.

    All (n,), heights in price and spans in minutes; future: (n, 60) closes.
    """
    reach = future.shape[1]
    late = np.arange(1, reach + 1) > span[:, None]
    ahead = np.where(late, 0.0, (future - mid[:, None]) * way[:, None])
    hit, stop = ahead >= height[:, None], ahead <= -height[:, None]
    first_hit = np.where(hit.any(1), hit.argmax(1), reach)
    first_stop = np.where(stop.any(1), stop.argmax(1), reach)
    unknown = np.isnan(ahead).any(1) & ~hit.any(1) & ~stop.any(1)
    return np.where(unknown, np.nan, (first_hit < first_stop).astype(float))


class Touch(NamedTuple):
    """Log odds that a target is touched: bias + slope x those of a random walk."""

    slope: float
    bias: np.ndarray  # (7,)

    def chance(self, odds: np.ndarray, kind: int) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-(self.bias[kind] + self.slope * odds)))


class Outlook(NamedTuple):
    """What each pattern of each window points to, and what came of it."""

    way: np.ndarray  # (n, 7)
    odds: np.ndarray  # (n, 7), log odds that a random walk touches the target
    hit: np.ndarray  # (n, 7), NaN: unknown


@njit
def _odds(height, span, mid, sigma):
    out = np.empty(height.shape)
    for n in range(len(mid)):
        for k in range(height.shape[1]):
            out[n, k] = walk_odds(height[n, k], span[n, k], mid[n], sigma[n])
    return out


def outlook(examples: Examples, rows: np.ndarray) -> Outlook:
    path, mid, sigma, future = (each[rows] for each in (examples.path, examples.mid, examples.sigma, examples.future))
    found = shapes(path)
    way, height, span = found[:, :, 0], found[:, :, 1], found[:, :, 2]
    hit = [touched(mid, height[:, k], span[:, k], way[:, k], future) for k in range(len(NAMES))]
    return Outlook(way, _odds(height, span, mid, sigma), np.stack(hit, axis=1))


def fit_touch(seen: Outlook, shown: np.ndarray) -> Touch:
    """The slope from all windows' shapes; each pattern's bias drawn towards theirs where few were shown."""
    known = np.isfinite(seen.hit)
    x, sign = seen.odds[known], np.where(seen.hit[known] > 0, -1.0, 1.0)
    start = np.array([0.0, 1.0])
    bias, slope = minimize(lambda ab: float(np.logaddexp(0.0, sign * (ab[0] + ab[1] * x)).mean()), start).x
    out = np.empty(len(NAMES))
    for k in range(len(NAMES)):
        rows = known[:, k] & shown[:, k]
        own = bias + slope * seen.odds[rows, k]
        side = np.where(seen.hit[rows, k] > 0, -1.0, 1.0)

        def cost(add: np.ndarray, own: np.ndarray = own, side: np.ndarray = side) -> float:
            return float(np.logaddexp(0.0, side * (own + add[0])).sum() / OVERLAP + 0.5 * (add[0] / PRIOR_BIAS) ** 2)

        out[k] = bias + minimize(cost, np.zeros(1)).x[0]
    return Touch(float(slope), out)

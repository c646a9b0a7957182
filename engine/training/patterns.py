"""Chart patterns by rule: the labels that pattern models learn.

Owns the rules; run by `python -m engine.training`. Reads 64 closed mids, says which patterns hold at
their end. What must stay true: a rule sees its window alone, smoothing included; it does not know the
price or the volatility, tolerances are shares of the window's range.

Extrema, head and shoulders, double tops and bottoms, triangles: Lo, Mamaysky and Wang, Foundations of
Technical Analysis, Journal of Finance 55 (2000), section II.A, with their 1.5 % of price replaced by
a share of the range. Flags, pennants, wedges: Edwards and Magee, Technical Analysis of Stock Trends,
chapters on consolidations; the thresholds are ours.
"""

import numpy as np
from numba import njit

from engine.inference.batch import IMAGE_MINUTES
from fastpath import layout

NAMES = ("head_and_shoulders", "double_top", "double_bottom", "triangle", "flag", "pennant", "wedge")
assert len(NAMES) == layout.patterns_max
TOLERANCE = 0.1  # of the window's range
SMOOTHING = 1.5  # steps, standard deviation of the kernel
AGE_MIN = 3  # steps since the last extremum: younger ones may yet move
APART_MIN = 10  # steps between two tops
POLE = 20  # steps of a pole, and of the consolidation after it
POLE_MIN = 0.6  # of the range


@njit
def _smooth(path, out):
    """Nadaraya-Watson inside the window, weights renormalized at its ends."""
    reach = int(4 * SMOOTHING)
    for n in range(len(path)):
        total = weights = 0.0
        for m in range(max(0, n - reach), min(len(path), n + reach + 1)):
            weight = np.exp(-0.5 * ((n - m) / SMOOTHING) ** 2)
            total += weight * path[m]
            weights += weight
        out[n] = total / weights


@njit
def _extrema(smooth, places):
    count = 0
    for n in range(1, len(smooth) - AGE_MIN):
        if (smooth[n] - smooth[n - 1]) * (smooth[n + 1] - smooth[n]) < 0.0:
            places[count] = n
            count += 1
    return count


@njit
def _tops(level, places, count, sign):
    """Two tops of equal height near the window's top, with the last extremum but one between them."""
    best = -1
    last = count - 1 if sign * (level[places[count - 1]] - level[places[count - 2]]) > 0 else count - 2
    for k in range(last - 2, -1, -2):
        if best < 0 or sign * level[places[k]] > sign * level[places[best]]:
            best = k
    if best < 0:
        return False
    a, b = level[places[best]], level[places[last]]
    near = (1.0 - a if sign > 0 else a) < 0.2 and (1.0 - b if sign > 0 else b) < 0.2
    return near and abs(a - b) < TOLERANCE and places[last] - places[best] >= APART_MIN


@njit
def _pole(level, out):
    """Flag: a pole, then a channel leaning against it. Pennant: a pole, then a narrowing."""
    pole = level[IMAGE_MINUTES - 1 - POLE] - level[IMAGE_MINUTES - 1 - 2 * POLE]
    if abs(pole) < POLE_MIN:
        return
    half = POLE // 2
    first, second = level[-POLE:-half], level[-half:]
    wide, narrow = first.max() - first.min(), second.max() - second.min()
    drift = (level[-1] - level[IMAGE_MINUTES - 1 - POLE]) * np.sign(pole)
    if wide > 0.5 * abs(pole):
        return
    if -0.4 * abs(pole) < drift < -0.05 * abs(pole) and narrow < 1.5 * wide and wide < 1.5 * narrow:
        out[4] = 1
    if abs(drift) < 0.2 * abs(pole) and narrow < 0.6 * wide:
        out[5] = 1


@njit
def label(paths):
    """(n, 64) mids -> (n, 7) zeros and ones."""
    out = np.zeros((len(paths), 7), np.uint8)
    smooth, places = np.zeros(IMAGE_MINUTES), np.zeros(IMAGE_MINUTES, np.int64)
    for w in range(len(paths)):
        path = paths[w]
        low, high = path.min(), path.max()
        if not high > low:
            continue
        level = (path - low) / (high - low)
        _smooth(level, smooth)
        count = _extrema(smooth, places)
        _pole(level, out[w])
        if count >= 3:
            out[w, 1] = _tops(smooth, places, count, 1.0)
            out[w, 2] = _tops(smooth, places, count, -1.0)
        if count < 5:
            continue
        e = np.empty(5)
        for k in range(5):
            e[k] = smooth[places[count - 5 + k]]
        top_first = e[0] > e[1]
        equal_shoulders = abs(e[0] - e[4]) < TOLERANCE and abs(e[1] - e[3]) < TOLERANCE
        if top_first and e[2] > e[0] + TOLERANCE / 2 and e[2] > e[4] + TOLERANCE / 2 and equal_shoulders:
            out[w, 0] = 1
        outer_falls, inner_rises = e[0] > e[2] > e[4], e[1] < e[3]
        if (top_first and outer_falls and inner_rises) or (not top_first and e[0] < e[2] < e[4] and e[1] > e[3]):
            out[w, 3] = 1
        narrows = abs(e[4] - e[3]) < 0.7 * abs(e[1] - e[0])
        all_rise, all_fall = e[0] < e[2] < e[4] and e[1] < e[3], outer_falls and e[1] > e[3]
        if narrows and (all_rise or all_fall):
            out[w, 6] = 1
    return out

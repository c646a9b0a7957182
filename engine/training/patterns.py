"""Chart patterns by rule: the labels that pattern models learn.

Owns the rules; run by `python -m engine.training`. Reads 64 closed mids, says which patterns hold at
their end. What must stay true: a rule sees its window alone, smoothing included; it does not know the
price or the volatility, tolerances are shares of the window's range; the last turning point is at
least 3 steps old.

Sources, and what was changed. The rules are stricter than their sources, because loose ones hold on
one random walk in ten, and a pattern that is always there says nothing.

Head and shoulders, double tops and bottoms, triangles: Lo, Mamaysky and Wang, Foundations of Technical
Analysis, Journal of Finance 55 (2000), definitions 1, 3 and 5. Their 1.5 % of price is a share of the
range here; their 22 days between two tops are TWINS_APART steps. Added: a head that stands out, a rise
before the first top, a triangle's three points on one line and the last mid still within it.
Flags, pennants, wedges: Edwards and Magee, Technical Analysis of Stock Trends, chapter 11, and
Bulkowski, Encyclopedia of Chart Patterns, 2nd ed. (2005), chapters on them: a steep pole, a short rest
that gives back at most half of it, between parallel lines that lean against the pole (flag) or lines
that meet (pennant); a wedge has two lines of the same slope's sign that meet, with at least five
touches. The numbers are ours.
"""

import numpy as np
from numba import njit

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.geometry import (
    DOUBLE_BOTTOM,
    DOUBLE_TOP,
    FLAG,
    HEAD_AND_SHOULDERS,
    LAST,
    PENNANT,
    TRIANGLE,
    WEDGE,
    between,
    line_at,
    pole_of,
    scale,
    shape_of,
    smoothed,
    turns,
    twins,
)
from fastpath import layout

NAMES = ("head_and_shoulders", "double_top", "double_bottom", "triangle", "flag", "pennant", "wedge")
assert len(NAMES) == layout.patterns_max
SHOULDERS = 0.14  # of the range: how far two shoulders, and two points of the neckline, may differ
HEAD = 0.12  # of the range: how far the head stands above both shoulders
FIVE_SPAN = 18  # steps from the first to the fifth turning point
TWINS_EQUAL = 0.08  # of the range
TWINS_DEEP = 0.4  # of the range: from the tops to the lowest point between them
TWINS_BEFORE = 0.55  # of the range: the way up to the first top
TWINS_APART = 12
FLAT = 0.06  # of the range: how far a triangle's flat line may lean the wrong way
ON_LINE = 0.1  # of the range: how far a line's middle point may lie off it
NARROW_MIN, NARROW_MAX = 0.05, 0.75  # what is left of the width at the last turning point
INSIDE = 0.1  # of the range: how far the last mid may lie outside of the lines
LEAN = 0.08  # of the range: how far a wedge's lines rise or fall at least
POLE_MIN = 0.65  # of the range
POLE_BACK = 0.25  # of the pole: the largest move against it within it
REST_BACK = 0.5  # of the pole: given back at most
FLAG_LEAN = (0.18, 0.5)  # of the pole: the channel's fall
FLAG_WIDTH = 0.27  # of the pole: the channel's width
PENNANT_LEAN = 0.15
PENNANT_NARROW = 0.65


@njit
def _head_and_shoulders(smooth, places, count):
    last = count - 1
    if last > 0 and smooth[places[last]] < smooth[places[last - 1]]:
        last -= 1
    if last < 4:
        return False
    e = smooth[places[last - 4 : last + 1]]
    equal = abs(e[0] - e[4]) <= SHOULDERS and abs(e[1] - e[3]) <= SHOULDERS
    return equal and e[2] >= max(e[0], e[4]) + HEAD and places[last] - places[last - 4] >= FIVE_SPAN


@njit
def _twins(level, smooth, places, count, sign):
    a, b = twins(smooth, places, count, sign)
    if a < 0:
        return False
    first, last = places[a], places[b]
    if last - first < TWINS_APART or abs(smooth[first] - smooth[last]) > TWINS_EQUAL:
        return False
    mean, valley = 0.5 * (smooth[first] + smooth[last]), between(smooth, first, last, sign)
    before = between(smooth, 0, first, sign)
    # Not broken through the valley: then the pattern is behind us.
    alive = sign * (level[LAST] - valley) >= 0.0
    return alive and sign * (mean - valley) >= TWINS_DEEP and sign * (mean - before) >= TWINS_BEFORE


@njit
def _lines(level, smooth, places, count):
    """1 triangle, 2 wedge, 0 neither: lines through the last five turning points, three on one and two on the other."""
    if count < 5 or places[count - 1] - places[count - 5] < FIVE_SPAN:
        return 0
    x = places[count - 5 : count]
    e = smooth[x]
    if abs(e[2] - line_at(x[0], e[0], x[4], e[4], x[2])) > ON_LINE:
        return 0
    sign = 1.0 if e[0] > e[1] else -1.0
    width = sign * (e[0] - line_at(x[1], e[1], x[3], e[3], x[0]))
    left = sign * (e[4] - line_at(x[1], e[1], x[3], e[3], x[4]))
    if not NARROW_MIN * width <= left <= NARROW_MAX * width:
        return 0
    outer, inner = line_at(x[0], e[0], x[4], e[4], LAST), line_at(x[1], e[1], x[3], e[3], LAST)
    if not min(outer, inner) - INSIDE <= level[LAST] <= max(outer, inner) + INSIDE or sign * (outer - inner) < 0.0:
        return 0
    outer_way, inner_way = e[4] - e[0], (e[3] - e[1]) / (x[3] - x[1]) * (x[4] - x[0])
    if sign * outer_way <= FLAT and sign * inner_way >= -FLAT:
        return 1
    if outer_way * inner_way > 0.0 and min(abs(outer_way), abs(inner_way)) >= LEAN:
        return 2
    return 0


@njit
def _rest(level, begin, end, sign, pole):
    """(slope, width of the first half, of the second) of the mids after a pole, in poles; width -1: no rest at all."""
    worst, best = 0.0, sign * level[begin]
    for n in range(begin, end + 1):
        best = max(best, sign * level[n])
        worst = max(worst, best - sign * level[n])
    back = 0.0
    for n in range(end, IMAGE_MINUTES):
        back = max(back, sign * (level[end] - level[n]))
    if worst > POLE_BACK * pole or back > REST_BACK * pole:
        return 0.0, -1.0, -1.0
    count = LAST - end
    # The tip itself belongs to the pole.
    mean_x, mean_y, sxx, sxy = 0.0, 0.0, 0.0, 0.0
    for n in range(count):
        mean_x += n / count
        mean_y += level[end + 1 + n] / count
    for n in range(count):
        sxx += (n - mean_x) ** 2
        sxy += (n - mean_x) * (level[end + 1 + n] - mean_y)
    slope = sxy / sxx
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for n in range(count):
        off = level[end + 1 + n] - mean_y - slope * (n - mean_x)
        half = 0 if 2 * n < count else 1
        low[half], high[half] = min(low[half], off), max(high[half], off)
    return sign * slope * count / pole, (high[0] - low[0]) / pole, (high[1] - low[1]) / pole


@njit
def _flag_or_pennant(level):
    """1 flag, 2 pennant, 0 neither."""
    sign, begin, end = pole_of(level)
    pole = abs(level[end] - level[begin])
    if sign == 0 or pole < POLE_MIN:
        return 0
    lean, first, second = _rest(level, begin, end, sign, pole)
    if first < 0.0:
        return 0
    alike = first < 1.6 * second and second < 1.6 * first
    if FLAG_LEAN[0] <= -lean <= FLAG_LEAN[1] and max(first, second) <= FLAG_WIDTH and alike:
        return 1
    if abs(lean) <= PENNANT_LEAN and second <= PENNANT_NARROW * first:
        return 2
    return 0


@njit
def label(paths):
    """(n, 64) mids -> (n, 7) zeros and ones."""
    out = np.zeros((len(paths), len(NAMES)), np.uint8)
    level, smooth, places = np.zeros(IMAGE_MINUTES), np.zeros(IMAGE_MINUTES), np.zeros(IMAGE_MINUTES, np.int64)
    for w in range(len(paths)):
        if not scale(paths[w], level):
            continue
        smoothed(level, smooth)
        count = turns(smooth, places)
        out[w, HEAD_AND_SHOULDERS] = _head_and_shoulders(smooth, places, count)
        out[w, DOUBLE_TOP] = _twins(level, smooth, places, count, 1)
        out[w, DOUBLE_BOTTOM] = _twins(level, smooth, places, count, -1)
        lines, rest = _lines(level, smooth, places, count), _flag_or_pennant(level)
        out[w, TRIANGLE], out[w, WEDGE] = lines == 1, lines == 2
        out[w, FLAG], out[w, PENNANT] = rest == 1, rest == 2
    return out


@njit
def shapes(paths):
    """(n, 64) mids -> (n, 7, 3): each pattern's way, height in price and span in minutes, as an answer has them."""
    out = np.zeros((len(paths), len(NAMES), 3))
    level, smooth, places = np.zeros(IMAGE_MINUTES), np.zeros(IMAGE_MINUTES), np.zeros(IMAGE_MINUTES, np.int64)
    for w in range(len(paths)):
        scale(paths[w], level)
        smoothed(level, smooth)
        count = turns(smooth, places)
        for kind in range(len(NAMES)):
            way, height, span = shape_of(kind, level, smooth, places, count)
            out[w, kind, 0] = way
            out[w, kind, 1] = height * (paths[w].max() - paths[w].min())
            out[w, kind, 2] = span
    return out

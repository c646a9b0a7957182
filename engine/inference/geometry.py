"""Where a chart pattern stands in 64 closed minutes: its turning points, its way, its height, its span.

Owns the geometry that the patterns' rules, their targets and their completion times share; run by
workers for the patterns that are shown, and by training for every window. Reads a path of mids, writes
a few numbers. What must stay true: nothing outside of the window is seen, smoothing included; nothing
depends on the price or the volatility, because everything is a share of the window's range.

Smoothing by kernel regression, and turning points of the smoothed path: Lo, Mamaysky and Wang,
Foundations of Technical Analysis, Journal of Finance 55 (2000), section II.A. They smooth by
cross-validation, which on a random walk hardly smooths at all; here the bandwidth is fixed, and a leg
must measure a tenth of the range. Heights as in Bulkowski, Encyclopedia of Chart Patterns, 2nd ed.
(2005), where each chapter has its "measure rule".
"""

import math

import numpy as np

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.jit import kernel

HEAD_AND_SHOULDERS, DOUBLE_TOP, DOUBLE_BOTTOM, TRIANGLE, FLAG, PENNANT, WEDGE = range(7)
BANDWIDTH = 2.0  # steps, standard deviation of the kernel
REACH = 8
WEIGHTS = np.exp(-0.5 * (np.arange(REACH + 1) / BANDWIDTH) ** 2)
LEG = 0.1  # of the range: a smaller move turns nothing
AGE_MIN = 3  # steps since the last turning point: a younger one may yet move
POLE = 16  # steps at most, of the move that a flag hangs on
REST_MIN, REST_MAX = 8, 24  # steps since that move
HEIGHT_FOUND_NONE, SPAN_FOUND_NONE = 0.5, 16.0  # where no shape is found to measure
SPAN_MIN, SPAN_MAX = 5.0, 60.0  # minutes to completion
CLOSES_ONLY = 0.5826  # standard deviations of one minute
NEAR = 0.3  # of a walk's spread: no target is taken to be nearer
TERMS = 12
RARE = 1e-6
LAST = IMAGE_MINUTES - 1


@kernel
def scale(path, level):
    """The path as shares of its range, 0 at the lowest mid, 1 at the highest. False: it has none."""
    low, high = path[0], path[0]
    for n in range(IMAGE_MINUTES):
        low, high = min(low, path[n]), max(high, path[n])
    if not high > low:
        level[:] = 0.5
        return False
    for n in range(IMAGE_MINUTES):
        level[n] = (path[n] - low) / (high - low)
    return True


@kernel
def smoothed(level, smooth):
    """Nadaraya and Watson's regression inside the window, weights renormalized at its ends."""
    for n in range(IMAGE_MINUTES):
        total = weights = 0.0
        for m in range(max(0, n - REACH), min(IMAGE_MINUTES, n + REACH + 1)):
            weight = WEIGHTS[abs(n - m)]
            total += weight * level[m]
            weights += weight
        smooth[n] = total / weights


@kernel
def turns(smooth, places):
    """Tops and bottoms in turn, oldest first; a leg between two is at least LEG. Returns how many."""
    count = 0
    way = 0
    top = bottom = 0
    for n in range(1, IMAGE_MINUTES):
        if smooth[n] > smooth[top]:
            top = n
        if smooth[n] < smooth[bottom]:
            bottom = n
        if way >= 0 and smooth[top] - smooth[n] >= LEG:
            if top > 0:
                places[count] = top
                count += 1
            way, bottom, top = -1, n, n
        elif way <= 0 and smooth[n] - smooth[bottom] >= LEG:
            if bottom > 0:
                places[count] = bottom
                count += 1
            way, bottom, top = 1, n, n
    if count > 0 and places[count - 1] > LAST - AGE_MIN:
        count -= 1
    return count


@kernel
def line_at(x1, y1, x2, y2, x):
    return y1 + (y2 - y1) * (x - x1) / (x2 - x1)


@kernel
def twins(smooth, places, count, sign):
    """Places of two tops (sign 1) or bottoms (-1): the last one, and the farthest out among those before it."""
    last = -1
    for k in range(count - 1, 0, -1):
        if sign * (smooth[places[k]] - smooth[places[k - 1]]) > 0.0:
            last = k
            break
    best = -1
    for k in range(last - 2, -1, -2):
        if best < 0 or sign * smooth[places[k]] > sign * smooth[places[best]]:
            best = k
    return best, last


@kernel
def between(smooth, first, last, sign):
    """The lowest (sign 1) or highest (-1) level between two places."""
    out = smooth[first]
    for n in range(first, last + 1):
        if sign * smooth[n] < sign * out:
            out = smooth[n]
    return out


@kernel
def pole_of(level):
    """A steep move up to the window's highest mid (or down to its lowest): its way, begin and end; way 0: none."""
    for sign in (1, -1):
        end = 0
        for n in range(IMAGE_MINUTES):
            if sign * level[n] >= sign * level[end]:
                end = n
        if REST_MIN <= LAST - end <= REST_MAX:
            begin = end
            for n in range(max(end - POLE, 0), end):
                if sign * level[n] < sign * level[begin]:
                    begin = n
            if abs(level[end] - level[begin]) >= 0.5:
                return sign, begin, end
    return 0, 0, 0


@kernel
def measure(kind, level, smooth, places, count):
    """(way, height, span) of one pattern: +1 or -1, share of the range, minutes; way 0 where it is not found."""
    if kind in (FLAG, PENNANT):
        sign, begin, end = pole_of(level)
        if sign != 0:
            return sign, abs(level[end] - level[begin]), float(LAST - begin)
    elif kind in (DOUBLE_TOP, DOUBLE_BOTTOM):
        sign = 1 if kind == DOUBLE_TOP else -1
        a, b = twins(smooth, places, count, sign)
        if a >= 0:
            first, last = places[a], places[b]
            depth = abs(0.5 * (smooth[first] + smooth[last]) - between(smooth, first, last, sign))
            return -sign, depth, float(last - first)
    elif kind == HEAD_AND_SHOULDERS:
        last = count - 1
        if last > 0 and smooth[places[last]] < smooth[places[last - 1]]:
            last -= 1
        if last >= 4:
            neck = 0.5 * (smooth[places[last - 3]] + smooth[places[last - 1]])
            return -1, abs(smooth[places[last - 2]] - neck), float(places[last] - places[last - 4])
    elif count >= 5:
        first, last = places[count - 5], places[count - 1]
        y1, y5 = smooth[first], smooth[last]
        y2, y4 = smooth[places[count - 4]], smooth[places[count - 2]]
        height = abs(y1 - line_at(places[count - 4], y2, places[count - 2], y4, first))
        # A wedge against its own slope, a triangle as the market came into it.
        up = (y5 - y1) + (y4 - y2) < 0.0 if kind == WEDGE else y1 > level[0]
        way = 1 if up else -1
        return way, max(height, LEG), float(last - first)
    return 0, HEIGHT_FOUND_NONE, SPAN_FOUND_NONE


@kernel
def shape_of(kind, level, smooth, places, count):
    """As `measure`, within bounds, and with a way even where no shape was found: each kind's own, or the drift."""
    way, height, span = measure(kind, level, smooth, places, count)
    if way == 0:
        drift = 1 if level[LAST] >= level[0] else -1
        if kind in (HEAD_AND_SHOULDERS, DOUBLE_TOP):
            way = -1
        elif kind == DOUBLE_BOTTOM:
            way = 1
        else:
            way = -drift if kind == WEDGE else drift
    return way, max(height, LEG), min(max(span, SPAN_MIN), SPAN_MAX)


@kernel
def walk_odds(height, span, mid, sigma):
    """Log odds that a random walk of this volatility touches the target before its mirror image and before completion.

    Half the chance that it leaves (-z, z) within a time of 1, by reflection: 4 (Q(z) - Q(3 z) + Q(5 z) - ...) with the
    normal tail Q. Only closes count, which puts both bounds 0.5826 steps' spreads farther off: Broadie, Glasserman and
    Kou, A continuity correction for discrete barrier options, Mathematical Finance 7 (1997).
    """
    z = max((height / (1e-4 * sigma * mid) + CLOSES_ONLY) / math.sqrt(span), NEAR)
    leaves, sign = 0.0, 2.0
    for k in range(TERMS):
        leaves += sign * math.erfc((2 * k + 1) * z / math.sqrt(2.0))
        sign = -sign
    half = min(max(0.5 * leaves, RARE), 0.5)
    return math.log(half / (1.0 - half))


@kernel
def touch_chance(bias, slope, height, span, mid, sigma):
    """Of touching the target in time and before the mirror stop: a walk's odds, as a manifest corrects them."""
    return 1.0 / (1.0 + math.exp(-(bias + slope * walk_odds(height, span, mid, sigma))))

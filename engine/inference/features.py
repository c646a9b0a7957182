"""What is computed of one minute from the minutes before it: volatility, indicators, trend, features.

Owns the formulas; run by workers on live windows and by training on whole files, the same machine
code for both. Reads a key's window, writes one entry of it. What must stay true: an entry depends on
itself and the `depth` entries before it, never on a later one; nothing here knows a price scale.
"""

import math

import numpy as np

from engine.inference.jit import kernel
from fastpath import layout

MASK = layout.window - 1
FEATURES = layout.features
FEATURE_NAMES = (
    "move_1",  # of this minute, in standard deviations of a walk with the key's volatility
    "move_5",
    "move_15",
    "move_60",
    "place_15",  # of the mid between the lowest (-1) and the highest (+1) closed mid of 15 minutes
    "range_15",  # highest to lowest closed mid, in standard deviations
    "range_60",
    "volatility_ratio",  # log of the last 15 minutes' volatility over that of the whole window
    "sma_20_gap",  # mid to indicator, in standard deviations
    "ema_12_gap",
    "ema_26_gap",
    "macd",
    "rsi_14",  # -1 to 1
    "atr",  # log of it over the volatility
    "spread",  # log of one and the spread over the volatility; -1: unknown
    "gap",  # log of one and the minutes since the last closed one with a quote; -1: this minute has none
)
assert len(FEATURE_NAMES) == FEATURES

HALF_LIFE = 60.0  # steps
SPAN_MAX = 5  # a return over more minutes says nothing about one
PRIOR_SIGMA = 2.0  # bp a square root of a minute ...
PRIOR_WEIGHT = 5.0  # ... with the weight of this many minutes
SIGMA_MIN = 0.05
SHORT = 15
LONG = 60
TREND_MINUTES = 20
MINUTE_NS = 60_000_000_000
GAP = FEATURE_NAMES.index("gap")
BOUND = 12.0  # of any feature: beyond, a number says "far" and no more


@kernel
def sigma_of(entries, step, depth, newest):
    """Volatility in bp from the `newest` youngest of the `depth` closed minutes before `step`."""
    total = PRIOR_WEIGHT * PRIOR_SIGMA * PRIOR_SIGMA
    weights = PRIOR_WEIGHT
    for age in range(min(depth, newest)):
        entry = entries[(step - 1 - age) & MASK]
        if entry.masked == 0 and 1 <= entry.span <= SPAN_MAX:
            weight = 2.0 ** (-age / HALF_LIFE)
            total += weight * entry.move * entry.move / entry.span
            weights += weight
    return max(math.sqrt(total / weights), SIGMA_MIN)


@kernel
def indicators_of(entries, step, depth, out):
    """sma_20, ema_12, ema_26, macd, Wilder's rsi_14 and atr of the closed mids kept; NaN without any."""
    out[:] = np.nan
    if depth == 0:
        return
    last = entries[(step - depth) & MASK].mid
    fast = slow = last
    gain = loss = 0.0
    for n in range(1, depth):
        mid = entries[(step - depth + n) & MASK].mid
        fast += (mid - fast) * (2.0 / 13.0)
        slow += (mid - slow) * (2.0 / 27.0)
        # Wilder: a plain mean of the first 14 changes, then each new one has a fourteenth.
        share = 1.0 / min(n, 14)
        change = mid - last
        gain += (max(change, 0.0) - gain) * share
        loss += (max(-change, 0.0) - loss) * share
        last = mid
    count = min(depth, 20)
    total = 0.0
    for age in range(count):
        total += entries[(step - 1 - age) & MASK].mid
    out[0] = total / count
    out[1] = fast
    out[2] = slow
    out[3] = fast - slow
    out[4] = 50.0 if gain + loss == 0.0 else 100.0 * gain / (gain + loss)
    out[5] = gain + loss  # of mids alone, the true range of a minute is the size of its change


@kernel
def _rank(values, count, rank):
    """The value that would stand at `rank` after sorting; reorders `values` (quickselect)."""
    low, high = 0, count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]


@kernel
def trend_of(entries, step, depth, sigma, scratch):
    """Theil and Sen's slope of the last closed mids, over the spread that it has on a walk without a trend.

    The median slope of all pairs of n points of a random walk scatters with about 1.1 sigma / sqrt(n).
    """
    points = min(depth, TREND_MINUTES)
    if points < 3:
        return 0.0
    pairs = 0
    for a in range(points):
        older = entries[(step - points + a) & MASK]
        if older.masked != 0:
            continue
        for b in range(a + 1, points):
            newer = entries[(step - points + b) & MASK]
            if newer.masked == 0:
                scratch[pairs] = 1e4 * math.log(newer.mid / older.mid) / (newer.minute - older.minute)
                pairs += 1
    if pairs == 0:
        return 0.0
    return _rank(scratch, pairs, pairs // 2) * math.sqrt(points) / (1.1 * sigma)


@kernel
def settle(entries, step, depth, entry, scratch):
    """What holds for a whole minute: volatility, indicators and trend of the closed ones before it."""
    entry.sigma = sigma_of(entries, step, depth, depth)
    indicators_of(entries, step, depth, entry.indicators)
    entry.trend = trend_of(entries, step, depth, entry.sigma, scratch)


@kernel
def _bounded(value):
    return min(max(value, -BOUND), BOUND)


@kernel
def _scaled_move(entries, step, depth, mid, sigma, minutes):
    """Move over some minutes, or over as many as there are, in standard deviations."""
    back = min(minutes, depth)
    if back == 0:
        return 0.0
    return _bounded(1e4 * math.log(mid / entries[(step - back) & MASK].mid) / (sigma * math.sqrt(back)))


@kernel
def _closed_range(entries, step, depth, minutes):
    low, high = np.inf, -np.inf
    for age in range(min(minutes, depth)):
        mid = entries[(step - 1 - age) & MASK].mid
        low, high = min(low, mid), max(high, mid)
    return low, high


@kernel
def _gap(mid, indicator, sigma, minutes):
    if not (indicator > 0.0):  # NaN too
        return 0.0
    return _bounded(1e4 * math.log(mid / indicator) / (sigma * math.sqrt(minutes)))


@kernel
def _indicator(given, own, k):
    return given[k] if math.isfinite(given[k]) else own[k]


@kernel
def observe(entries, step, depth, entry, given):
    """The feature row of a minute with the mid it has now; `given` are the producer's indicators."""
    mid, sigma, row, own = entry.mid, entry.sigma, entry.row, entry.indicators
    entry.move = 0.0 if depth == 0 else 1e4 * math.log(mid / entries[(step - 1) & MASK].mid)
    row[0] = _bounded(entry.move / (sigma * math.sqrt(max(entry.span, 1))))
    row[1] = _scaled_move(entries, step, depth, mid, sigma, 5)
    row[2] = _scaled_move(entries, step, depth, mid, sigma, SHORT)
    row[3] = _scaled_move(entries, step, depth, mid, sigma, LONG)
    low, high = _closed_range(entries, step, depth, SHORT)
    row[4] = _bounded((2.0 * mid - low - high) / (high - low)) if high > low else 0.0
    row[5] = _bounded(1e4 * math.log(high / low) / (sigma * math.sqrt(SHORT))) if high > low else 0.0
    low, high = _closed_range(entries, step, depth, LONG)
    row[6] = _bounded(1e4 * math.log(high / low) / (sigma * math.sqrt(LONG))) if high > low else 0.0
    row[7] = math.log(sigma_of(entries, step, depth, SHORT) / sigma)
    row[8] = _gap(mid, _indicator(given, own, 0), sigma, 20.0)
    row[9] = _gap(mid, _indicator(given, own, 1), sigma, 12.0)
    row[10] = _gap(mid, _indicator(given, own, 2), sigma, 26.0)
    macd, rsi, atr = _indicator(given, own, 3), _indicator(given, own, 4), _indicator(given, own, 5)
    row[11] = _bounded(1e4 * macd / (mid * sigma * math.sqrt(26.0))) if math.isfinite(macd) else 0.0
    row[12] = min(max(rsi / 50.0 - 1.0, -1.0), 1.0) if math.isfinite(rsi) else 0.0
    # A flat market's range is nil; a hundredth of the volatility stands for it.
    row[13] = _bounded(math.log(max(1e4 * atr / (mid * sigma), 0.01))) if math.isfinite(atr) else 0.0
    row[14] = _bounded(math.log1p(1e4 * entry.spread / (mid * sigma))) if entry.spread > 0.0 else -1.0
    row[15] = -1.0 if entry.masked != 0 else math.log1p(max(entry.span, 1))  # as of the minute's end


@kernel
def show_time(entry, event_ns):
    """The row of the open minute as its vector sees it: only a share of the minute has passed.

    For the copy that models read; in the window a minute's row is that of its end, whenever its last vector came.
    """
    share = min(max((event_ns - entry.minute * MINUTE_NS) / MINUTE_NS, 0.0), 1.0)
    entry.row[GAP] = math.log1p(max(entry.span, 1) - 1.0 + share)

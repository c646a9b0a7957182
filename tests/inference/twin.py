"""Plain NumPy versions of the feature formulas, written from their definitions, as oracles.

They take the closed mids before a minute (oldest first), which of them are masked, their minutes, and
know nothing of windows, entries or steps.
"""

import math

import numpy as np


def moves_and_spans(mids: np.ndarray, minutes: np.ndarray, masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return in bp and minutes since the last unmasked minute; 0 minutes where there is none."""
    moves = np.concatenate([[0.0], 1e4 * np.log(mids[1:] / mids[:-1])])
    spans = np.zeros(len(mids), int)
    for n in range(1, len(mids)):
        before = np.flatnonzero(~masked[:n])
        if len(before):
            spans[n] = minutes[n] - minutes[before[-1]]
    return moves, spans


def sigma(moves: np.ndarray, spans: np.ndarray, masked: np.ndarray, newest: int = 240) -> float:
    """Exponentially weighted, half-life 60 steps, prior of 2 bp with the weight of 5 minutes, floor 0.05."""
    age = np.arange(len(moves))[::-1]
    use = (age < newest) & ~masked & (spans >= 1) & (spans <= 5)
    weight = 0.5 ** (age[use] / 60.0)
    variance = (5.0 * 4.0 + (weight * moves[use] ** 2 / spans[use]).sum()) / (5.0 + weight.sum())
    return max(math.sqrt(variance), 0.05)


def ema(mids: np.ndarray, minutes: int) -> float:
    value = mids[0]
    for mid in mids[1:]:
        value += 2.0 / (minutes + 1.0) * (mid - value)
    return float(value)


def wilder(values: np.ndarray, minutes: int = 14) -> float:
    """The mean of the first ones, then each new one counts a fourteenth."""
    if len(values) <= minutes:
        return float(values.mean()) if len(values) else 0.0
    value = values[:minutes].mean()
    for each in values[minutes:]:
        value = (value * (minutes - 1) + each) / minutes
    return float(value)


def indicators(mids: np.ndarray) -> np.ndarray:
    changes = np.diff(mids)
    gain, loss = wilder(np.maximum(changes, 0.0)), wilder(np.maximum(-changes, 0.0))
    rsi = 50.0 if gain + loss == 0.0 else 100.0 - 100.0 / (1.0 + gain / loss) if loss > 0.0 else 100.0
    fast, slow = ema(mids, 12), ema(mids, 26)
    return np.array([mids[-20:].mean(), fast, slow, fast - slow, rsi, wilder(np.abs(changes))])


def trend(mids: np.ndarray, minutes: np.ndarray, masked: np.ndarray, volatility: float) -> float:
    """Theil and Sen over the last 20 closed minutes."""
    points = min(len(mids), 20)
    if points < 3:
        return 0.0
    mid, minute = mids[-points:][~masked[-points:]], minutes[-points:][~masked[-points:]]
    slopes = sorted(
        1e4 * math.log(mid[b] / mid[a]) / (minute[b] - minute[a])
        for a in range(len(mid))
        for b in range(a + 1, len(mid))
    )
    return slopes[len(slopes) // 2] * math.sqrt(points) / (1.1 * volatility) if slopes else 0.0


def row(
    closed: tuple[np.ndarray, np.ndarray, np.ndarray],
    returns: tuple[np.ndarray, np.ndarray],
    mid: float,
    minute: int,
    spread: float,
) -> np.ndarray:
    """The 16 features of a minute with a quote, whose mid is `mid`.

    closed: mids, minutes, masked of the minutes before it; returns: their moves and spans.
    """
    mids, minutes, masked = closed
    moves, spans = returns
    s = sigma(moves, spans, masked)
    sd = s * 1e-4
    span = minute - minutes[np.flatnonzero(~masked)[-1]]

    def move(back: int) -> float:
        back = min(back, len(mids))
        return math.log(mid / mids[-back]) / (sd * math.sqrt(back))

    def spanned(back: int) -> float:
        return math.log(mids[-back:].max() / mids[-back:].min()) / (sd * math.sqrt(back))

    low, high = mids[-15:].min(), mids[-15:].max()
    sma, fast, slow, macd, rsi, atr = indicators(mids)
    out = [
        math.log(mid / mids[-1]) / (sd * math.sqrt(span)),
        move(5),
        move(15),
        move(60),
        (2 * mid - low - high) / (high - low),
        spanned(15),
        math.log(mids[-60:].max() / mids[-60:].min()) / (sd * math.sqrt(60)),
        math.log(sigma(moves, spans, masked, 15) / s),
        math.log(mid / sma) / (sd * math.sqrt(20)),
        math.log(mid / fast) / (sd * math.sqrt(12)),
        math.log(mid / slow) / (sd * math.sqrt(26)),
        macd / (mid * sd * math.sqrt(26)),
        rsi / 50 - 1,
        math.log(max(atr / (mid * sd), 0.01)),
        math.log1p(spread / (mid * sd)) if spread > 0 else -1.0,
        math.log1p(span),
    ]
    out[:12] = np.clip(out[:12], -12, 12)
    return np.array(out, "f4")

"""Technical indicators of closed one-minute mids, the plain textbook way.

Owns the formulas that `feed --indicators` sends along; a producer's process runs it. The engine
computes its own where they are left out. What must stay true: only closed minutes go in, and an
indicator whose first value needs more of them than there are is left out.
"""

from collections.abc import Sequence
from itertools import pairwise

from engine.contract.ml.feature_vectors_pb2 import TechnicalIndicators


def sma(values: Sequence[float], count: int) -> float | None:
    """Mean of the last `count`.

    >>> sma([1.0, 2.0, 3.0, 5.0], 2)
    4.0
    """
    return sum(values[-count:]) / count if len(values) >= count else None


def ema(values: Sequence[float], count: int) -> float | None:
    """Exponential mean with weight 2 / (count + 1), begun with the oldest value.

    >>> ema([1.0, 2.0, 4.0], 3)
    2.75
    """
    if len(values) < count:
        return None
    weight, mean = 2.0 / (count + 1), values[0]
    for value in values[1:]:
        mean += weight * (value - mean)
    return mean


def wilder(values: Sequence[float], count: int) -> float | None:
    """Wilder's smoothing: the mean of the first `count`, then weight 1 / count.

    >>> wilder([1.0, 3.0, 4.0], 2)
    3.0
    """
    if len(values) < count:
        return None
    mean = sum(values[:count]) / count
    for value in values[count:]:
        mean += (value - mean) / count
    return mean


def rsi(values: Sequence[float], count: int = 14) -> float | None:
    """Wilder's relative strength, 0 to 100; 50 where nothing moved.

    >>> rsi([1.0, 2.0, 1.0, 2.0, 3.0], 2)
    87.5
    """
    moves = [b - a for a, b in pairwise(values)]
    gain = wilder([max(move, 0.0) for move in moves], count)
    loss = wilder([max(-move, 0.0) for move in moves], count)
    if gain is None or loss is None:
        return None
    return 100.0 * gain / (gain + loss) if gain + loss > 0 else 50.0


def atr(values: Sequence[float], count: int = 14) -> float | None:
    """Wilder's average true range; of mids alone a minute's range is its move.

    >>> atr([1.0, 2.0, 1.5, 1.5], 2)
    0.375
    """
    return wilder([abs(b - a) for a, b in pairwise(values)], count)


def fill(message: TechnicalIndicators, mids: Sequence[float]) -> None:
    """Sets whatever `mids`, one a closed minute, oldest first, are enough for."""
    short, long = ema(mids, 12), ema(mids, 26)
    values = (
        (message.trend, "sma_20", sma(mids, 20)),
        (message.trend, "ema_12", short),
        (message.trend, "ema_26", long),
        (message.trend, "macd", short - long if short is not None and long is not None else None),
        (message.momentum, "rsi_14", rsi(mids)),
        (message.volatility, "atr", atr(mids)),
    )
    for part, name, value in values:
        if value is not None:
            setattr(part, name, value)

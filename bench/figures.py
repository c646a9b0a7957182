"""Percentiles, ratios and noise bands: what is said of measured latencies, and when nothing may be said.

Owns the arithmetic; pure functions over lists of nanoseconds. What must stay true: a percentile is an
observed value (nearest rank), and is left out where too few observations lie beyond it to mean
anything; a ratio is of medians within one round, so that a slow minute of the host is in both parts.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
BEYOND_MIN = 5  # observations above a percentile, for it to be printed


class Summary(NamedTuple):
    """Of one contender under one load; None: too few observations."""

    messages: int
    percentiles_ns: Mapping[float, int | None]
    max_ns: int


class Ratio(NamedTuple):
    """One contender's median over another's, round by round."""

    middle: float
    low: float
    high: float
    rounds: int


def percentile(ordered: Sequence[int], percent: float) -> int | None:
    """The nearest rank's value, None where fewer than `BEYOND_MIN` lie beyond it.

    >>> percentile(range(1, 1001), 99.0)
    990
    >>> percentile(range(1, 401), 99.0) is None
    True
    """
    rank = math.ceil(round(len(ordered) * percent / 100.0, 6))
    if len(ordered) - rank < BEYOND_MIN:
        return None
    return ordered[rank - 1]


def summarise(latencies_ns: Sequence[int]) -> Summary:
    """Of at least one latency."""
    ordered = sorted(latencies_ns)
    return Summary(len(ordered), {percent: percentile(ordered, percent) for percent in PERCENTILES}, ordered[-1])


def ratio(
    over: Sequence[Sequence[int]],
    under: Sequence[Sequence[int]],
    of: Callable[[Sequence[int]], float] = median,
) -> Ratio:
    """Ratio of each round's medians, or of what else is taken `of` them: the middle one, the lowest, the highest.

    >>> ratio([[2, 4, 6], [9]], [[2], [3]])
    Ratio(middle=2.5, low=2.0, high=3.0, rounds=2)
    """
    each = [of(a) / of(b) for a, b in zip(over, under, strict=True) if a and b]
    if not each:
        raise ValueError("expected at least one round in which both contenders answered, found none; measure longer")
    return Ratio(median(each), min(each), max(each), len(each))


def told_apart(found: Ratio, same: Ratio) -> bool:
    """Whether a ratio lies outside of what two equal contenders showed in the same run.

    >>> told_apart(Ratio(1.5, 1.4, 1.6, 9), Ratio(1.0, 0.8, 1.2, 9))
    True
    >>> told_apart(Ratio(1.1, 1.0, 1.2, 9), Ratio(1.0, 0.8, 1.2, 9))
    False
    """
    return not same.low <= found.middle <= same.high


def timed(function: Callable[..., object], *arguments: object) -> int:
    """How long one call takes, in nanoseconds."""
    began = time.perf_counter_ns()
    function(*arguments)
    return time.perf_counter_ns() - began


def microseconds(value_ns: float | None) -> str:
    return "-" if value_ns is None else f"{value_ns / 1e3:.2f}"


def milliseconds(value_ns: int | None) -> str:
    """Three digits that mean something.

    >>> milliseconds(1_234_567), milliseconds(98_765), milliseconds(None)
    ('1.23', '0.0988', '-')
    """
    if value_ns is None:
        return "-"
    value = value_ns / 1e6
    digits = 2 if value <= 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{min(digits, 4)}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell: the first to the left, numbers to the right.

    >>> print(table(("who", "ms"), [("echo", "0.1")]))
    who    ms
    echo  0.1
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(wide) if n == 0 else cell.rjust(wide)
            for n, (cell, wide) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join(line(row) for row in (head, *rows))

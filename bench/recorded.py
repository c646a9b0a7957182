"""Latencies by the hundred thousand: counted in the engine's own histograms instead of kept one by one.

Owns the way from nanoseconds to a row and from rows to what is said of them; run by a benchmark's processes. What
must stay true: a percentile is left out where too few observations lie beyond it, as in `bench.figures`; the largest
value is exact, all others to one part in 64.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.figures import BEYOND_MIN, PERCENTILES, Summary
from fastpath.histogram import Histogram, bucket_bounds, quantiles
from fastpath.layout import histogram_row_dtype

Row = NDArray[Any]


def row_of(latencies_ns: Iterable[int]) -> Row:
    row = np.zeros(1, histogram_row_dtype)
    histogram = Histogram(row)
    for each in latencies_ns:
        histogram.record(each)
    return row


def middle_ns(row: Row) -> float:
    return quantiles(row, [0.5])[0]


def summary(rows: Row) -> Summary:
    """Of all rows together.

    >>> summary(row_of(range(1, 64))).percentiles_ns[50.0], summary(row_of([10, 70_000])).max_ns
    (32, 70000)
    """
    count = int(rows["buckets"].sum())
    found: dict[float, int | None] = {}
    for percent in PERCENTILES:
        rank = math.ceil(round(count * percent / 100.0, 6))  # nearest rank, as bench.figures has it
        beyond = count - rank
        found[percent] = round(quantiles(rows, [(rank - 0.5) / count])[0]) if beyond >= BEYOND_MIN else None
    return Summary(count, found, int(rows["max_ns"].max()))


def as_json(rows: Row) -> dict[str, Any]:
    told = summary(rows)
    counts = rows["buckets"].reshape(-1, rows["buckets"].shape[-1]).sum(axis=0)
    bounds = bucket_bounds()
    return {
        "count": told.messages,
        **{f"p{percent:g}_ns": value for percent, value in told.percentiles_ns.items()},
        "max_ns": told.max_ns,
        "buckets": [[int(bounds[at]), int(counts[at])] for at in np.flatnonzero(counts)],
    }

"""Promises of the histograms: against NumPy's percentiles, and at the edges of buckets."""

import doctest
import random

import numpy as np
import pytest
from texts import whole

import fastpath.histogram as histogram_module
from fastpath.histogram import Histogram, bucket_bounds, quantiles
from fastpath.layout import buckets, histogram_row_dtype

QS = (0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0)


def recorded(values: "np.ndarray | list[int]") -> np.ndarray:
    row = np.zeros(1, histogram_row_dtype)
    histogram = Histogram(row)
    for value in values:
        histogram.record(int(value))
    return row


def bucket_of(value: int) -> int:
    return int(np.flatnonzero(recorded([value])["buckets"][0])[0])


@pytest.mark.parametrize("scale_ns", [30, 5_000, 800_000, 90_000_000, 5_000_000_000])
def test_quantiles_are_numpys_to_one_part_in_128(randomness: random.Random, scale_ns: int) -> None:
    generator = np.random.default_rng(randomness.getrandbits(32))
    values = generator.lognormal(np.log(scale_ns), 1.5, 20_000).astype(np.int64)
    expected = np.quantile(values, QS, method="inverted_cdf")
    found = quantiles(recorded(values), QS)
    # Half of a bucket: at most one part in 128 of the value, or half a nanosecond.
    assert np.all(np.abs(found - expected) <= np.maximum(expected / 128, 0.5)), (found, expected)


def test_rows_are_summed() -> None:
    rows = np.concatenate([recorded([10] * 3), recorded([50] * 7)])
    assert quantiles(rows, [0.3, 0.31, 1.0]) == [10.0, 50.0, 50.0]
    assert quantiles(rows.reshape(2, 1), [0.3]) == [10.0]


def test_row_without_records_has_no_quantiles() -> None:
    assert np.isnan(quantiles(recorded([]), [0.5, 0.99])).all()


def test_every_bucket_holds_what_its_bounds_say() -> None:
    upper = bucket_bounds()
    assert upper.shape == (buckets,)
    assert upper[-1] == 2**43 - 1
    lower = np.concatenate([np.zeros(1, np.uint64), upper[:-1] + np.uint64(1)])
    row = recorded(np.concatenate([lower, upper]))
    assert row["buckets"].tolist() == [[2] * buckets]
    # Above the linear ones no bucket is wider than one part in 64 of what it holds.
    widths = (upper - lower + np.uint64(1)).astype(np.float64)
    assert np.all(widths[64:] / lower[64:] <= 1 / 64)
    assert np.all(widths[:128] == 1)


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (-5, 0),
        (0, 0),
        (63, 63),
        (64, 64),
        (127, 127),
        (128, 128),
        (129, 128),
        (130, 129),
        (2**43, 2431),
        (2**63 - 1, 2431),
    ],
)
def test_edges(ns: int, bucket: int) -> None:
    assert bucket_of(ns) == bucket


def test_count_sum_and_largest_are_kept() -> None:
    row = recorded([5, 1_000, -3, 200])
    assert (row["count"][0], row["sum_ns"][0], row["max_ns"][0]) == (4, 1_205, 1_000)


def test_history_continues_in_a_successor() -> None:
    row = recorded([7])
    Histogram(row).record(7)
    assert row["count"][0] == 2


def test_example_in_the_documentation_is_true() -> None:
    assert doctest.testmod(histogram_module).failed == 0
    assert doctest.testmod(histogram_module).attempted > 0


def test_other_memory_is_refused() -> None:
    expected = whole("a histogram needs one row of 19488 bytes, found 38976 bytes")
    with pytest.raises(ValueError, match=expected):
        Histogram(np.zeros(2, histogram_row_dtype))

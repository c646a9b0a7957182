"""Latency histograms after HdrHistogram: counts by size, exact to one part in 64 at any size.

A process records into its own rows of the shared file; control reads all rows whenever it likes.

What must stay true: a row has one writer. A reader may find a row between two stores, so sums over
rows take the buckets alone as the truth; `count`, `sum_ns` and `max_ns` may be one record apart.

Values below 64 ns have a bucket each; above, each octave is cut into 64. The last bucket, from about
two hours and a quarter, also holds everything larger.
"""

from libc.stdint cimport int64_t, uint64_t

from fastpath.items cimport items_address
from fastpath.layout cimport BUCKETS, histogram_row

import numpy as np


cdef extern from * nogil:
    int leading_zeros "__builtin_clzll" (unsigned long long) noexcept



cdef inline int _bucket(uint64_t ns) noexcept nogil:
    cdef int octave
    cdef uint64_t index
    if ns < 64:
        return <int> ns
    octave = 63 - leading_zeros(ns) - 6     # 0: values of 64 to 127
    index = 64 * <uint64_t> octave + (ns >> octave)
    return <int> index if index < BUCKETS else BUCKETS - 1


cdef class Histogram:
    """The writer's side of one row.

    Parameters
    ----------
    row: array of one histogram_row
    """

    cdef object row
    cdef histogram_row *words

    def __cinit__(self, row):
        cdef uint64_t size = 0
        cdef uint64_t address = items_address(row, 1, "a histogram", True, &size)
        if size != sizeof(histogram_row):
            raise ValueError(f"a histogram needs one row of {sizeof(histogram_row)} bytes, found {size} bytes")
        self.row = row
        self.words = <histogram_row *> address

    def record(self, int64_t ns):
        """Counts one duration; a negative one counts as 0."""
        cdef uint64_t value = <uint64_t> ns if ns > 0 else 0
        self.words.buckets[_bucket(value)] += 1
        self.words.count += 1
        self.words.sum_ns += value
        if value > self.words.max_ns:
            self.words.max_ns = value


def bucket_bounds():
    """The largest number of nanoseconds in each bucket, shape (BUCKETS,), uint64."""
    index = np.arange(BUCKETS, dtype=np.uint64)
    octave = np.maximum(index // np.uint64(64), np.uint64(1)) - np.uint64(1)
    within = index - np.uint64(64) * octave
    return ((within + np.uint64(1)) << octave) - np.uint64(1)


def _midpoints():
    upper = bucket_bounds().astype(np.float64)
    lower = np.concatenate([[0.0], upper[:-1] + 1.0])
    return (lower + upper) / 2


def quantiles(rows, qs):
    """Quantiles in nanoseconds over the sum of rows.

    Parameters
    ----------
    rows: array of histogram_row, any shape
    qs: numbers from 0 to 1

    Returns
    -------
    For each q the middle of the bucket that holds the value of rank ceil(q n); NaN of empty rows.

    >>> import numpy as np
    >>> from fastpath.layout import histogram_row_dtype
    >>> row = np.zeros(1, histogram_row_dtype)
    >>> histogram = Histogram(row)
    >>> for ns in (10, 20, 30, 1000): histogram.record(ns)
    >>> quantiles(row, [0.5, 1.0])
    [20.0, 1003.5]
    """
    counts = np.asarray(rows)["buckets"].reshape(-1, BUCKETS).sum(axis=0)
    total = int(counts.sum())
    if total == 0:
        return [float("nan")] * len(qs)
    ranks = [min(max(int(np.ceil(q * total)), 1), total) for q in qs]
    found = np.searchsorted(np.cumsum(counts), ranks)
    return [float(each) for each in _midpoints()[found]]

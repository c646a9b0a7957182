"""Whether rows of numbers that a model gave can be used.

Owns nothing. Runs in the worker, after each model. What must stay true: NaN passes none of these.
"""

from libc.math cimport fabs, isfinite


def are_finite(const double[:, :] rows not None, list which not None):
    """Whether all numbers of these rows are."""
    cdef Py_ssize_t i, n
    for i in which:
        for n in range(_count(rows, i)):
            if not isfinite(rows[i, n]):
                return False
    return True


def are_chances(const double[:, :] rows not None, list which not None):
    """Whether each number of these rows is a probability."""
    cdef Py_ssize_t i, n
    for i in which:
        for n in range(_count(rows, i)):
            if not 0.0 <= rows[i, n] <= 1.0:
                return False
    return True


def are_shares(const double[:, :] rows not None, list which not None, double tolerance):
    """Whether the numbers of each of these rows are probabilities of which one must hold: they sum to 1 or nearly so."""
    cdef Py_ssize_t i, n
    cdef double total
    for i in which:
        total = 0.0
        for n in range(_count(rows, i)):
            if not 0.0 <= rows[i, n] <= 1.0:
                return False
            total += rows[i, n]
        if not fabs(total - 1.0) <= tolerance:
            return False
    return True


cdef inline Py_ssize_t _count(const double[:, :] rows, Py_ssize_t i) except -1:
    if not 0 <= i < rows.shape[0]:
        raise IndexError(f"row {i} of {rows.shape[0]}")
    return rows.shape[1]

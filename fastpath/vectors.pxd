# A message's vectors, from its payload to decisions and slots. The rules are in vectors.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastpath.layout cimport INDICATORS, vector_decision
from fastpath.wire cimport wire_batch

cdef enum:
    KIND_VECTOR = 1
    REASON_OUT_OF_RANGE = 10
    REASON_UNKNOWN_SYMBOL = 13
    REASON_NON_FINITE = 14
    FLAG_CROSSED = 1
    FLAG_GAP = 2
    FLAG_OLD = 4
    NO_KEY = 0xffffffff                 # generation of no row: a late vector of an unknown key has no window

cdef struct key_place:                  # a key in time, while a batch is being decided
    int64_t row
    int64_t last_ns
    int64_t minute
    uint32_t generation
    uint32_t step
    uint32_t depth
    bint fresh


cdef class Bounds:
    cdef double price_max
    cdef double correlation_max
    cdef double crossed_max_bp
    cdef double low[INDICATORS]
    cdef double high[INDICATORS]
    cdef int64_t ahead_max_ns
    cdef uint32_t correlations
    cdef uint32_t history
    cdef uint32_t extra
    cdef uint32_t hole_steps_max


cdef class Batch:
    cdef wire_batch *sent
    cdef vector_decision *decided       # of each vector that is kept
    cdef object _decisions              # an array over `decided`
    cdef bytes _payload                 # `sent` points into it

    cdef uint64_t kept(self) noexcept

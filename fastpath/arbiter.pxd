# Sequence tracking of a stream. The rules are in arbiter.pyx.

from libc.stdint cimport int64_t, uint64_t

from fastpath.layout cimport stream_state

cdef enum:                              # what an input, or a heartbeat, is to its stream
    ARRIVAL_FIRST = 1                   # of a stream without state
    ARRIVAL_NEXT = 2
    ARRIVAL_AFTER_GAP = 3               # those before it are missing
    ARRIVAL_NEW_EPOCH = 4
    ARRIVAL_LATE = 5                    # was missing
    ARRIVAL_LATE_PREVIOUS = 6           # of the epoch before, and had not come
    ARRIVAL_DUPLICATE = 7
    ARRIVAL_STALE = 8                   # of an epoch older than those that are remembered

cdef struct verdict:
    int arrival
    uint64_t missing                    # sequences just before it

cdef uint64_t added(uint64_t a, uint64_t b) noexcept nogil             # at most 2^64 - 1
cdef const stream_state *standing(states, rows, uint64_t index) except NULL
cdef uint64_t gaps_since(const stream_state *state, int64_t oldest_minute) noexcept nogil

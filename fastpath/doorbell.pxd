# The doorbell: how a process that sleeps learns that a ring has something for it.

from libc.stdint cimport uint64_t

from fastpath.layout cimport doorbell_word

cdef enum:
    RINGS_MAX = 64                      # that one process waits for

cdef struct watched:                    # heads of rings, and the positions beyond which they are news
    int count
    const uint64_t *heads[RINGS_MAX]
    uint64_t positions[RINGS_MAX]


cdef class Doorbell:
    cdef doorbell_word *word
    cdef object memory                  # keeps the mapping alive
    cdef readonly int fd

    cdef bint ring_bell(self) noexcept nogil
    cdef void go_to_sleep(self) noexcept nogil
    cdef void get_up(self) noexcept nogil
    cdef void drain(self) noexcept nogil
    cdef bint wait_spinning(self, const watched *rings, uint64_t until_ns, bint yielding) noexcept nogil
    cdef int wait_blocking(self, const watched *rings, uint64_t until_ns, bint or_rung) noexcept nogil

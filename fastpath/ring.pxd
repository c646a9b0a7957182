# Rings between two processes: what they are made of. The rules are in ring.pyx.

from libc.stdint cimport int64_t, uint64_t

from fastpath.layout cimport ring_cursors


cdef class Cursors:
    cdef ring_cursors *words
    cdef unsigned char *data            # the slots, or the bytes, behind the cursors
    cdef object memory                  # keeps the mapping alive
    cdef uint64_t seen_tail             # the writer's copy of the reader's cursor
    cdef readonly uint64_t capacity     # in the ring's unit: slots, or bytes
    cdef readonly uint64_t mask
    cdef readonly uint64_t unit_bytes
    cdef readonly bint observed

    cdef int place(self, memory, uint64_t unit_bytes, bint observed) except -1
    cdef bint has_room(self, uint64_t count) noexcept nogil
    cdef void intend(self, uint64_t end) noexcept nogil
    cdef bint publish_to(self, uint64_t end) noexcept nogil
    cdef bint release_to(self, uint64_t end) noexcept nogil
    cdef uint64_t published_from(self, uint64_t position) noexcept nogil
    cdef bint copy_run(self, uint64_t position, uint64_t count, unsigned char *out) noexcept nogil


cdef class Ring(Cursors):
    cdef readonly object slots

    cdef int64_t claim_slots(self, uint64_t count) noexcept nogil


cdef class ByteRing(Cursors):
    cdef object bytes                   # memoryview over the data

    cdef int64_t claim_bytes(self, uint64_t count) noexcept nogil
    cdef int64_t record_at(self, uint64_t position, uint64_t end, bint *padding) noexcept nogil


cdef class Observer:
    cdef Cursors ring
    cdef readonly uint64_t missed       # slots, or bytes, that were lapped

"""Both ends of a hop over a ring, without Python between the instructions.

Owns nothing; `bench.ring` compiles it against the engine's own fastpath and runs each loop in a process of its own. What must stay
true: the two loops use the ring as the engine's compiled code does, and a latency counts from the time at which a slot was due.
"""

from libc.stdint cimport int64_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastpath.atomics cimport spin_pause
from fastpath.ring cimport Ring


cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1000000000 + now.tv_nsec


def write(Ring ring, int64_t start_ns, int64_t period_ns, uint64_t count):
    """Publishes `count` slots, each with the time at which it was due in its first word."""
    cdef uint64_t n
    cdef int64_t due_ns, position
    with nogil:
        for n in range(count):
            due_ns = start_ns + <int64_t> n * period_ns
            while _now_ns() < due_ns:
                spin_pause()
            position = ring.claim_slots(1)
            while position < 0:
                spin_pause()
                position = ring.claim_slots(1)
            (<int64_t *> (ring.data + (<uint64_t> position & ring.mask) * ring.unit_bytes))[0] = due_ns
            ring.publish_to(<uint64_t> position + 1)


def read(Ring ring, int64_t[::1] out, int64_t until_ns):
    """From due to seen, of as many slots as `out` has places; how many came in time."""
    cdef uint64_t position = 0, spins = 0, count = <uint64_t> out.shape[0]
    cdef int64_t now_ns = 0
    with nogil:
        while position < count:
            if ring.published_from(position) == 0:
                spin_pause()
                spins += 1
                if spins & 0xFFFF == 0 and _now_ns() > until_ns:  # a look at the clock would be half of a hop
                    break
                continue
            now_ns = _now_ns()
            out[position] = now_ns - (<int64_t *> (ring.data + (position & ring.mask) * ring.unit_bytes))[0]
            position += 1
            ring.release_to(position)
    return position


def clock(int64_t[::1] out):
    """How far two reads of the clock lie apart, which is part of every hop."""
    cdef Py_ssize_t n
    cdef int64_t began_ns
    with nogil:
        for n in range(out.shape[0]):
            began_ns = _now_ns()
            out[n] = _now_ns() - began_ns

"""A writer and a reader that meet where a wake-up could be lost, without Python between the instructions.

Compiled by the tests against the engine's own fastpath. The reader goes to sleep right after it
released a slot; the writer, which waits for that release, publishes and rings some nanoseconds later.
With either of the doorbell's two fences left out this loses a wake-up within a million turns.
"""

from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastpath.atomics cimport load_acquire
from fastpath.doorbell cimport Doorbell, watched
from fastpath.ring cimport Ring

cdef enum:
    PAUSES = 64                         # loads of a word nobody writes, at most, before a publish


cdef uint64_t _random(uint64_t *state) noexcept nogil:
    """Xorshift64."""
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


cdef double _now_s() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


def write(Ring ring, Doorbell bell, uint64_t turns, uint64_t seed, double until_s):
    """How often the reader had to be woken."""
    cdef uint64_t turn, pause, rung = 0
    with nogil:
        for turn in range(turns):
            for pause in range(_random(&seed) % PAUSES):
                load_acquire(&ring.words.intent.value)
            ring.publish_to(turn + 1)
            rung += bell.ring_bell()
            while load_acquire(&ring.words.tail.value) <= turn:
                if _now_s() > until_s:
                    with gil:
                        return rung
    return rung


def read(Ring ring, Doorbell bell, uint64_t turns, double until_s):
    """The turns it was woken for; fewer than `turns` when it was left asleep until the time was up."""
    cdef watched news
    cdef uint64_t turn
    news.count = 1
    news.heads[0] = &ring.words.head.value
    with nogil:
        for turn in range(turns):
            news.positions[0] = turn
            if not bell.wait_blocking(&news, <uint64_t> (until_s * 1e9), False):
                with gil:
                    return turn
            ring.release_to(turn + 1)
    return turns

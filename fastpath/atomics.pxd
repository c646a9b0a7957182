# The atomic operations of atomics.h; the memory order is in each name.

from libc.stdint cimport uint64_t

cdef extern from "atomics.h" nogil:
    uint64_t load_relaxed(const uint64_t *word) noexcept
    void store_relaxed(uint64_t *word, uint64_t value) noexcept
    uint64_t load_acquire(const uint64_t *word) noexcept
    void store_release(uint64_t *word, uint64_t value) noexcept
    void fence_acquire() noexcept
    void fence_release() noexcept
    void fence_full() noexcept
    void spin_pause() noexcept

cdef extern from "failpoint.h" nogil:
    void failpoint(const char *name) noexcept

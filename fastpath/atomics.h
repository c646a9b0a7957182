/* Atomic operations on the 64-bit words of the shared file, in C11.
 *
 * Every word has one writing process, so loads, stores and fences are all there is: no
 * compare-and-swap, no lock. A locked fallback would keep its lock inside one process and
 * exclude nobody in another; the assertions below refuse to compile where that could happen. */
#ifndef TICKPATH_ATOMICS_H
#define TICKPATH_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_LONG_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");
_Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t), "an atomic word must be a plain word");
_Static_assert(_Alignof(_Atomic uint64_t) <= 8, "an atomic word must fit an 8-byte boundary");

/* For the process's own words, and where a fence beside it orders. */
static inline uint64_t load_relaxed(const uint64_t *word) {
    return atomic_load_explicit((const _Atomic uint64_t *)word, memory_order_relaxed);
}

static inline void store_relaxed(uint64_t *word, uint64_t value) {
    atomic_store_explicit((_Atomic uint64_t *)word, value, memory_order_relaxed);
}

/* What was stored before the store_release that wrote this value is seen after this load. */
static inline uint64_t load_acquire(const uint64_t *word) {
    return atomic_load_explicit((const _Atomic uint64_t *)word, memory_order_acquire);
}

static inline void store_release(uint64_t *word, uint64_t value) {
    atomic_store_explicit((_Atomic uint64_t *)word, value, memory_order_release);
}

/* Loads before it stay before every access after it. */
static inline void fence_acquire(void) { atomic_thread_fence(memory_order_acquire); }

/* Every access before it stays before the stores after it. */
static inline void fence_release(void) { atomic_thread_fence(memory_order_release); }

/* Also keeps a store before it ahead of a load after it, which nothing weaker does. */
static inline void fence_full(void) { atomic_thread_fence(memory_order_seq_cst); }

/* In a loop that waits for another core: leaves the core's resources to its sibling. */
static inline void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

#endif

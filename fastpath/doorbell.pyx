"""Doorbells: a process sleeps until a writer has published something for it.

One for each reading process: the word `sleeping`, which only the reader stores, and a non-blocking
eventfd, which every writer to that reader holds. A busy reader costs its writers one fence and one
load; only a sleeping one costs them a system call.

What must stay true: no wake-up is lost. The writer publishes, fences, then loads `sleeping`; the
reader stores `sleeping`, fences, then loads the heads. The two full fences have one order, so either
the writer finds the reader asleep and rings, or the reader finds what was published and stays up.
"""

from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport read, write

from fastpath.atomics cimport fence_full, load_acquire, load_relaxed, spin_pause, store_relaxed
from fastpath.items cimport items_address
from fastpath.layout cimport doorbell_word
from fastpath.ring cimport Cursors

cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    short POLLIN

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef enum:
    LOOKS = 64                          # at the heads, between two looks at the clock
    NOTHING = 0                         # how a wait ends
    NEWS = 1
    RUNG = 2                            # and nothing is there that was not seen before

policies = ("spin", "yield", "block")
spin_before_block_ns = 50_000


cdef uint64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1_000_000_000 + <uint64_t> now.tv_nsec


cdef bint _has_news(const watched *rings) noexcept nogil:
    cdef int each
    for each in range(rings.count):
        # Acquire: pairs with publish_to in the writer's process (ring.pyx).
        if load_acquire(rings.heads[each]) > rings.positions[each]:
            return True
    return False


cdef class Doorbell:
    """One reader's bell, the same for it and for every process that writes to it.

    Parameters
    ----------
    memory: the reader's doorbell_word
    fd: the reader's eventfd, non-blocking
    """

    def __cinit__(self, memory, int fd):
        cdef uint64_t size = 0
        cdef uint64_t address = items_address(memory, 1, "a doorbell", True, &size)
        if size != sizeof(doorbell_word) or address % 8:
            raise ValueError(
                f"a doorbell needs {sizeof(doorbell_word)} bytes at a multiple of 8, "
                f"found {size} bytes at {address:#x}"
            )
        self.memory = memory
        self.word = <doorbell_word *> address
        self.fd = fd

    cdef bint ring_bell(self) noexcept nogil:
        cdef uint64_t one = 1
        # Pairs with the fence in go_to_sleep: the publish before it is seen, or `sleeping` is.
        fence_full()
        if load_relaxed(&self.word.sleeping.value) == 0:
            return False
        # A full counter refuses the write; then the reader's poll returns anyway.
        write(self.fd, &one, sizeof(one))
        return True

    cdef void go_to_sleep(self) noexcept nogil:
        store_relaxed(&self.word.sleeping.value, 1)
        # Pairs with the fence in ring_bell.
        fence_full()

    cdef void get_up(self) noexcept nogil:
        # A writer that still finds the old value rings once too often, which is harmless.
        store_relaxed(&self.word.sleeping.value, 0)

    cdef void drain(self) noexcept nogil:
        cdef uint64_t rung
        read(self.fd, &rung, sizeof(rung))

    cdef bint wait_spinning(self, const watched *rings, uint64_t until_ns, bint yielding) noexcept nogil:
        cdef int look
        while True:
            for look in range(1 if yielding else LOOKS):
                if _has_news(rings):
                    return True
                spin_pause()
            if _now_ns() >= until_ns:
                return False
            if yielding:
                sched_yield()

    cdef int wait_blocking(self, const watched *rings, uint64_t until_ns, bint or_rung) noexcept nogil:
        cdef pollfd bell
        cdef uint64_t now = _now_ns()
        cdef int ready = 1
        cdef bint rung = False
        bell.fd, bell.events, bell.revents = self.fd, POLLIN, 0
        self.go_to_sleep()
        # More than once where the bell was rung for what had been seen by then, just before the last get_up.
        while ready > 0 and now < until_ns and not _has_news(rings):
            # Rounded up: 0.2 ms left must not become a poll that does not wait.
            ready = poll(&bell, 1, <int> ((until_ns - now + 999_999) // 1_000_000))
            if ready > 0:
                self.drain()
                if rings.count == 0 or or_rung:
                    rung = True
                    break
            now = _now_ns()
        self.get_up()
        return NEWS if _has_news(rings) else RUNG if rung else NOTHING

    def ring(self):
        """Writer, after its publish: wakes the reader if it sleeps. True: it had to be woken.

        Before a publish it is a hint: the reader may be up by then, and it is rung after the publish all the same.
        """
        return self.ring_bell()

    def sleep(self):
        """Reader: from now on the bell is rung. It must look at all heads once more before it waits for `fd`."""
        self.go_to_sleep()

    def wake(self):
        """Reader: it is up, and must look at all heads."""
        self.get_up()
        self.drain()

    def wait(self, rings, positions, str policy not None, uint64_t spin_ns, int timeout_ms=10, bint or_rung=False):
        """Reader without an event loop: until a ring has something at or beyond its position.

        Without any rings, and blocking: until the bell is rung. The interpreter's lock is released all the while.
        True: something is there; False: nothing came within the time, or a signal did. With `or_rung` a sleeper's
        bell ends its wait in any case, None: nothing is there yet, but may be about to be.
        """
        cdef watched news
        cdef Cursors ring
        cdef uint64_t begin = _now_ns()
        cdef uint64_t until_ns = begin + <uint64_t> max(timeout_ms, 0) * 1_000_000
        cdef bint spinning = policy == "spin", yielding = policy == "yield"
        cdef int found
        if not (spinning or yielding or policy == "block"):
            raise ValueError(f"wait policy {policy!r} is unknown; known are {', '.join(policies)}")
        if len(rings) > RINGS_MAX or len(rings) != len(positions):
            raise ValueError(
                f"wait for {len(rings)} rings at {len(positions)} positions: "
                f"expected one position for each of at most {RINGS_MAX} rings"
            )
        news.count = len(rings)
        for each in range(news.count):
            ring = rings[each]
            news.heads[each] = &ring.words.head.value
            news.positions[each] = positions[each]
        with nogil:
            if spinning or yielding:
                found = self.wait_spinning(&news, until_ns, yielding)
            else:
                # One look at least before it sleeps: nobody need ring for what is there.
                found = _has_news(&news)
                if not found and spin_ns:
                    found = self.wait_spinning(&news, min(begin + spin_ns, until_ns), False)
                if not found:
                    found = self.wait_blocking(&news, until_ns, or_rung)
        return None if found == RUNG and news.count else found != NOTHING


def resolve_policy(str setting not None, int cores, int processes_before_me):
    """The way a process waits: (policy, nanoseconds it spins before it blocks).

    `auto` lets at most `cores - 2` processes spin, those that come first; the others spin for a
    moment and then block. `cores` are those that the processes may run on.
    """
    if setting == "auto":
        return ("spin", 0) if processes_before_me < cores - 2 else ("block", spin_before_block_ns)
    if setting not in policies:
        raise ValueError(f"wait policy {setting!r} is unknown; known are auto, {', '.join(policies)}")
    return setting, 0

"""Rings: one writer, one gating reader, any number of observers, each in a process of its own.

Owns nothing; a ring is a view over a region of the shared file: three cursors, then the slots. The
writer has `head` and `intent`, the gating reader `tail`. Positions begin at 0 and only grow; the
index is the position masked.

What must stay true: tail <= head <= tail + capacity. Everything below `head` is whole, because the
head is stored after the payload. Nothing at or above `tail` is overwritten. A writer killed
anywhere leaves its last head standing; its successor claims the same positions again. A gating
reader killed anywhere leaves its last tail standing; its successor reads the same slots again.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from fastpath.atomics cimport (
    failpoint, fence_acquire, fence_release, load_acquire, load_relaxed, store_relaxed, store_release,
)
from fastpath.items cimport items_address
from fastpath.layout cimport ring_cursors

import numpy as np

cdef uint64_t CURSOR_BYTES = sizeof(ring_cursors)
cdef uint64_t WORD = 8                      # records of a byte ring begin at multiples of it
cdef uint64_t RECORD_BYTES_MIN = 16         # its bytes, its position


cdef bint _is_power_of_two(uint64_t number) noexcept nogil:
    return number != 0 and (number & (number - 1)) == 0


def _check_capacity(capacity):
    if capacity < 1 or capacity & (capacity - 1):
        raise ValueError(f"a ring's capacity must be a power of two, found {capacity}")


cdef class Cursors:
    """What both kinds of ring have: the cursors, and everything but how room is claimed."""

    cdef int place(self, memory, uint64_t unit_bytes, bint observed) except -1:
        cdef uint64_t size = 0
        cdef uint64_t address = items_address(memory, 1, "a ring", True, &size)
        if unit_bytes == 0 or size <= CURSOR_BYTES or (size - CURSOR_BYTES) % unit_bytes != 0 \
                or not _is_power_of_two((size - CURSOR_BYTES) // unit_bytes):
            raise ValueError(
                f"a ring of {unit_bytes}-byte units needs {CURSOR_BYTES} bytes and a power of two of units, "
                f"found {size} bytes: reserve bytes_needed()"
            )
        if address % 8:
            raise ValueError(f"a ring must begin at a multiple of 8 bytes, found address {address:#x}")
        self.memory = memory
        self.words = <ring_cursors *> address
        self.data = <unsigned char *> (address + CURSOR_BYTES)
        self.unit_bytes = unit_bytes
        self.capacity = (size - CURSOR_BYTES) // unit_bytes
        self.mask = self.capacity - 1
        self.observed = observed
        # Acquire: pairs with release_to in the reader's process.
        self.seen_tail = load_acquire(&self.words.tail.value)
        return 0

    cdef bint has_room(self, uint64_t count) noexcept nogil:
        cdef uint64_t head = load_relaxed(&self.words.head.value)
        if head + count - self.seen_tail > self.capacity:
            # Acquire: pairs with release_to in the reader's process; its reads of a slot came before.
            self.seen_tail = load_acquire(&self.words.tail.value)
        return head + count - self.seen_tail <= self.capacity

    cdef void intend(self, uint64_t end) noexcept nogil:
        # Never taken back: a successor may not know how far its predecessor wrote.
        if self.observed and end > 0 and end - 1 > load_relaxed(&self.words.intent.value):
            store_relaxed(&self.words.intent.value, end - 1)
            # Pairs with fence_acquire in copy_run: who copied a byte stored after this
            # fence finds at least this intent.
            fence_release()
        failpoint(b"ring.claim.intended")

    cdef bint publish_to(self, uint64_t end) noexcept nogil:
        cdef uint64_t head = load_relaxed(&self.words.head.value)
        if end < head or not self.has_room(end - head):
            return False
        failpoint(b"ring.publish.before")
        # Release: pairs with published_from in every reader's process.
        store_release(&self.words.head.value, end)
        failpoint(b"ring.publish.after")
        return True

    cdef bint release_to(self, uint64_t end) noexcept nogil:
        if end < load_relaxed(&self.words.tail.value) or end > load_acquire(&self.words.head.value):
            return False
        failpoint(b"ring.release.before")
        # Release: pairs with has_room in the writer's process.
        store_release(&self.words.tail.value, end)
        failpoint(b"ring.release.after")
        return True

    cdef uint64_t published_from(self, uint64_t position) noexcept nogil:
        # Acquire: pairs with publish_to in the writer's process.
        cdef uint64_t head = load_acquire(&self.words.head.value)
        return head - position if head > position else 0

    cdef bint copy_run(self, uint64_t position, uint64_t count, unsigned char *out) noexcept nogil:
        cdef uint64_t index = position & self.mask
        cdef uint64_t left = self.capacity - index
        cdef uint64_t first = count if count <= left else left
        cdef uint64_t intent = load_relaxed(&self.words.intent.value)
        if intent >= position and intent - position >= self.capacity:
            return False
        memcpy(out, self.data + index * self.unit_bytes, first * self.unit_bytes)
        failpoint(b"ring.observe.copying")
        memcpy(out + first * self.unit_bytes, self.data, (count - first) * self.unit_bytes)
        # Pairs with fence_release in intend: a byte of a later lap in this copy means that the intent
        # of that lap is found now.
        fence_acquire()
        intent = load_relaxed(&self.words.intent.value)
        return intent < position or intent - position < self.capacity

    @property
    def head(self):
        """All below is published."""
        return load_acquire(&self.words.head.value)  # pairs with publish_to

    @property
    def tail(self):
        """All below may be overwritten."""
        return load_acquire(&self.words.tail.value)  # pairs with release_to

    @property
    def intent(self):
        """The highest position that the writer may be touching, or may have touched."""
        return load_acquire(&self.words.intent.value)

    def publish(self, uint64_t end):
        """Writer: everything below `end` becomes visible, all at once."""
        if not self.publish_to(end):
            raise AssertionError(
                f"publish to {end}: expected head {self.head} <= end <= {self.tail + self.capacity}, tail + capacity"
            )

    def peek(self, uint64_t position):
        """Reader: how many units are published from `position` on."""
        return self.published_from(position)

    def release(self, uint64_t end):
        """Gating reader: everything below `end` is answered for and may be overwritten."""
        if not self.release_to(end):
            raise AssertionError(f"release to {end}: expected tail {self.tail} <= end <= head {self.head}")

    def free(self):
        """Writer: units that are not in use now."""
        self.seen_tail = load_acquire(&self.words.tail.value)  # pairs with release_to
        return self.capacity - (load_relaxed(&self.words.head.value) - self.seen_tail)


cdef class Ring(Cursors):
    """Slots of one size.

    Parameters
    ----------
    memory: the region, of `bytes_needed` bytes
    dtype: of a slot; its itemsize is the stride
    observed: whether the writer tells observers what it is about to overwrite
    """

    def __cinit__(self, memory, dtype, bint observed=False):
        dtype = np.dtype(dtype)
        self.place(memory, dtype.itemsize, observed)
        self.slots = np.frombuffer(memory, dtype, self.capacity, CURSOR_BYTES)

    @staticmethod
    def bytes_needed(capacity, slot_bytes=4096):
        _check_capacity(capacity)
        return CURSOR_BYTES + capacity * slot_bytes

    cdef int64_t claim_slots(self, uint64_t count) noexcept nogil:
        cdef uint64_t first = load_relaxed(&self.words.head.value)
        if not self.has_room(count):
            return -1
        failpoint(b"ring.claim.before")
        self.intend(first + count)
        return <int64_t> first

    def claim(self, uint64_t count):
        """Writer: the first of `count` positions to write, or -1 when the ring is full.

        Nothing is taken by it: without a publish the next claim begins at the same position.
        """
        if count == 0 or count > self.capacity:
            raise ValueError(f"claim of {count} slots: expected 1 to {self.capacity}, the ring's capacity")
        return self.claim_slots(count)


cdef class ByteRing(Cursors):
    """Records of any size, each contiguous and aligned to 8 bytes; always observed.

    A record's first word is its bytes, its second a number that the writer gives, where 0 is padding:
    it fills the ring up to its end, where a record would have wrapped. A record takes half the ring
    at most, so that it fits an empty ring wherever the head stands.

    Parameters
    ----------
    memory: the region, of `bytes_needed` bytes
    """

    def __cinit__(self, memory):
        self.place(memory, 1, True)
        self.bytes = memoryview(memory).cast("B")[CURSOR_BYTES:]

    @staticmethod
    def bytes_needed(capacity_bytes):
        _check_capacity(capacity_bytes)
        if capacity_bytes < 2 * RECORD_BYTES_MIN:
            raise ValueError(f"a byte ring has {2 * RECORD_BYTES_MIN} bytes at least, found {capacity_bytes}")
        return CURSOR_BYTES + capacity_bytes

    cdef int64_t claim_bytes(self, uint64_t count) noexcept nogil:
        cdef uint64_t head = load_relaxed(&self.words.head.value)
        cdef uint64_t left = self.capacity - (head & self.mask)
        cdef uint64_t padding = 0 if count <= left else left
        cdef uint64_t *words
        if not self.has_room(padding + count):
            return -1
        failpoint(b"ring.claim.before")
        self.intend(head + padding + count)
        if padding:
            words = <uint64_t *> (self.data + (head & self.mask))
            words[0] = padding
            if padding > WORD:          # else the ring ends behind the first word
                words[1] = 0
            failpoint(b"ring.claim.padded")
        return <int64_t> (head + padding)

    def claim(self, uint64_t count):
        """Writer: the position of `count` contiguous bytes to write, or -1 when the ring is full.

        Where padding was needed the position is behind it; publishing the record publishes both.
        """
        if count < RECORD_BYTES_MIN or count % WORD or count > self.capacity // 2:
            raise ValueError(
                f"claim of {count} bytes: expected a multiple of {WORD} "
                f"from {RECORD_BYTES_MIN} to {self.capacity // 2}, half the ring"
            )
        return self.claim_bytes(count)

    def view(self, uint64_t position, uint64_t count):
        """The bytes themselves, not a copy."""
        cdef uint64_t index = position & self.mask
        if count > self.capacity - index:
            raise ValueError(
                f"view of {count} bytes at {position}: {self.capacity - index} bytes are left to the ring's end"
            )
        return self.bytes[index:index + count]

    cdef int64_t record_at(self, uint64_t position, uint64_t end, bint *padding) noexcept nogil:
        """The record's bytes, or -1 where its words cannot be true."""
        cdef uint64_t index = position & self.mask
        cdef uint64_t left = self.capacity - index
        cdef uint64_t *words = <uint64_t *> (self.data + index)
        cdef uint64_t count = words[0]
        if count < WORD or count % WORD or count > left or count > end - position:
            return -1
        padding[0] = left == WORD or (count >= RECORD_BYTES_MIN and words[1] == 0)
        if padding[0]:
            return <int64_t> count if count == left else -1
        return <int64_t> count if count >= RECORD_BYTES_MIN else -1

    def records(self, uint64_t begin, uint64_t end):
        """Reader: (position, bytes) of each published record from `begin` to `end`, padding left out.

        Both must be where records begin. Raises RuntimeError at lengths that do not fit: the ring is
        corrupt and its processes must not go on.
        """
        cdef uint64_t position = begin
        cdef bint padding = False
        cdef int64_t count
        head = self.head
        if not begin <= end <= head or begin % WORD or end % WORD:
            raise ValueError(
                f"records from {begin} to {end}: expected multiples of {WORD}, begin <= end <= head {head}"
            )
        while position < end:
            count = self.record_at(position, end, &padding)
            if count < 0:
                found = int.from_bytes(self.view(position, WORD), "little")
                left = min(self.capacity - (position & self.mask), end - position)
                raise RuntimeError(
                    f"record at byte {position}: expected a multiple of {WORD} from {RECORD_BYTES_MIN} "
                    f"to {left} bytes, or padding to the ring's end, found {found}: the ring is corrupt"
                )
            if not padding:
                yield position, count
            position += count


cdef class Observer:
    """Reads a ring without ever holding its writer up, and counts what it was too slow for.

    Parameters
    ----------
    ring: an observed Ring, or a ByteRing
    """

    def __cinit__(self, Cursors ring not None):
        if not ring.observed:
            raise ValueError("an observer needs an observed ring: the writer of this one does not store its intent")
        self.ring = ring

    def copy(self, uint64_t position, out):
        """Copies published units from `position` on, as many as `out` holds, a writable array.

        False: they were overwritten, or are being overwritten; what `out` holds then means nothing.
        """
        cdef Py_buffer view
        cdef bint kept
        PyObject_GetBuffer(out, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            count = <uint64_t> view.len // self.ring.unit_bytes
            if count == 0 or count > self.ring.capacity or <uint64_t> view.len % self.ring.unit_bytes:
                raise ValueError(
                    f"copy into {view.len} bytes: expected 1 to {self.ring.capacity} units of {self.ring.unit_bytes}"
                )
            if self.ring.published_from(position) < count:
                raise ValueError(f"copy of {count} units at {position}: published is what is below {self.ring.head}")
            kept = self.ring.copy_run(position, count, <unsigned char *> view.buf)
        finally:
            PyBuffer_Release(&view)
        if not kept:
            self.missed += count
        return kept

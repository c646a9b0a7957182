"""Promises of the slot ring and its observers, against a plain deque and in one process."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import whole

from fastpath.layout import request_slot_dtype, slot_bytes
from fastpath.ring import Observer, Ring

WORD = np.dtype("u8")


def make(capacity: int, dtype: np.dtype = WORD, observed: bool = True) -> tuple[Ring, Ring]:
    """The writer's and the reader's ring over one memory."""
    memory = bytearray(Ring.bytes_needed(capacity, dtype.itemsize))
    return Ring(memory, dtype, observed), Ring(memory, dtype, observed)


def write(ring: Ring, count: int, value: int) -> int:
    first = ring.claim(count)
    assert first >= 0
    for position in range(first, first + count):
        ring.slots[position & ring.mask] = value + position - first
    ring.publish(first + count)
    return first


verbs = st.lists(
    st.tuples(st.sampled_from(["write", "claim", "read", "read", "restart"]), st.integers(1, 8)), max_size=200
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2, 8]), verbs)
def test_ring_is_a_bounded_queue(capacity: int, todo: list[tuple[str, int]]) -> None:
    writer, reader = make(capacity)
    memory = writer.slots.base
    model: deque[int] = deque()
    written = read = 0
    for verb, asked in todo:
        count = min(asked, capacity)
        if verb == "restart":
            # Successors of both know nothing but the words.
            writer, reader = Ring(memory, WORD, True), Ring(memory, WORD, True)
        elif verb == "read":
            available = reader.peek(read)
            assert available == len(model)
            for _ in range(min(count, available)):
                assert reader.slots[read & reader.mask] == model.popleft()
                read += 1
            reader.release(read)
        else:
            first = writer.claim(count)
            assert first == (written if len(model) + count <= capacity else -1)
            if first >= 0 and verb == "write":
                for position in range(first, first + count):
                    writer.slots[position & writer.mask] = position * 7
                    model.append(position * 7)
                written += count
                writer.publish(written)
        assert writer.free() == capacity - len(model)
        assert (reader.tail, reader.head) == (read, written)


def test_claim_without_publish_begins_at_the_same_position_again() -> None:
    writer, reader = make(8)
    assert [writer.claim(3), writer.claim(8), writer.claim(1)] == [0, 0, 0]
    assert reader.peek(0) == 0


def test_full_ring_is_a_return_value() -> None:
    writer, reader = make(4)
    write(writer, 4, 10)
    assert writer.claim(1) == -1
    reader.release(1)
    assert writer.claim(2) == -1
    assert writer.claim(1) == 4


def test_published_run_of_slots_appears_at_once() -> None:
    writer, reader = make(8)
    first = writer.claim(5)
    writer.slots[:5] = 1
    assert reader.peek(first) == 0
    writer.publish(first + 5)
    assert reader.peek(first) == 5


def test_intent_is_never_taken_back() -> None:
    writer, reader = make(8)
    write(writer, 8, 0)
    reader.release(8)
    writer.claim(5)
    # Its successor does not know which slots it wrote to, and has less to write.
    successor = Ring(writer.slots.base, WORD, True)
    successor.claim(2)
    assert (writer.intent, successor.intent) == (12, 12)


def test_slots_have_the_stride_of_their_struct() -> None:
    memory = bytearray(Ring.bytes_needed(4))
    ring = Ring(memory, request_slot_dtype)
    assert ring.slots.strides == (slot_bytes,)
    assert (ring.capacity, ring.mask, len(ring.slots)) == (4, 3, 4)


def test_mistakes_are_told() -> None:
    writer, reader = make(4)
    with pytest.raises(ValueError, match=whole("claim of 0 slots: expected 1 to 4, the ring's capacity")):
        writer.claim(0)
    with pytest.raises(ValueError, match=whole("claim of 5 slots: expected 1 to 4, the ring's capacity")):
        writer.claim(5)
    write(writer, 2, 0)
    reader.release(1)
    for end in (1, 6):
        with pytest.raises(
            AssertionError, match=whole(f"publish to {end}: expected head 2 <= end <= 5, tail + capacity")
        ):
            writer.publish(end)
    for end in (0, 3):
        with pytest.raises(AssertionError, match=whole(f"release to {end}: expected tail 1 <= end <= head 2")):
            reader.release(end)


def test_memory_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=whole("a ring's capacity must be a power of two, found 6")):
        Ring.bytes_needed(6)
    expected = whole(
        "a ring of 8-byte units needs 384 bytes and a power of two of units, found 408 bytes: reserve bytes_needed()"
    )
    with pytest.raises(ValueError, match=expected):
        Ring(bytearray(384 + 24), WORD)
    with pytest.raises(BufferError):
        Ring(bytes(384 + 8), WORD)


# -- observers -------------------------------------------------------------------------------------


def test_observer_copies_without_holding_the_writer_up() -> None:
    writer, reader = make(4)
    observer = Observer(Ring(reader.slots.base, WORD, True))
    out = np.zeros(1, WORD)
    for value in range(20):
        write(writer, 1, value)
        reader.release(value + 1)
        assert observer.copy(value, out)
        assert out[0] == value
    assert observer.missed == 0


def test_lapped_observer_counts_what_it_missed() -> None:
    writer, reader = make(4)
    observer = Observer(reader)
    out = np.zeros(1, WORD)
    for value in range(10):
        write(writer, 1, value)
        reader.release(value + 1)
    assert [observer.copy(position, out) for position in range(10)] == [False] * 6 + [True] * 4
    assert out[0] == 9
    assert observer.missed == 6


def test_observer_refuses_a_slot_that_is_being_written() -> None:
    writer, reader = make(4)
    observer = Observer(reader)
    out = np.zeros(1, WORD)
    write(writer, 4, 0)
    reader.release(4)
    writer.claim(2)
    # Nothing is published and not a byte has changed yet, but from now on it may.
    assert [observer.copy(position, out) for position in range(4)] == [False, False, True, True]
    assert observer.missed == 2


def test_observer_copies_a_run_around_the_end_of_the_ring() -> None:
    writer, reader = make(4)
    write(writer, 3, 0)
    reader.release(3)
    write(writer, 3, 10)
    out = np.zeros(3, WORD)
    assert Observer(reader).copy(3, out)
    assert out.tolist() == [10, 11, 12]


def test_observer_of_an_unobserved_ring_is_refused() -> None:
    writer, _ = make(4, observed=False)
    expected = whole("an observer needs an observed ring: the writer of this one does not store its intent")
    with pytest.raises(ValueError, match=expected):
        Observer(writer)


def test_observer_is_told_its_mistakes() -> None:
    writer, reader = make(4)
    write(writer, 2, 0)
    observer = Observer(reader)
    with pytest.raises(ValueError, match=whole("copy of 2 units at 1: published is what is below 2")):
        observer.copy(1, np.zeros(2, WORD))
    with pytest.raises(ValueError, match=whole("copy into 4 bytes: expected 1 to 4 units of 8")):
        observer.copy(0, np.zeros(1, "u4"))
    assert observer.missed == 0

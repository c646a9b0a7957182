"""Promises of the byte ring, against a plain deque and in one process."""

import struct
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import whole

from fastpath.ring import ByteRing, Observer


def make(capacity: int) -> ByteRing:
    return ByteRing(bytearray(ByteRing.bytes_needed(capacity)))


def write(ring: ByteRing, count: int, number: int) -> int:
    """A record of `count` bytes that can be told from any other; -1 when the ring is full."""
    position = ring.claim(count)
    if position >= 0:
        ring.view(position, count)[:] = record(count, number)
        ring.publish(position + count)
    return position


def record(count: int, number: int) -> bytes:
    return struct.pack("<QQ", count, number) + bytes((number * 31 + each) % 251 for each in range(count - 16))


verbs = st.lists(
    st.tuples(st.sampled_from(["write", "write", "claim", "read", "read", "restart"]), st.integers(2, 16)), max_size=200
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([32, 64, 256]), verbs)
def test_byte_ring_is_a_bounded_queue_of_records(capacity: int, todo: list[tuple[str, int]]) -> None:
    memory = bytearray(ByteRing.bytes_needed(capacity))
    memory[-capacity:] = b"\xff" * capacity  # as a lap before it may have left it
    writer, reader = ByteRing(memory), ByteRing(memory)
    model: deque[tuple[int, bytes]] = deque()
    number = 0
    for verb, asked in todo:
        count = min(asked * 8, capacity // 2)
        if verb == "restart":
            writer, reader = ByteRing(memory), ByteRing(memory)
        elif verb == "read":
            records = list(reader.records(reader.tail, reader.head))
            assert [(position, bytes(reader.view(position, size))) for position, size in records] == list(model)
            if records:
                # All padding before a record goes with it.
                position, size = records[0]
                reader.release(position + size)
                model.popleft()
        else:
            head, tail = writer.head, writer.tail
            left = capacity - head % capacity
            expected = head if count <= left else head + left
            position = writer.claim(count)
            assert position == (expected if expected + count - tail <= capacity else -1)
            assert writer.head == head
            if position >= 0 and verb == "write":
                number += 1
                writer.view(position, count)[:] = record(count, number)
                writer.publish(position + count)
                model.append((position, record(count, number)))
        assert writer.tail <= writer.head <= writer.tail + capacity
        assert writer.free() == capacity - (writer.head - writer.tail)


def test_record_is_contiguous_behind_padding() -> None:
    ring = make(64)
    assert write(ring, 32, 1) == 0
    assert write(ring, 16, 2) == 32
    ring.release(32)
    assert write(ring, 24, 3) == 64  # 16 bytes were left
    assert list(ring.records(32, ring.head)) == [(32, 16), (64, 24)]
    assert bytes(ring.view(64, 24)) == record(24, 3)


def test_padding_of_one_word_is_padding() -> None:
    ring = make(64)
    write(ring, 32, 1)
    write(ring, 24, 2)
    ring.release(56)
    assert write(ring, 16, 3) == 64  # 8 bytes were left: no room for a record's two words
    assert list(ring.records(56, ring.head)) == [(64, 16)]


def test_record_of_half_the_ring_fits_an_empty_ring_wherever_the_head_stands() -> None:
    ring = make(64)
    for lap in range(20):
        assert write(ring, 32, lap + 1) >= 0
        ring.release(ring.head)
        assert write(ring, 24, lap + 1) >= 0
        ring.release(ring.head)


@pytest.mark.parametrize("count", [0, 8, 20, 40])
def test_claim_of_an_impossible_record_is_refused(count: int) -> None:
    expected = whole(f"claim of {count} bytes: expected a multiple of 8 from 16 to 32, half the ring")
    with pytest.raises(ValueError, match=expected):
        make(64).claim(count)


def test_view_beyond_the_end_of_the_ring_is_refused() -> None:
    ring = make(64)
    assert len(ring.view(64 + 48, 16)) == 16
    with pytest.raises(ValueError, match=whole("view of 24 bytes at 112: 16 bytes are left to the ring's end")):
        ring.view(112, 24)
    with pytest.raises(ValueError, match=whole("view of 128 bytes at 0: 64 bytes are left to the ring's end")):
        ring.view(0, 128)


@pytest.mark.parametrize("found", [0, 7, 8, 20, 40, 2**63, 2**64 - 8])
def test_corrupt_length_stops_the_reader(found: int) -> None:
    ring = make(64)
    write(ring, 32, 1)
    ring.view(0, 8)[:] = struct.pack("<Q", found)
    expected = whole(
        f"record at byte 0: expected a multiple of 8 from 16 to 32 bytes, or padding to the ring's end, "
        f"found {found}: the ring is corrupt"
    )
    with pytest.raises(RuntimeError, match=expected):
        list(ring.records(0, 32))


def test_padding_that_ends_before_the_ring_is_corrupt() -> None:
    ring = make(64)
    write(ring, 32, 1)
    ring.view(8, 8)[:] = bytes(8)
    with pytest.raises(RuntimeError, match=r"found 32: the ring is corrupt$"):
        list(ring.records(0, 32))


def test_records_outside_of_what_is_published_are_refused() -> None:
    ring = make(64)
    write(ring, 32, 1)
    expected = whole("records from 0 to 40: expected multiples of 8, begin <= end <= head 32")
    with pytest.raises(ValueError, match=expected):
        list(ring.records(0, 40))


def test_observer_of_bytes_refuses_what_is_being_overwritten() -> None:
    ring = make(64)
    observer = Observer(ring)
    write(ring, 32, 1)
    write(ring, 24, 2)
    ring.release(56)
    out = np.zeros(32, np.uint8)
    assert observer.copy(0, out)
    assert out.tobytes() == record(32, 1)
    ring.claim(16)  # writes padding to bytes 56 to 63, and may write bytes 64 to 79
    assert not observer.copy(0, out)
    assert observer.copy(16, out[:16])
    assert observer.missed == 32

"""Rings between processes at full speed: millions of slots, all there, in order, whole.

The processes are forks that share the memory and nothing else; each ends by itself within its time.
"""

import multiprocessing
import os
import random
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shared_file import SharedFile

from fastpath.ring import ByteRing, Observer, Ring

SLOT = np.dtype([("position", "u8"), ("payload", "u8", 6), ("check", "u8")])
SLOTS = 2_000_000
RECORDS = 1_000_000
SECONDS = 60.0  # within which every process must have ended; they take a few


def payload_of(positions: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Six words that no other position has, shape (n, 6)."""
    factors = np.array([3, 5, 7, 11, 13, 17], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (positions[:, None] + np.uint64(1)) * factors


def check_of(slots: NDArray[Any]) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = slots["payload"].sum(axis=1, dtype=np.uint64) ^ slots["position"]
    return words


def run(processes: Sequence[tuple[Callable[..., None], tuple[Any, ...]]]) -> list[dict[str, int]]:
    """Runs each function in a fork of its own; what each put into its queue."""
    context = multiprocessing.get_context("fork")
    queues = [context.SimpleQueue() for _ in processes]
    started = [
        context.Process(target=function, args=(queue, *arguments), daemon=True)
        for queue, (function, arguments) in zip(queues, processes, strict=True)
    ]
    until = time.monotonic() + SECONDS
    try:
        for process in started:
            process.start()
        for process in started:
            process.join(max(0.0, until - time.monotonic()))
        assert [process.exitcode for process in started] == [0] * len(started)
        return [queue.get() for queue in queues]
    finally:
        for process in started:
            if process.is_alive():
                process.kill()


# -- slots -----------------------------------------------------------------------------------------


def write_slots(queue: Any, file: SharedFile, seed: int) -> None:
    ring = Ring(file.memory, SLOT, True)
    counts = random.Random(seed)
    position = full = 0
    while position < SLOTS:
        count = min(counts.choice((1, 2, 3, 50, 64, 300)), SLOTS - position, ring.capacity)
        first = ring.claim(count)
        if first < 0:
            full += 1
            os.sched_yield()
            continue
        assert first == position
        positions = np.arange(first, first + count, dtype=np.uint64)
        batch = np.zeros(count, SLOT)
        batch["position"], batch["payload"] = positions, payload_of(positions)
        batch["check"] = check_of(batch)
        index = first & ring.mask
        left = min(count, ring.capacity - index)
        ring.slots[index : index + left] = batch[:left]
        ring.slots[: count - left] = batch[left:]
        position += count
        ring.publish(position)
    queue.put({"full": full})


def read_slots(queue: Any, file: SharedFile, seed: int) -> None:
    ring = Ring(file.memory, SLOT, True)
    counts = random.Random(seed)
    position = empty = 0
    while position < SLOTS:
        count = min(ring.peek(position), counts.choice((1, 7, 64, 500)))
        if count == 0:
            empty += 1
            os.sched_yield()
            continue
        positions = np.arange(position, position + count, dtype=np.uint64)
        slots = ring.slots[positions & np.uint64(ring.mask)]
        assert np.array_equal(slots["position"], positions)
        assert np.array_equal(slots["payload"], payload_of(positions))
        assert np.array_equal(slots["check"], check_of(slots))
        position += count
        ring.release(position)
    queue.put({"read": position, "empty": empty})


def observe_slots(queue: Any, file: SharedFile, seed: int) -> None:
    ring = Ring(file.memory, SLOT, True)
    observer = Observer(ring)
    counts = random.Random(seed)
    position = kept = 0
    while position < SLOTS:
        count = min(ring.peek(position), counts.choice((1, 16, 32)))
        if count == 0:
            os.sched_yield()
            continue
        out = np.zeros(count, SLOT)
        if observer.copy(position, out):
            assert np.array_equal(out["position"], np.arange(position, position + count, dtype=np.uint64))
            assert np.array_equal(out["check"], check_of(out))
            kept += count
        position += count
    queue.put({"kept": kept, "missed": int(observer.missed)})


def observe_edge(queue: Any, file: SharedFile, seed: int) -> None:
    """Copies large runs that begin where the writer is about to overwrite."""
    ring = Ring(file.memory, SLOT, True)
    observer = Observer(ring)
    distances = random.Random(seed)
    count = ring.capacity // 2
    out = np.zeros(count, SLOT)
    kept = 0
    while ring.head < SLOTS:
        position = max(0, ring.intent + 1 - ring.capacity) + distances.choice((0, 1, 8, 64, 200))
        if ring.peek(position) >= count and observer.copy(position, out):
            assert np.array_equal(out["position"], np.arange(position, position + count, dtype=np.uint64))
            assert np.array_equal(out["check"], check_of(out))
            kept += count
    queue.put({"kept": kept, "missed": int(observer.missed)})


def test_observer_at_the_edge_keeps_nothing_that_was_overwritten_meanwhile(
    shared: Callable[[int], SharedFile], randomness: random.Random
) -> None:
    file = shared(Ring.bytes_needed(1024, SLOT.itemsize))
    seeds = [randomness.getrandbits(32) for _ in range(3)]
    _, _, observer = run(
        [
            (write_slots, (file, seeds[0])),
            (read_slots, (file, seeds[1])),
            (observe_edge, (file, seeds[2])),
        ]
    )
    print(f"observer: {observer}")


@pytest.mark.parametrize("capacity", [64, 1024])
def test_millions_of_slots_arrive_once_in_order_and_whole(
    shared: Callable[[int], SharedFile], randomness: random.Random, capacity: int
) -> None:
    file = shared(Ring.bytes_needed(capacity, SLOT.itemsize))
    seeds = [randomness.getrandbits(32) for _ in range(3)]
    _, reader, observer = run(
        [
            (write_slots, (file, seeds[0])),
            (read_slots, (file, seeds[1])),
            (observe_slots, (file, seeds[2])),
        ]
    )
    print(f"observer: {observer}")
    assert reader["read"] == SLOTS
    # What an observer kept was whole (it looked); what it did not keep it counted.
    assert observer["kept"] + observer["missed"] == SLOTS
    ring = Ring(file.memory, SLOT, True)
    assert (ring.head, ring.tail, ring.free()) == (SLOTS, SLOTS, capacity)


# -- bytes -----------------------------------------------------------------------------------------


def write_records(queue: Any, file: SharedFile, seed: int) -> None:
    ring = ByteRing(file.memory)
    sizes = random.Random(seed)
    source = sizes.randbytes(4096)
    number = 1
    while number <= RECORDS:
        count = 8 * sizes.randint(3, ring.capacity // 16)
        begin = sizes.randrange(2048)
        body = source[begin : begin + count - 24]
        while (position := ring.claim(count)) < 0:
            os.sched_yield()
        ring.view(position, count)[:] = struct.pack("<QQQ", count, number, zlib.crc32(body)) + body
        ring.publish(position + count)
        number += 1
    queue.put({"head": int(ring.head)})


def read_records(queue: Any, file: SharedFile, seed: int) -> None:
    ring = ByteRing(file.memory)
    expected = 1
    position = 0
    while expected <= RECORDS:
        end = position + ring.peek(position)
        if end == position:
            os.sched_yield()
            continue
        for begin, count in ring.records(position, end):
            size, number, check = struct.unpack_from("<QQQ", ring.view(begin, count))
            assert (size, number, check) == (count, expected, zlib.crc32(ring.view(begin + 24, count - 24)))
            expected += 1
        position = end
        ring.release(position)
    queue.put({"read": expected - 1})


@pytest.mark.parametrize("capacity", [512, 4096])
def test_records_of_any_size_arrive_once_in_order_and_whole(
    shared: Callable[[int], SharedFile], randomness: random.Random, capacity: int
) -> None:
    file = shared(ByteRing.bytes_needed(capacity))
    seeds = [randomness.getrandbits(32) for _ in range(2)]
    _, reader = run([(write_records, (file, seeds[0])), (read_records, (file, seeds[1]))])
    assert reader == {"read": RECORDS}

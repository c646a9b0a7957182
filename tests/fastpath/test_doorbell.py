"""Promises of the doorbells: no lost wake-up in a million, and a bell that only sleepers cost anything."""

import asyncio
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from shared_file import SharedFile
from texts import whole

from fastpath.doorbell import Doorbell, resolve_policy
from fastpath.ring import Ring

WORD = np.dtype("u8")
WAKE_UPS = 1_000_000
HANDOVERS = 200_000
LOST_MS = 10_000  # a reader asleep for so long beside a published slot was not woken
SECONDS = 120.0
RING_BYTES = Ring.bytes_needed(4, 8)
BELL_BYTES = 128


class Side:
    """One of two processes that write to each other: the ring and the bell that it reads by."""

    def __init__(self, file: SharedFile, number: int) -> None:
        begin = number * 1024
        self.ring = Ring(file.memory[begin : begin + RING_BYTES], WORD)
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.bell = Doorbell(file.memory[begin + 512 : begin + 512 + BELL_BYTES], self.fd)


@pytest.fixture
def sides(shared: Callable[[int], SharedFile]) -> Iterator[tuple[Side, Side]]:
    file = shared(2048)
    both = (Side(file, 0), Side(file, 1))
    yield both
    for side in both:
        os.close(side.fd)


def publish(side: Side, value: int) -> bool:
    position = side.ring.claim(1)
    side.ring.slots[position & side.ring.mask] = value
    side.ring.publish(position + 1)
    return side.bell.ring()


def is_rung(side: Side) -> bool:
    try:
        os.eventfd_read(side.fd)
    except BlockingIOError:
        return False
    return True


# -- between processes -----------------------------------------------------------------------------


def hand_over(queue: Any, mine: Side, theirs: Side, first: bool, seed: int) -> None:
    """Takes turns with the other process, and now and then hesitates where the race is."""
    jitter = random.Random(seed)
    spins = [jitter.choice((0, 0, 0, 200, 1_000, 3_000)) for _ in range(997)]
    idles = [jitter.choice((0, 0, 1, 3, 10, 30)) for _ in range(991)]
    rung = 0
    for turn in range(HANDOVERS // 2):
        if first:
            rung += publish(theirs, turn)
        while mine.ring.peek(turn) == 0:
            if not mine.bell.wait([mine.ring], [turn], "block", spins[turn % 997], LOST_MS):
                queue.put({"lost": turn, "rung": rung})
                return
        assert mine.ring.slots[turn & mine.ring.mask] == turn
        mine.ring.release(turn + 1)
        for _ in range(idles[turn % 991]):
            pass
        if not first:
            rung += publish(theirs, turn)
    queue.put({"lost": -1, "rung": rung})


def both(functions: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> list[dict[str, int]]:
    """Runs each in a fork of its own; what each put into its queue."""
    context = multiprocessing.get_context("fork")
    queues = [context.SimpleQueue() for _ in functions]
    processes = [
        context.Process(target=function, args=(queue, *arguments), daemon=True)
        for queue, (function, arguments) in zip(queues, functions, strict=True)
    ]
    until = time.monotonic() + SECONDS
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
        assert [process.exitcode for process in processes] == [0] * len(processes)
        return [queue.get() for queue in queues]
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()


def sleep_again_and_again(queue: Any, sleepers: ModuleType, side: Side, until_s: float) -> None:
    queue.put({"woken": sleepers.read(side.ring, side.bell, WAKE_UPS, until_s)})


def wake_again_and_again(queue: Any, sleepers: ModuleType, side: Side, until_s: float, seed: int) -> None:
    queue.put({"rung": sleepers.write(side.ring, side.bell, WAKE_UPS, seed, until_s)})


def test_no_wake_up_is_lost_in_a_million(
    sides: tuple[Side, Side], sleepers: ModuleType, randomness: random.Random
) -> None:
    side, _ = sides
    until_s = time.monotonic() + SECONDS / 2
    seed = randomness.getrandbits(32) | 1
    woken, rung = both(
        [
            (sleep_again_and_again, (sleepers, side, until_s)),
            (wake_again_and_again, (sleepers, side, until_s, seed)),
        ]
    )
    print(woken, rung)
    assert woken["woken"] == WAKE_UPS
    # The test is about sleepers: many a turn must have found one.
    assert rung["rung"] > WAKE_UPS // 4


def test_processes_that_take_turns_wake_each_other(sides: tuple[Side, Side], randomness: random.Random) -> None:
    one, other = sides
    seeds = [randomness.getrandbits(32) for _ in range(2)]
    found = both([(hand_over, (one, other, True, seeds[0])), (hand_over, (other, one, False, seeds[1]))])
    print(found)
    assert [each["lost"] for each in found] == [-1, -1]


def write_to_loop(queue: Any, side: Side, count: int, seed: int) -> None:
    jitter = random.Random(seed)
    for value in range(count):
        while side.ring.free() == 0:
            os.sched_yield()
        publish(side, value)
        if jitter.random() < 0.5:
            os.sched_yield()
    queue.put({})


async def read_in_loop(side: Side, count: int) -> list[int]:
    """How a process with an event loop waits: the bell's descriptor is one of those that its loop watches."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    taken: list[int] = []

    def take() -> None:
        side.bell.wake()
        while True:
            while side.ring.peek(len(taken)):
                taken.append(int(side.ring.slots[len(taken) & side.ring.mask]))
                side.ring.release(len(taken))
            side.bell.sleep()
            if not side.ring.peek(len(taken)):
                break
        if len(taken) == count and not done.done():
            done.set_result(None)

    loop.add_reader(side.fd, take)
    take()
    await asyncio.wait_for(done, SECONDS)
    loop.remove_reader(side.fd)
    return taken


def test_event_loop_is_woken_for_everything(sides: tuple[Side, Side], randomness: random.Random) -> None:
    side, _ = sides
    count = 50_000
    context = multiprocessing.get_context("fork")
    writer = context.Process(
        target=write_to_loop, args=(context.SimpleQueue(), side, count, randomness.getrandbits(32)), daemon=True
    )
    writer.start()
    try:
        assert asyncio.run(read_in_loop(side, count)) == list(range(count))
        writer.join(SECONDS)
        assert writer.exitcode == 0
    finally:
        writer.kill()


# -- one process -----------------------------------------------------------------------------------


def test_reader_that_is_up_costs_its_writers_no_system_call(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    assert not publish(side, 1)
    assert not is_rung(side)


def test_sleeper_is_rung_until_it_wakes(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    side.bell.sleep()
    assert publish(side, 1)
    assert side.bell.ring()
    side.bell.wake()
    assert not is_rung(side)
    assert not side.bell.ring()


@pytest.mark.parametrize("policy", ["spin", "yield", "block"])
def test_wait_sees_what_is_there_already(sides: tuple[Side, Side], policy: str) -> None:
    one, other = sides
    publish(other, 1)
    rings = [one.ring, other.ring]
    assert one.bell.wait(rings, [0, 0], policy, 0, 0)
    assert not one.bell.wait(rings, [0, 1], policy, 0, 0)


@pytest.mark.parametrize("policy", ["spin", "yield", "block"])
def test_wait_without_news_ends_in_time_and_awake(sides: tuple[Side, Side], policy: str) -> None:
    side, _ = sides
    begin = time.monotonic()
    assert not side.bell.wait([side.ring], [0], policy, 50_000, 20)
    assert 0.02 <= time.monotonic() - begin < 5
    assert not side.bell.ring(), "a reader that returned is up"


@pytest.mark.parametrize("policy", ["spin", "yield", "block"])
def test_other_threads_run_while_one_waits(sides: tuple[Side, Side], policy: str) -> None:
    side, _ = sides
    thread = threading.Timer(0.02, publish, (side, 7))
    thread.start()
    # With the interpreter's lock held the other thread could not publish.
    assert side.bell.wait([side.ring], [0], policy, 50_000, 20_000)
    thread.join()


def test_bell_rung_for_nothing_ends_no_wait(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    os.eventfd_write(side.fd, 3)
    begin = time.monotonic()
    assert not side.bell.wait([side.ring], [0], "block", 0, 20)
    assert time.monotonic() - begin >= 0.02
    assert not is_rung(side)


def test_a_reader_that_asks_for_it_is_up_before_anything_is_published(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    thread = threading.Thread(target=ring_until_heard, args=(side,))
    thread.start()
    assert side.bell.wait([side.ring], [0], "block", 0, 20_000, or_rung=True) is None
    thread.join()
    assert not side.bell.ring(), "it is up"
    publish(side, 7)
    assert side.bell.wait([side.ring], [0], "block", 0, 20_000, or_rung=True) is True
    assert side.bell.wait([side.ring], [1], "block", 0, 1, or_rung=True) is False


def test_bell_alone_ends_a_wait_for_no_rings(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    assert not side.bell.wait([], [], "block", 0, 5)
    thread = threading.Thread(target=ring_until_heard, args=(side,))
    thread.start()
    assert side.bell.wait([], [], "block", 0, 20_000)
    thread.join()


def ring_until_heard(side: Side) -> None:
    while not side.bell.ring():
        os.sched_yield()


@pytest.mark.parametrize(
    ("setting", "cores", "before", "expected"),
    [
        ("auto", 1, 0, ("block", 50_000)),
        ("auto", 2, 0, ("block", 50_000)),
        ("auto", 4, 1, ("spin", 0)),
        ("auto", 4, 2, ("block", 50_000)),
        ("auto", 16, 13, ("spin", 0)),
        ("spin", 1, 5, ("spin", 0)),
        ("yield", 1, 5, ("yield", 0)),
        ("block", 16, 0, ("block", 0)),
    ],
)
def test_auto_leaves_two_cores_to_others(setting: str, cores: int, before: int, expected: tuple[str, int]) -> None:
    assert resolve_policy(setting, cores, before) == expected


def test_mistakes_are_told(sides: tuple[Side, Side]) -> None:
    side, _ = sides
    with pytest.raises(ValueError, match=whole("wait policy 'sleep' is unknown; known are auto, spin, yield, block")):
        resolve_policy("sleep", 4, 0)
    with pytest.raises(ValueError, match=whole("wait policy 'auto' is unknown; known are spin, yield, block")):
        side.bell.wait([side.ring], [0], "auto", 0)
    expected = whole("wait for 1 rings at 2 positions: expected one position for each of at most 64 rings")
    with pytest.raises(ValueError, match=expected):
        side.bell.wait([side.ring], [0, 1], "block", 0)
    with pytest.raises(ValueError, match=r"^a doorbell needs 128 bytes at a multiple of 8, found 256 bytes at 0x"):
        Doorbell(bytearray(256), 0)

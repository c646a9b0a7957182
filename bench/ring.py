"""A hop: how long from a slot's being due in one process to its being seen in another.

Owns the rounds; run as `python -m bench.ring`. Ways: the engine's ring from compiled code, the same again (A/A), the
ring from Python, and what Python has: a pipe, `multiprocessing.SimpleQueue`. A block of a way is two forks that share
a memory file, each pinned to a core of its own; ring readers spin, the others sleep in the kernel. Prints a table,
writes `bench/results/ring.json`.

What must stay true: all ways get the same slots at the same rate, in open loop, and a latency counts from the time at
which a slot was due; nothing runs but the two ends of one way.
"""

import mmap
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bench import compiled
from bench.figures import PERCENTILES, Ratio, ratio, table
from bench.recorded import as_json, middle_ns, row_of, summary
from bench.rounds import Others, about, asked, heading, write
from bench.servers import BenchError
from bench.wire import say
from fastpath.ring import Ring

SLOT = np.dtype([("due_ns", "i8"), ("rest", "V4088")])  # as large as the engine's
CAPACITY = 8192  # more than a block: where the reader waits for a core, nothing is lost
HOPS = 5_000  # of a block
PERIOD_NS = 100_000
LEAD_NS = 50_000_000  # for both ends to be there
END_S = 20.0
BASE, SAME = "pipe", "compiled-again"
WAYS = {
    "compiled": "the ring, from compiled code",
    SAME: "the same once more",
    "python": "the ring, from Python",
    BASE: "a pipe, from Python",
    "queue": "multiprocessing.SimpleQueue",
}
now_ns = time.monotonic_ns


class Link:
    """What two ends share: a memory file with a ring and a place for each latency, a pipe, a queue."""

    def __init__(self, hop: ModuleType) -> None:
        self.hop = hop
        ring_bytes = Ring.bytes_needed(CAPACITY, SLOT.itemsize)
        self._memory = memoryview(mmap.mmap(-1, ring_bytes + 8 * HOPS))
        self.ring = Ring(self._memory[:ring_bytes], SLOT)
        self.out = np.frombuffer(self._memory[ring_bytes:], np.int64)
        self.read_fd, self.write_fd = os.pipe()
        self.queue = multiprocessing.get_context("fork").SimpleQueue()

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)
        self.queue.close()


def spin_until(due_ns: int) -> None:
    while now_ns() < due_ns:
        pass


def write_compiled(link: Link, start_ns: int) -> None:
    link.hop.write(link.ring, start_ns, PERIOD_NS, HOPS)


def read_compiled(link: Link, until_ns: int) -> None:
    link.hop.read(link.ring, link.out, until_ns)


def write_python(link: Link, start_ns: int) -> None:
    ring, due = link.ring, link.ring.slots["due_ns"]
    for n in range(HOPS):
        due_ns = start_ns + n * PERIOD_NS
        spin_until(due_ns)
        position = ring.claim(1)
        due[position & ring.mask] = due_ns
        ring.publish(position + 1)


def read_python(link: Link, until_ns: int) -> None:
    ring, due = link.ring, link.ring.slots["due_ns"]
    for position in range(HOPS):
        while not ring.peek(position):  # a writer that died is seen by who joins it
            pass
        link.out[position] = now_ns() - due[position & ring.mask]
        ring.release(position + 1)


def write_pipe(link: Link, start_ns: int) -> None:
    for n in range(HOPS):
        due_ns = start_ns + n * PERIOD_NS
        spin_until(due_ns)
        os.write(link.write_fd, struct.pack("<q", due_ns))


def read_pipe(link: Link, until_ns: int) -> None:
    for n in range(HOPS):
        data = os.read(link.read_fd, 8)
        link.out[n] = now_ns() - struct.unpack("<q", data)[0]


def write_queue(link: Link, start_ns: int) -> None:
    for n in range(HOPS):
        due_ns = start_ns + n * PERIOD_NS
        spin_until(due_ns)
        link.queue.put(due_ns)


def read_queue(link: Link, until_ns: int) -> None:
    for n in range(HOPS):
        due_ns = link.queue.get()
        link.out[n] = now_ns() - due_ns


ENDS: dict[str, tuple[Callable[[Link, int], None], Callable[[Link, int], None]]] = {
    "compiled": (write_compiled, read_compiled),
    SAME: (write_compiled, read_compiled),
    "python": (write_python, read_python),
    BASE: (write_pipe, read_pipe),
    "queue": (write_queue, read_queue),
}


def pinned(core: int, end: Callable[[Link, int], None], link: Link, at_ns: int) -> None:
    os.sched_setaffinity(0, {core})
    end(link, at_ns)


def block(way: str, hop: ModuleType, cores: Sequence[int]) -> list[int]:
    """The latencies of one block, in nanoseconds; BenchError where a hop did not arrive."""
    link, context = Link(hop), multiprocessing.get_context("fork")
    start_ns = now_ns() + LEAD_NS
    until_ns = start_ns + HOPS * PERIOD_NS + round(END_S / 2 * 1e9)
    writer, reader = ENDS[way]
    ends = [
        context.Process(target=pinned, args=(cores[0], writer, link, start_ns), daemon=True),
        context.Process(target=pinned, args=(cores[1], reader, link, until_ns), daemon=True),
    ]
    try:
        for end in ends:
            end.start()
        for end in ends:
            end.join(END_S)
        arrived = int(np.count_nonzero(link.out))
        if arrived < HOPS or any(end.exitcode != 0 for end in ends):
            raise BenchError(f"{way}: expected {HOPS} hops, found {arrived} that arrived")
        return [int(each) for each in link.out]
    finally:
        for end in ends:
            if end.is_alive():
                end.kill()
                end.join()
        link.close()


def measure(rounds: int, seed: int) -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """A histogram of each block by way, and one of the clock's own cost."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchError("a hop needs two cores, found one; allow this process a second one")
    draw, found = random.Random(seed), {way: list[np.ndarray]() for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="tickpath-bench-") as folder:
        say("compiling the two ends of a hop")
        hop = compiled.module(Path(__file__).with_name("hop.pyx"), Path(folder))
        clock = np.zeros(HOPS, np.int64)
        hop.clock(clock)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for way in draw.sample(sorted(WAYS), len(WAYS)):
                found[way].append(row_of(block(way, hop, cores[-2:])))
    return found, row_of(clock.tolist())


def ratio_to(found: dict[str, list[np.ndarray]], way: str, base: str) -> Ratio:
    """Of medians, block by block."""
    sides = [[[round(middle_ns(row))] for row in found[each]] for each in (way, base)]
    return ratio(sides[0], sides[1])


def microseconds(value_ns: int | None) -> str:
    return "-" if value_ns is None else f"{value_ns / 1e3:.3f}"


def as_text(found: dict[str, list[np.ndarray]], clock: np.ndarray) -> str:
    rows = []
    for way, words in WAYS.items():
        told, base = summary(np.concatenate(found[way])), "compiled" if way == SAME else BASE
        of = ratio_to(found, way, base)
        cells = [microseconds(told.percentiles_ns[percent]) for percent in PERCENTILES]
        band = f"{of.middle:.3f} ({of.low:.3f} to {of.high:.3f})"
        rows.append([words, str(told.messages), *cells, microseconds(told.max_ns), f"{band} of {base}"])
    head = ["us", "hops", *(f"p{percent:g}" for percent in PERCENTILES), "max", "ratio of medians, block by block"]
    clock_ns = summary(clock).percentiles_ns[50.0]
    return f"{table(head, rows)}\n\none read of the clock, part of each hop: {microseconds(clock_ns)} us"


def main(words: Sequence[str] | None = None) -> int:
    each = f"{HOPS} hops of each way, {1e9 / PERIOD_NS:,.0f} a second"
    arguments = asked("ring", __doc__.split("\n")[0], 10, each, words)
    others = Others()
    try:
        found, clock = measure(arguments.rounds, arguments.seed)
    except BenchError as error:
        print(f"bench.ring: {error}", file=sys.stderr)
        return 1
    facts: dict[str, Any] = about(arguments, others.cores())
    print(heading(f"a hop between two pinned processes; a round has {each}", facts))
    print(as_text(found, clock))
    told = {way: summary(np.concatenate(rows)).percentiles_ns for way, rows in found.items()}
    figures = {
        f"hop_p{percent:g}": {"measured": told["compiled"][percent], "baseline": told[BASE][percent]}
        for percent in (50.0, 99.0)
    }
    ways = {way: {"words": WAYS[way], "rounds": [as_json(row) for row in rows]} for way, rows in found.items()}
    write(arguments.results, {"benchmark": "ring", **facts, "figures": figures, "ways": ways, "clock": as_json(clock)})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Steadiness: whether the host itself keeps its speed, before anything else is measured on it.

Owns the passes and their judgement; run as `python -m bench.steadiness`, a process on each processor. Prints a table,
writes `bench/results/steadiness.json`. Each sums the same MiB again and again, and nothing else; a slow window is one
of 10 ms whose passes took more than twice the median's time. On hardware of one's own there is next to none. Where a
hypervisor takes memory or time away there are, and they are in every latency that is measured there, in nobody's
processor time, and in no count of other work. What must stay true: no pass is left out.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from bench import host
from bench.figures import microseconds, summarise, table

WINDOW_NS = 10_000_000
SLOW = 2.0  # times the median
RESULTS = Path(__file__).parent / "results"


class Steadiness(NamedTuple):
    """Of one processor."""

    slow_share: float  # of its windows
    slow_spells: int  # of one window or more, one after another
    longest_ns: int
    worst: float  # window, over the median


def passes(processor: int, seconds: float) -> tuple[list[int], list[int]]:
    """When each pass began, and how long it took, in nanoseconds; one at least."""
    os.sched_setaffinity(0, {processor})
    block = np.ones(1 << 20, "u1")
    stamps = [time.monotonic_ns()]
    while len(stamps) < 2 or stamps[-1] - stamps[0] < seconds * 1e9:
        block.sum()
        stamps.append(time.monotonic_ns())
    return stamps[:-1], np.diff(stamps).tolist()


def judge(begins: Sequence[int], took: Sequence[int]) -> Steadiness:
    """
    A pass counts in each window that it has a part of.

    >>> judge([0, 10_000_000, 20_000_000, 45_000_000], [10_000_000, 10_000_000, 25_000_000, 5_000_000])
    Steadiness(slow_share=0.4, slow_spells=1, longest_ns=20000000, worst=2.5)
    """
    middle = median(took)
    windows: dict[int, list[int]] = {}
    for begin, each in zip(begins, took, strict=True):
        since = begin - begins[0]
        for number in range(since // WINDOW_NS, (since + each - 1) // WINDOW_NS + 1):
            windows.setdefault(number, []).append(each)
    means = {number: sum(each) / len(each) / middle for number, each in windows.items()}
    slow = [number for number, mean in means.items() if mean > SLOW]
    starts = [number for number in slow if number - 1 not in slow]
    lengths = [next(n for n in range(1, len(slow) + 1) if start + n not in slow) for start in starts]
    return Steadiness(len(slow) / len(means), len(starts), max(lengths, default=0) * WINDOW_NS, max(means.values()))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steadiness", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long (default: 20)")
    parser.add_argument("--seed", type=int, default=None, help="of nothing: nothing is drawn here")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of steadiness.json")
    arguments = parser.parse_args(words)
    about, processors = host.describe(), sorted(os.sched_getaffinity(0))
    print("how steadily this host runs: 1 MiB summed again and again on each processor, and nothing else")
    print(host.line(about))
    with ProcessPoolExecutor(len(processors)) as pool:
        measured = list(pool.map(passes, processors, [arguments.seconds] * len(processors)))
    rows, found = [], {}
    for processor, (begins, took) in zip(processors, measured, strict=True):
        told, steadiness = summarise(took), judge(begins, took)
        found[processor] = {**steadiness._asdict(), "percentiles_ns": told.percentiles_ns, "max_ns": told.max_ns}
        percentiles = [microseconds(told.percentiles_ns[each]) for each in (50.0, 99.0, 99.9)]
        spells = [str(steadiness.slow_spells), f"{steadiness.longest_ns / 1e6:.0f}", f"{steadiness.worst:.1f} x"]
        rows.append([str(processor), str(told.messages), *percentiles, f"{steadiness.slow_share:.2%}", *spells])
    head = ("processor", "passes", "p50 us", "p99", "p99.9", "slow windows", "spells", "longest ms", "slowest window")
    print("\n" + table(head, rows))
    arguments.results.mkdir(parents=True, exist_ok=True)
    result = {"benchmark": "steadiness", "seconds": arguments.seconds, "host": about, "processors": found}
    (arguments.results / "steadiness.json").write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Hours at half the capacity: whether latency and memory stay what they were.

Owns the blocks; run as `python -m bench.soak`. The rate is `--rate`, or half of what `bench.capacity` found. Two
tenants take turns, block by block without a pause: while one sends, the other's generator judges what it got and makes
its next messages. Prints a table, writes `bench/results/soak.json` and two plots, `soak-latency.svg` and
`soak-memory.svg`.

What must stay true: latency counts from the time at which a message was due, and dues know no pause; a block in which
a message had no whole answer is counted, not left out; memory is what no other process shares.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from bench.contenders import CONTENDERS, Driver
from bench.figures import milliseconds, percentile, table
from bench.goals import result_of
from bench.load import CROWDS
from bench.pushed import LIMITS, OPENING_NS, PLAN_NS, streams_of
from bench.rounds import Others, about, asked, heading, write
from bench.servers import Place, scraped
from bench.wire import LEAD_NS, say
from engine.cli.scrape import by_label, parse
from engine.errors import TickpathError
from engine.training.plots import Line, line_chart
from engine.training.svg import Words

ENGINE = "engine"
TENANTS = ("bench", "bench-1")
LOAD = CROWDS[0]
WARM_BLOCKS = 4  # until windows have slid and memory is touched; plotted, and left out of the comparison


class Block(NamedTuple):
    began_s: float  # since the first
    latencies_ns: list[int]  # of messages
    statuses: dict[str, int]
    problems: dict[str, int]
    memory_bytes: dict[str, float]  # by process of the engine
    cpu_s: dict[str, float]  # likewise, so far


class Bench:
    """One run. `blocks` holds what each showed."""

    def __init__(self, seed: int, rate: float, block_s: int) -> None:
        (engine,) = (each for each in CONTENDERS if each.name == ENGINE)
        self.contender = replace(engine, sections=LIMITS)
        self.place = Place([ENGINE])
        self.streams = streams_of(rate)
        self.per_s = self.streams * LOAD.messages_per_s
        self.drivers = [Driver(self.contender, seed, tenant) for tenant in TENANTS]
        self.block_s = block_s
        self.blocks: list[Block] = []

    def open(self) -> None:
        self.place.open()
        say(f"starting {ENGINE}: {self.contender.words}")
        self.contender.start(self.contender, self.place, {})
        for driver in self.drivers:
            driver.open(self.place)
        for driver in self.drivers:  # every key once: its history fills its window
            start_ns = time.monotonic_ns() + LEAD_NS + PLAN_NS * LOAD.vectors * 10 * self.streams
            driver.begin(LOAD, [start_ns + n * OPENING_NS for n in range(self.streams)], (0, self.streams))
            driver.end()

    def run(self, count: int) -> None:
        """So many blocks, one behind the other."""
        self.start_ns = time.monotonic_ns() + LEAD_NS + PLAN_NS * LOAD.vectors * self.per_s * self.block_s
        self._begin(0)
        for number in range(count):
            if number + 1 < count:
                self._begin(number + 1)
            found = self.drivers[number % 2].end()
            samples = parse(scraped(self.place.http[ENGINE]))
            self.blocks.append(
                Block(
                    number * self.block_s,
                    found["latencies_ns"],
                    found["statuses"],
                    found["problems"],
                    by_label(samples, "tickpath_process_private_memory_bytes", "process"),
                    by_label(samples, "tickpath_process_cpu_seconds_total", "process"),
                )
            )
            say(f"  {number * self.block_s / 60:.1f} min: {row_of(self.blocks[-1:])}")

    def _begin(self, number: int) -> None:
        count = self.per_s * self.block_s
        start_ns = self.start_ns + number * self.block_s * 1_000_000_000
        dues_ns = [start_ns + n * 1_000_000_000 // self.per_s for n in range(count)]
        self.drivers[number % 2].begin(LOAD, dues_ns, (0, self.streams))


def row_of(blocks: Sequence[Block]) -> list[str]:
    """Messages, p50, p99, p99.9, the largest, MiB, cores of the engine, what went wrong."""
    latencies = sorted(value for each in blocks for value in each.latencies_ns)
    problems: Counter[str] = sum((Counter(each.problems) for each in blocks), Counter())
    memory = median(sum(each.memory_bytes.values()) for each in blocks) / (1 << 20)
    last, first = blocks[-1], blocks[0]
    wall_s = last.began_s - first.began_s
    cores = (sum(last.cpu_s.values()) - sum(first.cpu_s.values())) / wall_s if wall_s else None
    return [
        str(len(latencies)),
        *(milliseconds(percentile(latencies, percent)) for percent in (50.0, 99.0, 99.9)),
        milliseconds(latencies[-1] if latencies else None),
        f"{memory:.1f}",
        "-" if cores is None else f"{cores:.2f}",
        ", ".join(f"{count} {text}" for text, count in problems.items()) or "-",
    ]


def quarters(blocks: Sequence[Block]) -> list[Sequence[Block]]:
    """Of what came after the warm blocks, the last ones too many for a whole quarter left out."""
    rest = blocks[WARM_BLOCKS:] or blocks
    size = max(1, len(rest) // 4)
    return [part for n in range(4) if (part := rest[n * size : (n + 1) * size])]


def as_text(blocks: Sequence[Block]) -> str:
    names = ["all", *(f"quarter {n}" for n in range(1, 5))]
    rows = [[name, *row_of(part)] for name, part in zip(names, [blocks, *quarters(blocks)], strict=False)]
    return table(["", "messages", "p50 ms", "p99", "p99.9", "max", "MiB", "cores", "problems"], rows)


def plots(blocks: Sequence[Block], rate: float, facts: Mapping[str, Any]) -> dict[str, str]:
    """SVG by file name."""
    minutes = [each.began_s / 60 for each in blocks]
    note = f"{rate:,.0f} vectors/s in messages of ten, {facts['host']['processor']}, "
    note += f"{facts['host']['cores_allowed']} cores; others kept {facts['others_cores']:.2f} of them busy"
    latency = [
        Line(name, minutes, [(percentile(sorted(each.latencies_ns), of) or 0) / 1e6 for each in blocks])
        for name, of in (("p50", 50.0), ("p99", 99.0))
    ]
    processes = sorted({name for each in blocks for name in each.memory_bytes})
    memory = [
        Line(name, minutes, [each.memory_bytes.get(name, 0.0) / (1 << 20) for each in blocks]) for name in processes
    ]
    top = {"latency": 1.1 * max(max(line.y) for line in latency), "memory": 1.1 * max(max(line.y) for line in memory)}
    return {
        f"soak-{what}.svg": line_chart(
            Words(title, "minutes", unit, note), lines, y_range=(0.0, max(1.0, top[what])), x_ticks=ticks(minutes[-1])
        )
        for what, title, unit, lines in (
            ("latency", "Latency of a message, block by block", "ms", latency),
            ("memory", "Memory that no other process shares", "MiB", memory),
        )
    }


def ticks(last: float) -> list[float]:
    """
    >>> ticks(59.5), ticks(4.0)
    ([0, 10, 20, 30, 40, 50, 60], [0, 1, 2, 3, 4])
    """
    step = next(each for each in (1, 2, 5, 10, 30, 60) if last / each <= 8 or each == 60)
    return [n * step for n in range(-int(-last // step) + 1)]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--block", type=int, default=30, metavar="S", help="of a block (default: 30)")
    parser.add_argument("--rate", type=float, default=0.0, help="vectors/s (default: half of bench.capacity's)")


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("soak", __doc__.split("\n")[0], 120, "a block", words, options)
    known = (result_of(arguments.results, "capacity") or {}).get("figures", {})
    rate = arguments.rate or known.get("steady", {}).get("measured", 0.0) / 2
    if not rate:
        told = "expected a rate, found none; run python -m bench.capacity before, or give --rate"
        print(f"bench.soak: {told}", file=sys.stderr)
        return 1
    bench, others, ended = Bench(arguments.seed, rate, arguments.block), Others(), ""
    try:
        bench.open()
        bench.run(arguments.rounds)
    except TickpathError as error:  # what there is by then is shown
        ended = str(error)
        print(f"bench.soak: {error}", file=sys.stderr)
    finally:
        bench.place.close()
    if not bench.blocks:
        return 1
    facts = about(arguments, others.cores())
    rate = bench.streams * LOAD.messages_per_s * LOAD.vectors
    print(heading(f"{len(bench.blocks) * arguments.block / 60:g} minutes of {rate:,.0f} vectors/s", facts))
    print(as_text(bench.blocks))
    blocks = [
        {**each._asdict(), "latencies_ns": None, "shown": row_of([each])} for each in bench.blocks
    ]  # the latencies of an hour would be a hundred megabytes
    write(arguments.results, {"benchmark": "soak", **facts, "rate": rate, "blocks": blocks})
    for name, drawn in plots(bench.blocks, rate, facts).items():
        (arguments.results / name).write_text(drawn)
    return 1 if ended or any(each.problems for each in bench.blocks) else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a vector costs as there are more of them: in a message, by symbol, by tenant, and on more workers.

Owns the rounds; run as `python -m bench.scaling`. An engine with one worker, one with two, and the plain service as
the baseline get the same number of vectors a second in each point, one point after another in shuffled order. Prints
a table, writes `bench/results/scaling.json` and beside it a plot for each of the four, `scaling-<of>.svg`.

What must stay true: a cost is processor time of all of a contender's processes over the vectors that it answered,
idling between them included; within a plot nothing differs but what its axis says.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from bench import host
from bench.contenders import CONTENDERS, Contender, Driver
from bench.figures import milliseconds, percentile, table
from bench.load import CROWDS, SIZED, Load
from bench.pushed import LIMITS, OPENING_NS
from bench.rounds import about, asked, heading, run, write
from bench.servers import Place
from bench.wire import LEAD_NS, say
from engine.errors import TickpathError
from engine.training.plots import Line, line_chart
from engine.training.svg import Words

VECTORS_PER_S = 400
ONE, TWO, BASE = "engine", "engine-two", "plain-remembering"
TENANTS = (1, 2, 4, 8)
STREAMS = (1, 4, 16, 64)
CROWD = CROWDS[0]
TITLES = {
    "vectors": "vectors in a message",
    "symbols": "keys (stream and symbol), in messages of ten",
    "tenants": "tenants, in messages of ten",
    "workers": "workers, in messages of ten",
}


class Point(NamedTuple):
    of: str
    x: int
    contender: str
    load: Load
    tenants: int = 1
    streams: int = 1  # of each tenant, where the load is a crowd's

    @property
    def line(self) -> str:
        return "engine" if self.contender in (ONE, TWO) else "plain service"


def points() -> list[Point]:
    found = [Point("vectors", load.vectors, who, load) for load in SIZED for who in (ONE, BASE)]
    found += [Point("symbols", CROWD.vectors * n, who, CROWD, 1, n) for n in STREAMS for who in (ONE, BASE)]
    found += [Point("tenants", n, who, CROWD, n) for n in TENANTS for who in (ONE, BASE)]
    return [*found, Point("workers", 1, ONE, CROWD, 1, STREAMS[1]), Point("workers", 2, TWO, CROWD, 1, STREAMS[1])]


class Measure(NamedTuple):
    """Of a point in a round."""

    core_us: float  # a vector
    latencies_ns: list[int]  # of messages
    problems: dict[str, int]


class Bench:
    """One run. `found` holds each point's measures."""

    def __init__(self, seed: int, part_s: float, wanted: Sequence[str]) -> None:
        by_name = {each.name: each for each in CONTENDERS}
        engine = replace(by_name["engine"], sections=LIMITS)
        self.contenders = [
            replace(engine, workers=1),
            Contender(TWO, "the same with two workers", False, engine.start, workers=2, sections=LIMITS),
            by_name[BASE],
        ]
        self.found: dict[Point, list[Measure]] = {point: [] for point in points() if point.of in wanted}
        asked_for = {point.contender for point in self.found}
        self.contenders = [each for each in self.contenders if each.name in asked_for]
        self.place = Place([each.name for each in self.contenders])
        self.seed, self.part_s, self.draw = seed, part_s, random.Random(seed)
        self.drivers: dict[tuple[str, int], Driver] = {}

    def open(self) -> None:
        self.place.open()
        for each in self.contenders:
            say(f"starting {each.name}: {each.words}")
            each.start(each, self.place, {})
            for n in range(max(point.tenants for point in self.found if point.contender == each.name)):
                self.drivers[each.name, n] = Driver(each, self.seed, f"bench-{n}" if n else "bench")
                self.drivers[each.name, n].open(self.place)
        for point in self.found:  # every key once: its history fills its window
            self._send(point, [1 + max(point.streams, 10)] * point.tenants, OPENING_NS)

    def round(self) -> None:
        for point in self.draw.sample(list(self.found), len(self.found)):
            pid = self.place.processes[point.contender].pid
            messages = max(1, round(self.part_s * VECTORS_PER_S / point.load.vectors / point.tenants))
            used_s = host.used_s([pid])
            found = self._send(point, [messages] * point.tenants, round(self.part_s * 1e9 / messages))
            spent_s = host.used_s([pid]) - used_s
            latencies = [value for each in found for value in each["latencies_ns"]]
            problems: Counter[str] = sum((Counter(each["problems"]) for each in found), Counter())
            core_us = spent_s / max(1, len(latencies) * point.load.vectors) * 1e6
            self.found[point].append(Measure(core_us, latencies, dict(problems)))

    def _send(self, point: Point, messages: Sequence[int], period_ns: int) -> list[dict[str, Any]]:
        """So many messages of each tenant; tenants take turns within a period."""
        drivers = [self.drivers[point.contender, n] for n in range(point.tenants)]
        start_ns = time.monotonic_ns() + LEAD_NS
        for n, (driver, count) in enumerate(zip(drivers, messages, strict=True)):
            shift_ns = n * period_ns // point.tenants
            dues = [start_ns + shift_ns + k * period_ns for k in range(count)]
            driver.begin(point.load, dues, (0, point.streams) if point.load is CROWD else None)
        return [driver.end() for driver in drivers]


def middle_us(found: Sequence[Measure]) -> float:
    return median(each.core_us for each in found)


def lines_of(found: Mapping[Point, Sequence[Measure]], of: str) -> list[Line]:
    """A message's cost where messages grow, which a straight line is; else a vector's, which a level line is."""
    lines = []
    for name in dict.fromkeys(point.line for point in found if point.of == of):
        mine = [point for point in found if point.of == of and point.line == name]
        scale = [point.x if of == "vectors" else 1 for point in mine]
        spans = [sorted(each.core_us for each in found[point]) for point in mine]
        cost = [median(values) * by for values, by in zip(spans, scale, strict=True)]
        low, high = ([values[at] * by for values, by in zip(spans, scale, strict=True)] for at in (0, -1))
        lines.append(Line(name, [point.x for point in mine], cost, low, high))
    return lines


def plot(found: Mapping[Point, Sequence[Measure]], of: str, facts: Mapping[str, Any]) -> str:
    unit = "a message" if of == "vectors" else "a vector"
    note = f"{VECTORS_PER_S} vectors/s, {facts['host']['processor']}, {facts['host']['cores_allowed']} cores; "
    note += f"others kept {facts['others_cores']:.2f} of them busy"
    words = Words(f"Core time of {unit}, by {of}", TITLES[of], "us of a core", note)
    ticks = sorted({point.x for point in found if point.of == of})
    lines = lines_of(found, of)
    top = max(value for line in lines for value in line.high or line.y)
    return line_chart(words, lines, y_range=(0.0, max(1.0, 1.1 * top)), x_ticks=ticks, log_x=of != "vectors")


def as_text(found: Mapping[Point, Sequence[Measure]]) -> str:
    rows = []
    for point, measures in found.items():
        latencies = sorted(value for each in measures for value in each.latencies_ns)
        problems: Counter[str] = sum((Counter(each.problems) for each in measures), Counter())
        costs = sorted(each.core_us for each in measures)
        least = next(other for other in found if (other.of, other.line) == (point.of, point.line))
        base = [other for other in found if other[:2] == point[:2] and other.contender == BASE]
        of_base = (
            f"{middle_us(measures) / middle_us(found[base[0]]):.2f}" if base and middle_us(found[base[0]]) else "-"
        )
        first = middle_us(found[least])
        rows.append(
            [
                f"{point.x} {TITLES[point.of]}, {point.contender}",
                str(len(latencies)),
                f"{middle_us(measures):,.0f} ({costs[0]:,.0f} to {costs[-1]:,.0f})",
                f"{middle_us(measures) / first:.2f}" if first else "-",
                of_base,
                *(milliseconds(percentile(latencies, percent)) for percent in (50.0, 99.0)),
                ", ".join(f"{count} {text}" for text, count in problems.items()) or "-",
            ]
        )
    head = ["", "messages", "core us a vector", "of the first row", "of plain", "p50 ms", "p99 ms", "problems"]
    return table(head, rows)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--of", nargs="+", choices=list(TITLES), default=list(TITLES), help="only these")
    parser.add_argument("--part", type=float, default=3.0, metavar="S", help="of a point in a round (default: 3)")


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("scaling", __doc__.split("\n")[0], 3, "each point once", words, options)
    bench = Bench(arguments.seed, arguments.part, arguments.of)
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.scaling: {error}", file=sys.stderr)
        return 1
    print(heading(f"what a vector costs as there are more of them, {VECTORS_PER_S} vectors/s at every point", facts))
    print(as_text(bench.found))
    result = [
        {**point._asdict(), "load": point.load.name, "measures": [each._asdict() for each in measures]}
        for point, measures in bench.found.items()
    ]
    write(arguments.results, {"benchmark": "scaling", **facts, "part_s": arguments.part, "points": result})
    for of in arguments.of:
        (arguments.results / f"scaling-{of}.svg").write_text(plot(bench.found, of, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Wire to wire: how long a message waits for its whole answer, over a real nats-server, in open loop.

Owns the rounds; run as `python -m bench.wire`. Starts all that it needs, prints tables, writes
`bench/results/wire.json`. Contenders: a raw echo (the floor), the same echo again (how far two equal
contenders lie apart in this run), the same models in a plain asyncio service, the engine.

A round has two parts. In the first, every contender gets each 200 ms one message of ten vectors, in
shuffled turns, so that they share whatever the host does. In the second, each contender in shuffled
order gets 500 messages a second of one vector for a while, alone. What must stay true: latency counts
from the time at which a message was due; a contender that left a message unanswered, or answered one
twice or wrongly, has no figure; nothing is chosen from several runs.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench import host
from bench.contenders import CONTENDERS, SIZES, Contender, Driver
from bench.load import BATCHES, LOADS, SINGLES, Load
from bench.report import Measured, as_json, as_text
from bench.servers import Place
from engine.errors import TickpathError

LEAD_NS = 400_000_000  # for generators to make a round's messages before its first is due
ROUND_S = 15.0
SHARED_PART = 2 / 3  # of a round's time
WARM_MESSAGES: Mapping[str, int] = {BATCHES.name: 15, SINGLES.name: 500}
WARM_PERIOD_NS = 40_000_000  # at most
RESULTS = Path(__file__).parent / "results"


@dataclass
class Bench:
    """One run's contenders."""

    place: Place
    draw: random.Random
    drivers: dict[str, Driver] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)

    def open(self, contenders: Sequence[Contender], seed: int) -> None:
        """Services first and warm, because echoes answer with as many bytes as they did."""
        sizes = dict(SIZES)
        self.place.open()
        for contender in sorted(contenders, key=lambda each: each.is_echo):
            say(f"starting {contender.name}: {contender.words}")
            contender.start(contender, self.place, sizes)
            driver = self.drivers[contender.name] = Driver(contender, seed)
            driver.sizes = sizes
            driver.open(self.place)
            for load in LOADS:
                answer_bytes = self._warm(driver, load)
                if not contender.is_echo:
                    sizes[load.name] = answer_bytes  # the engine is started last of them

    def _warm(self, driver: Driver, load: Load) -> int:
        """Fills windows and caches; the median size of an answer."""
        driver.begin(load, dues(min(load.period_ns, WARM_PERIOD_NS), WARM_MESSAGES[load.name]))
        found = driver.end()
        if found["problems"]:
            say(f"  warm-up of {driver.contender.name}, {load.words}: {found['problems']}")
        return round(median(found["answer_bytes"])) if found["answer_bytes"] else SIZES[load.name]

    def shared_part(self, seconds: float) -> None:
        """The batches: all contenders in turn."""
        periods = max(1, round(seconds * BATCHES.messages_per_s))
        turn_ns = BATCHES.period_ns // len(self.drivers)
        start_ns = time.monotonic_ns() + LEAD_NS
        turns: dict[str, list[int]] = {name: [] for name in self.drivers}
        for period in range(periods):
            order = self.draw.sample(sorted(self.drivers), len(self.drivers))
            for turn, name in enumerate(order):
                turns[name].append(start_ns + period * BATCHES.period_ns + turn * turn_ns)
        before = self._used()
        for name, driver in self.drivers.items():
            driver.begin(BATCHES, turns[name])
        found = {name: driver.end() for name, driver in self.drivers.items()}
        used = self._used()
        for name in self.drivers:
            self.measured.add(name, BATCHES, found[name], used[name] - before[name])

    def lone_part(self, seconds: float) -> None:
        """The single vectors: one contender after another."""
        for name in self.draw.sample(sorted(self.drivers), len(self.drivers)):
            before = self._used()
            driver = self.drivers[name]
            driver.begin(SINGLES, dues(SINGLES.period_ns, max(1, round(seconds * SINGLES.messages_per_s))))
            found = driver.end()
            used = self._used()
            self.measured.add(name, SINGLES, found, used[name] - before[name])
            for other in self.drivers:
                if other != name:
                    self.measured.idled(other, used[other] - before[other], found["wall_s"])

    def _used(self) -> dict[str, float]:
        return {name: host.used_s([self.place.processes[name].pid]) for name in self.drivers}


def dues(period_ns: int, count: int) -> list[int]:
    start_ns = time.monotonic_ns() + LEAD_NS
    return [start_ns + n * period_ns for n in range(count)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(contenders: Sequence[Contender], seconds: float, seed: int) -> Measured:
    """The whole benchmark; `seconds` of load, beside starts and warm-up."""
    bench = Bench(Place([each.name for each in contenders]), random.Random(seed))
    rounds = max(2, round(seconds / ROUND_S))
    shared_s = seconds / rounds * SHARED_PART
    lone_s = (seconds / rounds - shared_s) / len(contenders)
    try:
        bench.open(contenders, seed)
        begun_s, busy_s, ours_s = time.monotonic(), host.busy_s(), host.used_s([os.getpid()])
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            bench.shared_part(shared_s)
            bench.lone_part(lone_s)
        wall_s = time.monotonic() - begun_s
        others_s = host.busy_s() - busy_s - (host.used_s([os.getpid()]) - ours_s)
        bench.measured.others_cores = max(0.0, others_s) / wall_s
    finally:
        bench.place.close()
    return bench.measured


def main(words: Sequence[str] | None = None) -> int:
    return course("wire", "one nats-server", CONTENDERS, __doc__, words)


def course(name: str, over: str, contenders: Sequence[Contender], doc: str, words: Sequence[str] | None) -> int:
    """A whole benchmark of this kind, from its command line to its exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=doc.split("\n")[0])
    known = [each.name for each in contenders]
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="of load, beside starts and warm-up (default: 180)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of prices and turns (default: drawn, and printed)")
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of {name}.json")
    arguments = parser.parse_args(words)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    asked = [each for each in contenders if each.name in arguments.only]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that everything is ended, too
    try:
        measured = measure(asked, arguments.seconds, seed)
    except TickpathError as error:
        print(f"bench.{name}: {error}", file=sys.stderr)
        return 1
    about: dict[str, Any] = {
        "benchmark": name,
        "over": over,
        "seed": seed,
        "seconds": arguments.seconds,
        "host": host.describe(),
    }
    print(as_text(measured, asked, about))
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"{name}.json").write_text(json.dumps(as_json(measured, asked, about)) + "\n")
    return 1 if any(measured.problems(each.name, load) for each in asked for load in LOADS) else 0


if __name__ == "__main__":
    sys.exit(main())

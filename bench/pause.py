"""After a pause: what the first message costs when nothing was sent for a second, or for a minute.

Owns the rounds; run as `python -m bench.pause`. Contenders: a raw echo, the same again (A/A), the engine, each asked
for one message of one vector a pause; turns are shuffled and as far apart as they can be, so that the whole host has
rested before each. Prints a table, writes `bench/results/pause.json`. What must stay true: latency counts from the
time at which a message was due; all contenders have the same pauses in the same rounds.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.contenders import CONTENDERS
from bench.figures import Ratio, milliseconds, percentile, ratio, table
from bench.load import SINGLES
from bench.rounds import about, asked, heading, run, write
from bench.servers import Place
from bench.wire import LEAD_NS
from bench.wire import Bench as Wire
from engine.errors import TickpathError

ENGINE, BASE, SAME = "engine", "echo", "echo-again"
Rounds = dict[str, dict[str, list[dict[str, Any]]]]  # by pause, then by contender


class Bench:
    """One run. `rounds` holds what each contender showed after each pause."""

    def __init__(self, seed: int, pauses: Mapping[str, tuple[float, int]]) -> None:
        contenders = [each for each in CONTENDERS if each.name in (ENGINE, BASE, SAME)]
        self.place = Place([each.name for each in contenders])
        self.wire, self.contenders = Wire(self.place, random.Random(seed)), contenders
        self.seed, self.pauses = seed, pauses
        self.rounds: Rounds = {pause: {each.name: [] for each in contenders} for pause in pauses}

    def open(self) -> None:
        self.wire.open(self.contenders, self.seed)

    def round(self) -> None:
        for pause, (seconds, messages) in self.pauses.items():
            turn_ns = round(seconds * 1e9 / len(self.contenders))
            start_ns = time.monotonic_ns() + LEAD_NS + turn_ns
            dues: dict[str, list[int]] = {each.name: [] for each in self.contenders}
            order = self.wire.draw.sample(sorted(dues), len(dues))  # one for the round: each rests for a whole pause
            for n in range(messages):
                for turn, name in enumerate(order):
                    dues[name].append(start_ns + (n * len(order) + turn) * turn_ns)
            for name, driver in self.wire.drivers.items():
                driver.begin(SINGLES, dues[name])
            for name, driver in self.wire.drivers.items():
                self.rounds[pause][name].append(driver.end())


def latencies(found: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    return [each["latencies_ns"] for each in found]


def middle_ns(found: Sequence[Mapping[str, Any]]) -> float | None:
    values = [value for each in latencies(found) for value in each]
    return median(values) if values else None


def ratio_to(found: Mapping[str, Sequence[Mapping[str, Any]]], name: str) -> Ratio:
    return ratio(latencies(found[name]), latencies(found[BASE]))


def as_text(rounds: Rounds, pauses: Mapping[str, tuple[float, int]]) -> str:
    rows = []
    for pause, by_name in rounds.items():
        for name, found in by_name.items():
            values = sorted(value for each in latencies(found) for value in each)
            problems: Counter[str] = sum((Counter(each["problems"]) for each in found), Counter())
            late = sorted(value for each in found for value in each["late_ns"])
            of = ratio_to(by_name, name)
            rows.append(
                [
                    f"{name}, after {pauses[pause][0]:g} s",
                    str(len(values)),
                    milliseconds(round(median(values))),
                    *(milliseconds(percentile(values, percent)) for percent in (90.0, 99.0)),
                    milliseconds(values[-1]),
                    f"{of.middle:.2f} ({of.low:.2f} to {of.high:.2f})",
                    milliseconds(round(median(late))),
                    ", ".join(f"{count} {text}" for text, count in problems.items()) or "-",
                ]
            )
    head = ["ms", "messages", "p50", "p90", "p99", "max", f"of {BASE}, round by round", "sent late p50", "problems"]
    return table(head, rows)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--short", type=float, default=1.0, metavar="S", help="the short pause (default: 1)")
    parser.add_argument("--long", type=float, default=60.0, metavar="S", help="the long one, 0: none (default: 60)")
    parser.add_argument("--messages", type=int, default=20, help="after short pauses, of a round (default: 20)")
    parser.add_argument("--long-messages", type=int, default=2, help="after long ones (default: 2)")


def main(words: Sequence[str] | None = None) -> int:
    each = "messages after short pauses, then after long ones"
    arguments = asked("pause", __doc__.split("\n")[0], 3, each, words, options)
    every = {"short": (arguments.short, arguments.messages), "long": (arguments.long, arguments.long_messages)}
    pauses = {name: pause for name, pause in every.items() if pause[0] > 0 and pause[1] > 0}
    bench = Bench(arguments.seed, pauses)
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.pause: {error}", file=sys.stderr)
        return 1
    print(heading("wire to wire after a pause, one message of one vector at a time", facts))
    print(as_text(bench.rounds, pauses))
    figures = {
        f"{pause}_p50": {"measured": middle_ns(by_name[ENGINE]), "baseline": middle_ns(by_name[BASE])}
        for pause, by_name in bench.rounds.items()
    }
    result = {"benchmark": "pause", **facts, "pauses": pauses, "figures": figures, "rounds_of": bench.rounds}
    write(arguments.results, result)
    return 1 if any(each["problems"] for found in bench.rounds.values() for each in found[ENGINE]) else 0


if __name__ == "__main__":
    sys.exit(main())

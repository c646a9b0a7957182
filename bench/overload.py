"""Ten seconds of twice the capacity: how long until latency is normal again, what memory grew, and who had no answer.

Owns the rounds; run as `python -m bench.overload`. The capacity is `--rate`, or what `bench.capacity` found. In each
round the engine, and the plain service as the baseline, in shuffled order, get half the capacity, then twice of it,
then half again, without a pause. Prints a table, writes `bench/results/overload.json`.

What must stay true: latency counts from the time at which a message was due; normal is what the same round showed
before the overload; an answer that says EXPIRED or `overloaded` is an answer, and is counted as what it says; a
message without one is counted too.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from bench import host
from bench.contenders import CONTENDERS
from bench.fair import Metrics
from bench.figures import milliseconds, percentile, table
from bench.goals import result_of
from bench.load import CROWDS
from bench.pushed import LIMITS, Pushed
from bench.rounds import about, asked, heading, run, write
from bench.servers import BenchError, Place
from bench.wire import say
from engine.errors import TickpathError

ENGINE, BASE = "engine", "plain-remembering"
BEFORE_S, AFTER_S = 4.0, 8.0
BUCKET_NS = 100_000_000
STEADY_BUCKETS = 5  # of normal latency, one after another, that count as back to normal
UNANSWERED, TWICE = "no answer", "answered twice"


def recovery_ns(due_ns: Sequence[int], latencies_ns: Sequence[int], begin_ns: int, end_ns: int) -> int | None:
    """From the overload's end to the first message of half a second that is normal again; None where none is.

    Normal: the median of each tenth of a second is at most the p99, or the largest, of all before `begin_ns`.

    >>> recovery_ns(range(0, 900, 100), [5] * 9, 200, 300), recovery_ns([0], [5], 200, 300)
    (0, None)
    """
    both = list(zip(due_ns, latencies_ns, strict=True))
    before = sorted(latency for due, latency in both if due < begin_ns)
    buckets: dict[int, list[int]] = {}
    for due, latency in both:
        if due >= end_ns:
            buckets.setdefault((due - end_ns) // BUCKET_NS, []).append(latency)
    if not before or not buckets:
        return None
    bound = percentile(before, 99.0) or before[-1]
    numbers = sorted(buckets)
    normal = [median(buckets[number]) <= bound for number in numbers]
    for at, number in enumerate(numbers):
        if all(normal[at : at + STEADY_BUCKETS]):
            return number * BUCKET_NS
    return None


class Bench:
    """One run. `rounds` holds what each contender showed."""

    def __init__(self, seed: int, rate: float, seconds: float) -> None:
        by_name = {each.name: each for each in CONTENDERS}
        self.contenders = [replace(by_name[ENGINE], sections=LIMITS), by_name[BASE]]
        self.place = Place([each.name for each in self.contenders])
        self.draw, self.seed, self.rate, self.seconds = random.Random(seed), seed, rate, seconds
        self.pushed: dict[str, Pushed] = {}
        self.rounds: dict[str, list[dict[str, Any]]] = {ENGINE: [], BASE: []}

    def open(self) -> None:
        self.place.open()
        for each in self.contenders:
            self.pushed[each.name] = Pushed(each, self.seed)
            self.pushed[each.name].open(self.place)
        self.metrics = Metrics(self.place.http[ENGINE])
        for name in list(self.pushed):  # every key once, then all is warm
            self._asked(
                name, lambda name: self.pushed[name].send(CROWDS[0], [(2 * self.rate, 0.2), (self.rate / 2, 1.0)])
            )

    def round(self) -> None:
        for name in self.draw.sample(sorted(self.pushed), len(self.pushed)):
            self._asked(name, lambda name: self.rounds[name].append(self._of(name)))

    def _asked(self, name: str, ask: Callable[[str], Any]) -> None:
        """A baseline that breaks under what the engine takes is left out from there on."""
        try:
            ask(name)
        except BenchError as error:
            if name == ENGINE:
                raise
            say(f"{name} is left out from here on: {str(error).splitlines()[-1].strip()}")
            del self.pushed[name]

    def _of(self, name: str) -> dict[str, Any]:
        before = self._memory(name)
        parts = [(self.rate / 2, BEFORE_S), (2 * self.rate, self.seconds), (self.rate / 2, AFTER_S)]
        found = self.pushed[name].send(CROWDS[0], parts)
        if not found["due_ns"]:
            raise BenchError(f"{name}: expected answers, found none: {found['problems']}")
        begin_ns = found["due_ns"][0] + round(BEFORE_S * 1e9)
        end_ns = begin_ns + round(self.seconds * 1e9)
        told = answers_of(found)
        back_ns = recovery_ns(found["due_ns"], found["latencies_ns"], begin_ns, end_ns)
        spans = {"before": (0, begin_ns), "overload": (begin_ns, end_ns), "after": (end_ns, 1 << 62)}
        latencies = {
            span: [a for due, a in zip(found["due_ns"], found["latencies_ns"], strict=True) if low <= due < high]
            for span, (low, high) in spans.items()
        }
        return {
            "recovery_ns": back_ns,
            "answers": told,
            "memory_bytes": [before, self._memory(name)],
            "latencies_ns": latencies,
        }

    def _memory(self, name: str) -> int:
        """That no other process shares."""
        if name == ENGINE:
            self.metrics.settle()
            return int(self.metrics.read()["tickpath_process_private_memory_bytes"])
        return host.private_bytes(self.place.processes[name].pid)


def answers_of(found: Mapping[str, Any]) -> dict[str, int]:
    """Vectors by status; messages by what was wrong with them, without the words after a code."""
    told: Counter[str] = Counter({f"{name} vectors": count for name, count in found["statuses"].items()})
    for text, count in found["problems"].items():
        if text.startswith("refused as ") or text in (UNANSWERED, TWICE):
            told[f"{text.partition(':')[0]}, messages"] += count
    return dict(told)


def worst_ns(rounds: Sequence[Mapping[str, Any]]) -> int | None:
    """The middle of the rounds' recoveries; None where one did not come back."""
    found = [each["recovery_ns"] for each in rounds]
    return None if None in found or not found else round(median(found))


def unanswered(rounds: Sequence[Mapping[str, Any]]) -> int:
    return sum(each["answers"].get(f"{UNANSWERED}, messages", 0) for each in rounds) * CROWDS[0].vectors


def as_text(rounds: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows, lines = [], []
    for name, found in rounds.items():
        if not found:
            lines.append(f"{name}: no round that it survived")
            continue
        cells = []
        for span in ("before", "overload", "after"):
            values = sorted(value for each in found for value in each["latencies_ns"][span])
            cells += [milliseconds(percentile(values, percent)) for percent in (50.0, 99.0)]
        back = [each["recovery_ns"] for each in found]
        told = ", ".join("never" if each is None else f"{each / 1e9:.1f}" for each in back)
        grown = max((each["memory_bytes"][1] - each["memory_bytes"][0]) / (1 << 20) for each in found)
        rows.append([name, *cells, told, f"{found[0]['memory_bytes'][0] / (1 << 20):.0f}", f"{grown:+.0f}"])
        counts: Counter[str] = sum((Counter(each["answers"]) for each in found), Counter())
        lines.append(f"{name}: " + ", ".join(f"{count} {text}" for text, count in sorted(counts.items())))
    head = ["ms", "before p50", "p99", "overload p50", "p99", "after p50", "p99"]
    head += ["normal again after s", "MiB before", "grown at most"]
    return "\n".join([table(head, rows), "", *lines])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=0.0, help="the capacity, vectors/s (default: as bench.capacity)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of overload (default: 10)")


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("overload", __doc__.split("\n")[0], 3, "an overload of each contender", words, options)
    known = (result_of(arguments.results, "capacity") or {}).get("figures", {})
    rate = arguments.rate or known.get("steady", {}).get("measured", 0.0)
    if not rate:
        told = "expected a capacity, found none; run python -m bench.capacity before, or give --rate"
        print(f"bench.overload: {told}", file=sys.stderr)
        return 1
    bench = Bench(arguments.seed, rate, arguments.seconds)
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.overload: {error}", file=sys.stderr)
        return 1
    rounds = bench.rounds
    print(
        heading(f"{arguments.seconds:g} s of {2 * rate:,.0f} vectors/s, twice the capacity, between half of it", facts)
    )
    print(as_text(rounds))
    figures = {
        "recovery": {"measured": worst_ns(rounds[ENGINE]), "baseline": worst_ns(rounds[BASE]), "why": "not seen"},
        "unanswered": {
            "measured": unanswered(rounds[ENGINE]),
            "baseline": unanswered(rounds[BASE]) if rounds[BASE] else None,
        },
    }
    write(arguments.results, {"benchmark": "overload", **facts, "rate": rate, "figures": figures, "rounds_of": rounds})
    return 1 if unanswered(rounds[ENGINE]) else 0


if __name__ == "__main__":
    sys.exit(main())

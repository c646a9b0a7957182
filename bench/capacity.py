"""How many vectors a second are answered with p99 under 15 ms, in messages of ten, ten times a second a key.

Owns the search; run as `python -m bench.capacity`. Cases: the engine; the same where each vector closes a minute; the
plain service of `bench.plain_service` as the baseline. All, generators and nats-server too, are on two cores. With
`--alone`, which needs four, the engine has two to itself and the others are elsewhere. A round searches each case
once, in shuffled order: rates double until one fails, then the gap is halved until it is small or the time is over.
Prints where the processors' time went, writes `bench/results/capacity.json`, or `capacity-alone.json`.

What must stay true: latency counts from the time at which a message was due, over every message of a trial; a rate
fails that left one message without its right answer; a rate that failed was tried twice; the figure is the middle of
the rounds, never the best.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench.contenders import CONTENDERS, Contender, start_engine
from bench.figures import milliseconds, percentile, table
from bench.load import CROWDS, Load
from bench.pushed import LIMITS, PER_STREAM, RATE_MAX, Pushed, streams_of
from bench.rounds import about, asked, heading, run, write
from bench.servers import BenchError, Place
from bench.wire import say
from engine.errors import TickpathError

MESSAGES_MIN = 520  # of a trial: a p99 of fewer says nothing
START = 800.0  # vectors/s
CLOSE = 1.1  # the gap between a rate that passed and one that failed, at which a search ends
CORES, CORES_ALONE = 2, 4
STEADY, MINUTES = CROWDS


class Case(NamedTuple):
    name: str
    words: str
    contender: str
    load: Load


BASE = Case("plain", "the plain service", "plain-remembering", STEADY)
ENGINE = (
    Case("steady", "the engine", "engine", STEADY),
    Case("minutes", "the engine, each vector closes a minute", "engine", MINUTES),
)


class Trial(NamedTuple):
    rate: float
    passed: bool
    found: dict[str, Any]
    cores: dict[str, float]  # by process, of all of the trial

    @property
    def p99_ns(self) -> int | None:
        return percentile(sorted(self.found["latencies_ns"]), 99.0)


def settle_down(alone: bool) -> list[int]:
    """Keeps this process, and what it starts from here on, off all cores but its own; the engine's cores."""
    cores = sorted(os.sched_getaffinity(0))
    if alone and len(cores) < CORES_ALONE:
        raise BenchError(f"--alone: expected {CORES_ALONE} cores or more, found {len(cores)}; leave it out")
    os.sched_setaffinity(0, cores[CORES:] if alone else cores[:CORES])
    return cores[:CORES]


def start_pinned(cores: Sequence[int]) -> Callable[[Contender, Place, Mapping[str, int]], None]:
    def start(contender: Contender, place: Place, sizes: Mapping[str, int]) -> None:
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)  # the engine and all that it starts inherit it
        try:
            start_engine(contender, place, sizes)
        finally:
            os.sched_setaffinity(0, ours)

    return start


class Bench:
    """One run. `found` holds each case's searches, a list of trials each."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        engine_cores = settle_down(arguments.alone)
        engine = Contender("engine", "python -m engine run", False, start_pinned(engine_cores), sections=LIMITS)
        plain = next(each for each in CONTENDERS if each.name == BASE.contender)
        self.contenders = [engine] if arguments.alone else [engine, plain]
        self.cases = ENGINE if arguments.alone else (*ENGINE, BASE)
        self.place = Place([each.name for each in self.contenders])
        self.draw, self.seed = random.Random(arguments.seed), arguments.seed
        self.trial_s, self.limit_s, self.p99_ns = arguments.trial, arguments.limit, arguments.p99 * 1e6
        self.pushed: dict[str, Pushed] = {}
        self.found: dict[str, list[list[Trial]]] = {case.name: [] for case in self.cases}

    def open(self) -> None:
        self.place.open()
        for each in self.contenders:
            self.pushed[each.name] = Pushed(each, self.seed)
            self.pushed[each.name].open(self.place)

    def round(self) -> None:
        for case in self.draw.sample(self.cases, len(self.cases)):
            self.found[case.name].append(self._search(case))

    def _search(self, case: Case) -> list[Trial]:
        until_s = time.monotonic() + self.limit_s
        trials: list[Trial] = []
        good, bad, rate = 0.0, float("inf"), START
        while time.monotonic() < until_s and bad / max(good, PER_STREAM / 2) > CLOSE and PER_STREAM <= rate <= RATE_MAX:
            trial = self._trial(case, rate)
            trials.append(trial)
            if not trial.passed:
                trials.append(trial := self._trial(case, rate))
            good, bad = (rate, bad) if trial.passed else (good, rate)
            middle = 2 * good if bad == float("inf") else (good + bad) / 2 if good else bad / 2
            rate = streams_of(middle) * float(PER_STREAM)
            if rate in (good, bad):
                break
        return trials

    def _trial(self, case: Case, rate: float) -> Trial:
        pushed = self.pushed[case.contender]
        seconds = max(self.trial_s, MESSAGES_MIN * case.load.vectors / rate)
        before, begun_s = pushed.used_s(), time.monotonic()
        found = pushed.send(case.load, [(rate, seconds)])
        wall_s, after = time.monotonic() - begun_s, pushed.used_s()
        cores = {name: (after[name] - before.get(name, 0.0)) / seconds for name in after}
        cores[f"{case.contender}-generator"] = found["generator_s"] / found["wall_s"]  # without making the messages
        p99 = percentile(sorted(found["latencies_ns"]), 99.0)
        passed = not found["problems"] and p99 is not None and p99 < self.p99_ns
        told = "passed" if passed else ", ".join(found["problems"]) or "failed"
        say(f"  {case.name}: {rate:,.0f} vectors/s: p99 {milliseconds(p99)} ms, {told} ({wall_s:.0f} s)")
        return Trial(rate, passed, found, cores)


def best(trials: Sequence[Trial]) -> float:
    """The highest rate that passed below the lowest that failed twice; 0 where none did."""
    rates = sorted({trial.rate for trial in trials})
    failed = [rate for rate in rates if not any(trial.passed for trial in trials if trial.rate == rate)]
    return max((rate for rate in rates if rate not in failed and rate < min(failed, default=float("inf"))), default=0.0)


def figure(searches: Sequence[Sequence[Trial]]) -> float:
    return median(best(trials) for trials in searches)


def as_text(bench: Bench) -> str:
    rows, lines = [], []
    base = base_of(bench)
    for case in bench.cases:
        searches = bench.found[case.name]
        rates = sorted(best(trials) for trials in searches)
        middle = figure(searches)
        trials = [trial for each in searches for trial in each]
        at_best = [trial for trial in trials if trial.passed and trial.rate == max(best(each) for each in searches)]
        cells = [f"{middle:,.0f}", f"{rates[0]:,.0f} to {rates[-1]:,.0f}", f"{middle / base:.2f}" if base else "-"]
        p99 = milliseconds(at_best[-1].p99_ns) if at_best else "-"
        rows.append(
            [case.words, *cells, p99, str(len(at_best[-1].found["latencies_ns"])) if at_best else "-", str(len(trials))]
        )
        if at_best:
            cores = ", ".join(f"{name} {value:.2f}" for name, value in sorted(at_best[-1].cores.items()))
            lines.append(f"cores at the highest rate that passed, {case.words}: {cores}")
    head = ["", "vectors/s", "searches", "of plain", "p99 ms there", "messages", "trials"]
    return "\n".join([table(head, rows), "", *lines])


def base_of(bench: Bench) -> float | None:
    return figure(bench.found[BASE.name]) if BASE.name in bench.found else None


def as_json(bench: Bench) -> dict[str, Any]:
    base = base_of(bench)
    figures = {
        name: {"measured": figure(searches), "baseline": base, "cores": CORES} for name, searches in bench.found.items()
    }
    cases = {
        name: [[{**trial._asdict(), "p99_ns": trial.p99_ns} for trial in trials] for trials in searches]
        for name, searches in bench.found.items()
    }
    asked_for = {"trial_s": bench.trial_s, "limit_s": bench.limit_s, "p99_ns": bench.p99_ns}
    return {"figures": figures, **asked_for, "cases": cases}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alone", action="store_true", help="the engine alone on two cores, all else on others")
    parser.add_argument(
        "--p99", type=float, default=15.0, metavar="MS", help="that a rate must stay under (default: 15)"
    )
    parser.add_argument("--trial", type=float, default=5.0, metavar="S", help="of a trial (default: 5)")
    parser.add_argument("--limit", type=float, default=120.0, metavar="S", help="of a search (default: 120)")


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("capacity", __doc__.split("\n")[0], 2, "a search of each case", words, options)
    try:
        bench = Bench(arguments)
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.capacity: {error}", file=sys.stderr)
        return 1
    where = "the engine alone on two cores" if arguments.alone else "engine, generator and nats-server on two cores"
    print(
        heading(
            f"vectors a second with p99 under {arguments.p99:g} ms, ten a second a key, ten a message; {where}", facts
        )
    )
    print(as_text(bench))
    name = "capacity-alone" if arguments.alone else "capacity"
    write(arguments.results, {"benchmark": name, **facts, **as_json(bench)})
    return 0


if __name__ == "__main__":
    sys.exit(main())

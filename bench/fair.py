"""Fair shares: what a tenant that sends far more than its share costs another one.

Owns the rounds; run as `python -m bench.fair`. Starts an engine, a quiet tenant (`bench.generator`) and a loud one
(`bench.flood`), prints a table, writes `bench/results/fair.json`. A round has the quiet tenant alone, and beside each
of the floods, in shuffled order. What must stay true: the quiet one's latency counts from the time at which a message
was due; both are of one tier; a flood is more than the engine answers, which its own figures show.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from subprocess import PIPE
from typing import Any

from bench import host
from bench.contenders import CONTENDERS, USER, Driver
from bench.figures import PERCENTILES, milliseconds, summarise, table
from bench.load import FLOODS, QUIET, Load
from bench.rounds import about, asked, run, used_s
from bench.servers import BenchError, Place, hear, scraped, tell
from bench.wire import LEAD_NS, dues, say
from engine.errors import TickpathError

ALONE = "alone"
PART_S = 6.0
FLOOD_BEFORE_NS = 1_000_000_000  # it runs that long when the quiet tenant's first message is due
PLAN_NS = 200_000  # about what making one vector takes, on a busy host
COUNTS = ("inputs_accepted", "vectors_accepted", "overloaded", "dropped", "predictions_expired", "predictions")


class Flood:
    """The loud tenant's process, seen from here."""

    def __init__(self, place: Place, account: str, seed: int) -> None:
        self.process = place.start("flood", [sys.executable, "-m", "bench.flood"], stdin=PIPE, stdout=PIPE)
        token = place.token("loud", USER)
        about = {"url": place.url(account), "company": "loud", "user": USER, "token": token, "seed": seed}
        tell(self.process, about)
        self.place = place

    def begin(self, load: Load, start_ns: int, seconds: float) -> None:
        count = round(seconds * load.messages_per_s)
        tell(self.process, {"load": load.name, "dues_ns": [start_ns + n * load.period_ns for n in range(count)]})

    def end(self) -> dict[str, Any]:
        return hear(self.process, self.place, "flood")


class Metrics:
    """Of the engine, by name; the difference of two is what happened between them."""

    def __init__(self, url: str) -> None:
        self.url = url

    def read(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for line in scraped(self.url).splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]
        return found

    def settle(self) -> None:
        """Until nothing waits anywhere in the engine."""
        give_up_s = time.monotonic() + 60.0
        while (found := self.read())["tickpath_inputs_bytes"] or found["tickpath_queued"]:
            if time.monotonic() > give_up_s:
                raise BenchError("engine: expected that what a flood left is answered within a minute, found it is not")
            time.sleep(0.05)


class Bench:
    """One run. `parts` holds, by the name of a flood or `ALONE`, what each of its parts showed."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.seed = seed
        self.draw = random.Random(seed)
        self.parts: dict[str, list[dict[str, Any]]] = {name: [] for name in (ALONE, *(load.name for load in FLOODS))}

    def open(self) -> None:
        engine = next(each for each in CONTENDERS if each.name == "engine")
        self.place.open()
        engine.start(engine, self.place, {})
        self.metrics = Metrics(self.place.http[engine.name])
        self.quiet = Driver(engine, self.seed)
        self.quiet.open(self.place)
        self.flood = Flood(self.place, engine.name, self.seed)
        self.quiet.begin(QUIET, dues(QUIET.period_ns, 5 * QUIET.messages_per_s))
        if problems := self.quiet.end()["problems"]:
            say(f"  warm-up: {problems}")

    def round(self) -> None:
        for name in self.draw.sample(sorted(self.parts), len(self.parts)):
            self.parts[name].append(self._part(next((load for load in FLOODS if load.name == name), None)))

    def _part(self, load: Load | None) -> dict[str, Any]:
        self.metrics.settle()
        start_ns = time.monotonic_ns() + LEAD_NS
        before, used = self.metrics.read(), used_s(self.place)
        if load is not None:
            seconds = PART_S + 2 * FLOOD_BEFORE_NS / 1e9
            start_ns += round(seconds * load.messages_per_s * load.vectors * PLAN_NS)
            self.flood.begin(load, start_ns, seconds)
            start_ns += FLOOD_BEFORE_NS
        self.quiet.begin(QUIET, [start_ns + n * QUIET.period_ns for n in range(round(PART_S * QUIET.messages_per_s))])
        found: dict[str, Any] = {"quiet": self.quiet.end()}
        if load is not None:
            found["flood"] = self.flood.end()
            self.metrics.settle()
            after = self.metrics.read()
            since = {name: after[f"tickpath_{name}_total"] - before[f"tickpath_{name}_total"] for name in COUNTS}
            found["engine"] = {name: round(count) for name, count in since.items()}
        found["cores"] = {name: round(now - used[name], 3) for name, now in used_s(self.place).items()}
        return found


def latencies(parts: Sequence[dict[str, Any]]) -> list[int]:
    return [value for part in parts for value in part["quiet"]["latencies_ns"]]


def as_text(parts: dict[str, list[dict[str, Any]]], about: dict[str, Any]) -> str:
    quiet_words = f"{QUIET.words} of a quiet tenant"
    lines = [
        f"fair shares: {quiet_words}, alone and beside another of its tier that sends far more",
        f"seed {about['seed']}, {about['rounds']} rounds of {PART_S:g} s each",
        host.line(about["host"]),
        f"cores busy with other work meanwhile: {about['others_cores']:.2f}",
        "",
    ]
    alone = summarise(latencies(parts[ALONE])).percentiles_ns
    rows = []
    for name, found in parts.items():
        of_all = summarise(latencies(found))
        problems: Counter[str] = sum((Counter(part["quiet"]["problems"]) for part in found), Counter())
        pairs = [(of_all.percentiles_ns[percent], alone[percent]) for percent in (50.0, 99.0)]
        ratios = [f"{value / base:.2f}" if value and base else "-" for value, base in pairs]
        inside = [value for part in found for value in part["quiet"]["engine_ms"]]
        rows.append(
            [
                name,
                str(of_all.messages),
                *(milliseconds(of_all.percentiles_ns[percent]) for percent in PERCENTILES[:3]),
                milliseconds(of_all.max_ns),
                *ratios,
                f"{median(inside):.2f}" if inside else "-",
                ", ".join(f"{count} {text}" for text, count in problems.items()) or "-",
            ]
        )
    head = ["quiet, ms", "messages", "p50", "p90", "p99", "max", "p50 / alone", "p99 / alone", "p50 in the engine"]
    lines += [table([*head, "not answered well"], rows), ""]
    for load in FLOODS:
        sent_s = sum(part["flood"]["wall_s"] for part in parts[load.name])
        sent = sum(part["flood"]["vectors"] for part in parts[load.name])
        counts: Counter[str] = sum((Counter(part["engine"]) for part in parts[load.name]), Counter())
        told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        lines.append(f"{load.name} ({load.words}): {sent / sent_s:.0f} vectors/s sent; the engine: {told}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("fair", __doc__.split("\n")[0], 6, f"each part of {PART_S:g} s", words)
    bench = Bench(Place(["engine"]), arguments.seed)
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.fair: {error}", file=sys.stderr)
        return 1
    parts = bench.parts
    print(as_text(parts, facts))
    arguments.results.mkdir(parents=True, exist_ok=True)
    result = {"benchmark": "fair", **facts, "part_s": PART_S, "parts": parts}
    (arguments.results / "fair.json").write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

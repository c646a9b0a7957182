"""What Kafka costs a vector that comes and is answered over NATS: wire to wire, in open loop.

Owns the rounds; run as `python -m bench.buses`. Starts a Kafka broker (the tests' one, on this host) and an engine for
each contender: without Kafka twice (the A/A pair), with `bus.publish = failover`, with `both`. In each round every
contender in shuffled order gets a block of the same load over NATS alone. Prints a table, writes
`bench/results/buses.json`. What must stay true: latency counts from the time at which a message was due; the broker
and all engines run all the time, so a block differs by the engine that is asked and nothing else.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from subprocess import PIPE
from typing import Any

from bench import host
from bench.contenders import Contender, Driver, start_engine
from bench.figures import Ratio, milliseconds, percentile, ratio, summarise, table
from bench.load import STEADY
from bench.rounds import about, asked, run, used_s
from bench.servers import BenchError, Place
from bench.wire import dues, say
from engine.errors import TickpathError

BROKER = "broker"
BLOCK_S = 3.0
PERCENTILES = (50.0, 90.0, 99.0)
BOUND = 1.10  # of a ratio, within which a contender is called as quick as one without Kafka
BASE, SAME = "nats", "nats-again"
WORDS = {
    BASE: "no Kafka",
    SAME: "the same once more",
    "failover": "Kafka connected",
    "both": "each answer on Kafka too",
}
Rounds = dict[str, list[dict[str, Any]]]


class Bench:
    """One run. `rounds` holds what each contender's blocks showed."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.seed = seed
        self.draw = random.Random(seed)
        self.drivers: dict[str, Driver] = {}
        self.rounds: Rounds = {name: [] for name in WORDS}

    def open(self) -> None:
        self.place.open()
        say("starting a Kafka broker")
        broker = self.place.start(BROKER, [sys.executable, "-m", "bench.broker"], stdin=PIPE, stdout=PIPE)
        assert broker.stdout is not None
        said = broker.stdout.readline().decode().split()
        while said and said[0] != "ready":
            said = broker.stdout.readline().decode().split()
        if not said:
            raise BenchError(f"{BROKER}: expected it ready, found its end:\n{self.place.tail(BROKER)}")
        for name, words in WORDS.items():
            say(f"starting {name}: {words}")
            kafka = (
                f'\n[bus]\npublish = "{name}"\n\n[bus.kafka]\nbootstrap = "{said[1]}"\n'
                if name not in (BASE, SAME)
                else ""
            )
            contender = Contender(name, words, False, start_engine, sections=kafka)
            contender.start(contender, self.place, {})
            driver = self.drivers[name] = Driver(contender, self.seed)
            driver.open(self.place)
            driver.begin(STEADY, dues(STEADY.period_ns, 3 * STEADY.messages_per_s))
            if problems := driver.end()["problems"]:
                say(f"  warm-up: {problems}")

    def round(self) -> None:
        for name in self.draw.sample(sorted(self.drivers), len(self.drivers)):
            before, begun_s = used_s(self.place), time.monotonic()
            self.drivers[name].begin(STEADY, dues(STEADY.period_ns, round(BLOCK_S * STEADY.messages_per_s)))
            found = self.drivers[name].end()
            wall_s, after = time.monotonic() - begun_s, used_s(self.place)
            cores = {each: (after[each] - before[each]) / wall_s for each in (name, BROKER, "nats-server")}
            self.rounds[name].append(found | {"cores": cores})


def latencies(rounds: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    return [each["latencies_ns"] for each in rounds]


def ratios(rounds: Rounds, name: str) -> dict[float, Ratio]:
    """Over the contender without Kafka, round by round."""

    def at(percent: float) -> Any:
        return lambda values: percentile(sorted(values), percent) or float("nan")

    return {percent: ratio(latencies(rounds[name]), latencies(rounds[BASE]), at(percent)) for percent in (50.0, 90.0)}


def judged(rounds: Rounds) -> list[str]:
    """Whether Kafka shows at p50 and p90."""
    same = ratios(rounds, SAME)
    lines = []
    for name in WORDS:
        if name in (BASE, SAME):
            continue
        for percent, found in ratios(rounds, name).items():
            band = same[percent]
            within = found.middle <= BOUND or found.middle <= band.high
            told = "within" if within else "beyond"
            lines.append(
                f"{name}, p{percent:g}: {found.middle:.2f} of {BASE}'s, {told} {BOUND:.2f} or the A/A pair's "
                f"highest, {band.high:.2f}"
            )
    return lines


def as_text(rounds: Rounds, about: Mapping[str, Any]) -> str:
    rows = []
    for name, found in rounds.items():
        of_all = summarise([value for each in latencies(found) for value in each])
        problems: Counter[str] = sum((Counter(each["problems"]) for each in found), Counter())
        of = ratios(rounds, name)
        cores = [sum(each["cores"][part] for each in found) / len(found) for part in (name, BROKER, "nats-server")]
        late = sorted(value for each in found for value in each["late_ns"])
        rows.append(
            [
                f"{name} ({WORDS[name]})",
                str(of_all.messages),
                *(milliseconds(of_all.percentiles_ns[percent]) for percent in PERCENTILES),
                *(f"{each.middle:.2f} ({each.low:.2f} to {each.high:.2f})" for each in of.values()),
                milliseconds(percentile(late, 99.0)),
                *(f"{each:.2f}" for each in cores),
                ", ".join(f"{count} {text}" for text, count in problems.items()) or "-",
            ]
        )
    head = ["ms", "messages", *(f"p{percent:g}" for percent in PERCENTILES), "p50 ratio", "p90 ratio", "sent late p99"]
    head += ["engine's cores", "broker's", "nats-server's", "problems"]
    return "\n".join(
        [
            f"wire to wire over NATS, {STEADY.words}, with and without Kafka beside; ratios to {BASE}, round by round",
            f"seed {about['seed']}, {about['rounds']} rounds of {BLOCK_S:g} s for each; one broker on this host",
            host.line(about["host"]),
            f"cores busy with other work meanwhile: {about['others_cores']:.2f}",
            "",
            table(head, rows),
            "",
            *judged(rounds),
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("buses", __doc__.split("\n")[0], 12, f"a block of {BLOCK_S:g} s for each", words)
    bench = Bench(Place(list(WORDS)), arguments.seed)
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.buses: {error}", file=sys.stderr)
        return 1
    rounds = bench.rounds
    print(as_text(rounds, facts))
    arguments.results.mkdir(parents=True, exist_ok=True)
    told = {
        name: {f"p{percent:g}": found._asdict() for percent, found in ratios(rounds, name).items()} for name in rounds
    }
    result = {
        "benchmark": "buses",
        **facts,
        "block_s": BLOCK_S,
        "ratios": told,
        "judged": judged(rounds),
        "rounds_of": rounds,
    }
    (arguments.results / "buses.json").write_text(json.dumps(result) + "\n")
    return 1 if any(each["problems"] for found in rounds.values() for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())

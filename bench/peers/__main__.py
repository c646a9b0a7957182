"""The same ONNX and XGBoost files behind other servers, called as their users call them, beside the engine.

Owns the rounds; run as `python -m bench.peers`. Each peer that is installed gets one vector's ready inputs a request
over HTTP, and answers with all that the models say of it; mosec runs twice (A/A). The engine gets raw vectors over
NATS, and does features, order, tokens and answers beside. In each round every contender in shuffled order gets the
same load in open loop. Prints a table, writes `bench/results/peers.json`.

What must stay true: latency counts from the time at which a request was due; a wrong number is a problem that is
told; a peer that is not installed is named as such and has no figure.
"""

import argparse
import importlib.util
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench.contenders import CONTENDERS, Driver, free_port
from bench.figures import PERCENTILES, milliseconds, percentile, ratio, table
from bench.load import STEADY
from bench.rounds import about, asked, heading, run, used_s, write
from bench.servers import Place, hear, tell
from bench.wire import dues, say
from engine.errors import TickpathError

ENGINE = "engine"


# Name, package, module of its server, and a path that answers 200 once it is ready.
PEERS = (
    ("mosec", "mosec", "bench.peers.mosec_server", "/"),
    ("mosec-again", "mosec", "bench.peers.mosec_server", "/"),
)


class Bench:
    """One run. `found` holds each contender's rounds."""

    def __init__(self, seed: int, part_s: float) -> None:
        self.part_s = part_s
        self.place, self.seed, self.draw = Place([ENGINE]), seed, random.Random(seed)
        self.peers = [each for each in PEERS if importlib.util.find_spec(each[1]) is not None]
        self.found: dict[str, list[dict[str, Any]]] = {name: [] for name in (ENGINE, *(each[0] for each in self.peers))}

    def open(self) -> None:
        self.place.open()
        engine = next(each for each in CONTENDERS if each.name == ENGINE)
        say(f"starting {ENGINE}")
        engine.start(engine, self.place, {})
        self.engine = Driver(engine, self.seed)
        self.engine.open(self.place)
        for name, _, module, ready in self.peers:
            say(f"starting {name}")
            port = free_port()
            self.place.start_python(name, "-m", module, "--address", "127.0.0.1", "--port", str(port))
            self.place.wait_http(name, f"http://127.0.0.1:{port}{ready}")
            load = self.place.start(
                f"{name}-load",
                [sys.executable, "-m", "bench.peers.http_load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            tell(load, {"port": port, "seed": self.seed})
        for name in self.found:
            self._send(name, 2.0)  # warm

    def round(self) -> None:
        for name in self.draw.sample(sorted(self.found), len(self.found)):
            before = used_s(self.place)
            found = self._send(name, self.part_s)
            self.found[name].append(found | {"core_s": used_s(self.place)[name] - before[name]})

    def _send(self, name: str, seconds: float) -> dict[str, Any]:
        due_ns = dues(STEADY.period_ns, round(seconds * STEADY.messages_per_s))
        if name == ENGINE:
            self.engine.begin(STEADY, due_ns)
            return self.engine.end()
        tell(self.place.processes[f"{name}-load"], {"dues_ns": due_ns})
        return hear(self.place.processes[f"{name}-load"], self.place, f"{name}-load")


def missing(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each peer that is not there."""
    packages = dict.fromkeys(package for name, package, *_ in PEERS if name not in found)
    return [f"{package} is not installed, so it is not measured; pip install {package}" for package in packages]


def as_text(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = []
    for name, rounds in found.items():
        values = sorted(value for each in rounds for value in each["latencies_ns"])
        problems: Counter[str] = sum((Counter(each["problems"]) for each in rounds), Counter())
        over, under = ([each["latencies_ns"] for each in found[who]] for who in (name, ENGINE))
        of = ratio(over, under)
        core_us = sum(each["core_s"] for each in rounds) / max(1, len(values)) * 1e6
        rows.append(
            [
                name,
                str(len(values)),
                *(milliseconds(percentile(values, percent)) for percent in PERCENTILES),
                milliseconds(values[-1]),
                f"{of.middle:.2f} ({of.low:.2f} to {of.high:.2f})",
                f"{core_us:,.0f}",
                ", ".join(f"{count} {text}" for text, count in problems.items()) or "-",
            ]
        )
    head = ["ms", "messages", *(f"p{percent:g}" for percent in PERCENTILES), "max"]
    head += [f"p50 of {ENGINE}'s, round by round", "core us a message", "problems"]
    return "\n".join([table(head, rows), *missing(found)])


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", type=float, default=5.0, metavar="S", help="of a contender in a round (default: 5)")


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("peers", __doc__.split("\n")[0], 6, "a part of each contender", words, options)
    bench = Bench(arguments.seed, arguments.part)
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.peers: {error}", file=sys.stderr)
        return 1
    print(heading(f"the same models behind other servers, {STEADY.words}", facts))
    print(as_text(bench.found))
    result = {"part_s": arguments.part, "missing": missing(bench.found), "rounds_of": bench.found}
    write(arguments.results, {"benchmark": "peers", **facts, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())

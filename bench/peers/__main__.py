"""The same ONNX and XGBoost files behind other servers, called as their users call them, beside the engine.

Owns the rounds; run as `python -m bench.peers`. Each peer that is installed (`pip install mosec`, `pip install
nvidia-pytriton`) gets one vector's ready inputs a request over HTTP, and answers with all that the models say of it;
mosec runs twice (A/A). The engine gets raw vectors over NATS, and does features, order, tokens and answers beside. In
each round every contender in shuffled order gets the same load in open loop. Prints a table, writes
`bench/results/peers.json`.

What must stay true: latency counts from the time at which a request was due; a wrong number is a problem that is
told; a peer that is not installed is named as such and has no figure.
"""

import importlib.util
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.contenders import CONTENDERS, Driver, free_port
from bench.figures import PERCENTILES, milliseconds, percentile, ratio, table
from bench.load import STEADY
from bench.rounds import about, asked, heading, run, used_s, write
from bench.servers import Place, hear, tell
from bench.wire import dues, say
from engine.errors import TickpathError

PART_S = 5.0
ENGINE = "engine"


def mosec(port: int) -> list[str]:
    return ["-m", "bench.peers.mosec_server", "--address", "127.0.0.1", "--port", str(port)]


def triton(port: int) -> list[str]:
    return ["-m", "bench.peers.triton_server", str(port)]


# Name, package, protocol, command, address that answers 200 once it is ready.
PEERS: tuple[tuple[str, str, str, Callable[[int], list[str]], str], ...] = (
    ("mosec", "mosec", "mosec", mosec, "/"),
    ("mosec-again", "mosec", "mosec", mosec, "/"),
    ("triton", "pytriton", "triton", triton, "/v2/models/tickpath/ready"),
)
NAMES_OF_PACKAGES = {"pytriton": "nvidia-pytriton"}


class Bench:
    """One run. `found` holds each contender's rounds."""

    def __init__(self, seed: int) -> None:
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
        for name, _, protocol, command, ready in self.peers:
            say(f"starting {name}")
            port = free_port()
            self.place.start_python(name, *command(port))
            self.place.wait_http(name, f"http://127.0.0.1:{port}{ready}")
            load = self.place.start(
                f"{name}-load",
                [sys.executable, "-m", "bench.peers.http_load"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            tell(load, {"port": port, "protocol": protocol, "seed": self.seed})
        for name in self.found:
            self._send(name, 2.0)  # warm

    def round(self) -> None:
        for name in self.draw.sample(sorted(self.found), len(self.found)):
            before = used_s(self.place)
            found = self._send(name, PART_S)
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
    names = [NAMES_OF_PACKAGES.get(package, package) for package in packages]
    return [f"{name} is not installed, so it is not measured; pip install {name}" for name in names]


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


def main(words: Sequence[str] | None = None) -> int:
    arguments = asked("peers", __doc__.split("\n")[0], 6, f"{PART_S:g} s of each contender", words)
    bench = Bench(arguments.seed)
    began_s = time.monotonic()
    try:
        facts = about(arguments, run(bench, arguments.rounds))
    except TickpathError as error:
        print(f"bench.peers: {error}", file=sys.stderr)
        return 1
    print(heading(f"the same models behind other servers, {STEADY.words}", facts))
    print(as_text(bench.found))
    result = {"missing": missing(bench.found), "rounds_of": bench.found, "seconds": time.monotonic() - began_s}
    write(arguments.results, {"benchmark": "peers", **facts, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())

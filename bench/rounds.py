"""A benchmark made of rounds over one place: its command line, and how busy others kept the host meanwhile.

Owns nothing; run by a benchmark's own process. What must stay true: whatever ends the run, the place is closed.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench import host
from bench.servers import Place
from bench.wire import RESULTS, say


class Rounds(Protocol):
    place: Place

    def open(self) -> None: ...

    def round(self) -> None: ...


def asked(
    name: str,
    words: str,
    rounds: int,
    of_each: str,
    given: Sequence[str] | None,
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    """`rounds`, `seed` (drawn where none was given), `results`, `more`. From here on SIGTERM ends everything, too."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=words)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"{of_each} (default: {rounds})")
    parser.add_argument("--seed", type=int, default=None, help="of prices and turns (default: drawn, and printed)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of {name}.json")
    more(parser)
    arguments = parser.parse_args(given)
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1 << 32)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    return arguments


def run(bench: Rounds, rounds: int) -> float:
    """Opens, runs the rounds and closes. How many cores others kept busy."""
    try:
        bench.open()
        begun_s, busy_s, ours_s = time.monotonic(), host.busy_s(), sum(used_s(bench.place).values())
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            bench.round()
        others_s = host.busy_s() - busy_s - (sum(used_s(bench.place).values()) - ours_s)
        return max(0.0, others_s) / (time.monotonic() - begun_s)
    finally:
        bench.place.close()


class Others:
    """How many cores others kept busy since this was made: all but this process and those below it."""

    def __init__(self) -> None:
        self._begun_s, self._busy_s, self._ours_s = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.monotonic(), host.busy_s(), host.used_s([os.getpid()])

    def cores(self) -> float:
        now_s, busy_s, ours_s = self._now()
        return max(0.0, busy_s - self._busy_s - (ours_s - self._ours_s)) / (now_s - self._begun_s)


def used_s(place: Place) -> dict[str, float]:
    """Processor time of each of the place's processes, with their children."""
    return {name: host.used_s([process.pid]) for name, process in place.processes.items()}


def about(arguments: argparse.Namespace, others_cores: float) -> dict[str, Any]:
    return {
        "seed": arguments.seed,
        "rounds": arguments.rounds,
        "host": host.describe(),
        "others_cores": round(others_cores, 3),
    }


def heading(words: str, facts: Mapping[str, Any]) -> str:
    """What stands above every table."""
    return "\n".join(
        [
            words,
            f"seed {facts['seed']}, {facts['rounds']} rounds",
            host.line(facts["host"]),
            f"cores busy with other work meanwhile: {facts['others_cores']:.2f}",
            "",
        ]
    )


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """`<benchmark>.json` for programs; `figures` in it is what `bench.goals` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result['benchmark']}.json").write_text(json.dumps(result) + "\n")

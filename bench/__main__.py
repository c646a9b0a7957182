"""Every benchmark, one after another, and then the goals: what `make bench` runs.

Owns the list. Each benchmark is a process of its own, so that none inherits what another left behind; tables come on
standard output, `bench/results/<name>.json` is for programs. What must stay true: a benchmark that fails does not
hide those after it, and the exit status tells of it; `--quick` runs the same code on less, for a look and not for a
figure.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import goals
from engine.gpus import are_there

# Name, further words, and what makes it quick. Capacity comes before overload, which asks for what it found.
RUNS: tuple[tuple[str, str, str], ...] = (
    ("steadiness", "", "--seconds 5"),
    ("ring", "", "--rounds 2"),
    ("ingress", "", "--seconds 3"),
    ("serialization", "", "--seconds 3"),
    ("lstm", "", "--seconds 3"),
    ("trees", "", "--seconds 3"),
    ("worker", "", "--rounds 5"),
    ("wire", "", "--seconds 20"),
    ("local", "", "--seconds 20"),
    ("pause", "", "--rounds 1 --messages 10 --long 5"),
    ("capacity", "", "--rounds 1 --trial 2 --limit 20"),
    ("capacity", "--alone", "--rounds 1 --trial 2 --limit 20"),
    ("overload", "", "--rounds 1 --seconds 5"),
    ("fair", "", "--rounds 1"),
    ("buses", "", "--rounds 1"),
    ("scaling", "", "--rounds 1 --part 1"),
    ("peers", "", "--rounds 1 --part 2"),
    ("gpu", "", "--rounds 5"),
)
ALONE_CORES = 4


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    names = list(dict.fromkeys(name for name, _, _ in RUNS))
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="minutes instead of an hour; its figures say little")
    parser.add_argument(
        "--seed", type=int, default=None, help="of all of them (default: each draws and prints its own)"
    )
    parser.add_argument("--results", type=Path, default=goals.RESULTS, help="folder of the results")
    arguments = parser.parse_args(words)
    failed = []
    for name, further, quick in RUNS:
        too_few = "--alone" in further and len(os.sched_getaffinity(0)) < ALONE_CORES
        if name not in arguments.only or too_few or (name == "gpu" and not are_there()):
            continue
        command = [sys.executable, "-m", f"bench.{name}", *further.split(), "--results", str(arguments.results)]
        command += quick.split() if arguments.quick else []
        command += ["--seed", str(arguments.seed)] if arguments.seed is not None else []
        print(f"\n== {name} {further}".rstrip(), flush=True)
        if subprocess.run(command).returncode != 0:
            failed.append(name)
    print(f"\n== goals\n{goals.as_text(arguments.results)}")
    if failed:
        print(f"bench: {', '.join(failed)} gave no figures, or not all; the reasons stand above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

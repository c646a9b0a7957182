"""Wire to wire over the local bus: how long a message waits for its whole answer over Unix sockets, in open loop.

Owns the contenders; run as `python -m bench.local`. A raw echo, the same again (A/A), the engine, each with sockets
of its own and no server between; loads, rounds, clock and checks are those of `bench.wire`. Prints the same tables,
writes `bench/results/local.json`. What must stay true: latency counts from the time at which a message was due; the
echo's answers have the engine's bytes.
"""

import sys
from collections.abc import Mapping, Sequence

from bench.contenders import Contender, start_engine
from bench.servers import Place
from bench.wire import course


def start_echo(contender: Contender, place: Place, sizes: Mapping[str, int]) -> None:
    pairs = [f"{stream}={count}" for stream, count in sizes.items()]
    place.start_python(contender.name, "-m", "bench.local_echo", place.address(contender.name, True), *pairs)
    place.wait_said(contender.name, "ready")


CONTENDERS = (
    Contender("echo", "raw-socket echo of answer-sized bytes", True, start_echo, local=True),
    Contender("echo-again", "the same echo once more", True, start_echo, local=True),
    Contender("engine", "python -m engine run", False, start_engine, local=True),
)


def main(words: Sequence[str] | None = None) -> int:
    return course("local", "the local bus", CONTENDERS, __doc__, words)


if __name__ == "__main__":
    sys.exit(main())

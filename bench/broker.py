"""A real Kafka broker of a benchmark's own: the tests' one, as a process that ends with what started it.

Run as `python -m bench.broker`: says `ready HOST:PORT` on standard output and stays until its standard input ends, or
it is told to go. What must stay true: the broker and its folder go with this process.
"""

import signal
import sys

from tests.system.kafka import kafka_broker


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with kafka_broker() as broker:
        print(f"ready {broker.bootstrap}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

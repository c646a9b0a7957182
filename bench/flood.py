"""A tenant that sends far more than its share, and reads nothing.

Owns one raw connection; a process of its own, `python -m bench.flood`: a line of JSON about itself on standard
input, then one for each round, each answered with a line. What must stay true: every byte of a round is made before
it begins, so that a round costs little more than the sending; messages leave when they are due, or late, never less.
"""

import gc
import json
import sys
import time
from typing import Any

from bench.load import FLOODS, Stream
from bench.raw_nats import Connection

TICK_S = 0.001  # what is due within one leaves together


def send_all(connection: Connection, due_ns: list[int], wires: list[bytes]) -> None:
    at = 0
    while at < len(wires):
        begin, now_ns = at, time.monotonic_ns()
        while at < len(wires) and due_ns[at] <= now_ns:
            at += 1
        if at > begin:
            connection.socket.sendall(b"".join(wires[begin:at]))
        else:
            time.sleep(min(max((due_ns[at] - now_ns) / 1e9, TICK_S), 0.1))


def run_round(connection: Connection, stream: Stream, dues_ns: list[int]) -> dict[str, Any]:
    unix_ns = time.time_ns() - time.monotonic_ns()
    wires = [stream.plan(due_ns, unix_ns + due_ns).wire for due_ns in dues_ns]
    gc.collect()
    gc.disable()
    begun_late_ns, used_s = time.monotonic_ns() - dues_ns[0], time.process_time()
    send_all(connection, dues_ns, wires)
    found = {
        "messages": len(wires),
        "vectors": len(wires) * stream.load.vectors,
        "wall_s": (time.monotonic_ns() - dues_ns[0]) / 1e9,
        "late_s": max(0, begun_late_ns) / 1e9,  # its messages were not made in time
        "used_s": time.process_time() - used_s,
    }
    gc.enable()
    return found


def main() -> None:
    about = json.loads(sys.stdin.readline())
    connection = Connection(about["url"], "flood")
    connection.open()
    streams = {
        load.name: Stream(load, about["company"], about["user"], about["token"], about["seed"]) for load in FLOODS
    }
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(run_round(connection, streams[job["load"]], job["dues_ns"])), flush=True)
        connection.settle()
    connection.close()


if __name__ == "__main__":
    main()

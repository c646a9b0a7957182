"""The load: one producer and reader that sends on time, whatever comes back.

Owns one raw connection for both ways, and the clock of a round. Runs as a process of its own for each
contender, `python -m bench.generator`: a line of JSON about itself on standard input, then one for each
round; for each it answers with a line. What must stay true: due times are given, never moved, so an
answer that is late makes nothing else late (open loop); all that costs time beside sending and reading
happens before or after a round.

It sleeps in select() and spins only for the last `SPIN_NS` before a message is due: at 500 messages a
second that is 5 % of a core, which on a host of few cores is what the contenders may be missing.
"""

import ctypes
import gc
import json
import select
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from bench.answers import judge
from bench.load import CROWDS, LOADS, QUIET, SIZED, STEADY, Crowd, Planned, Stream
from bench.raw_local import LocalConnection, named
from bench.raw_nats import Connection, Message
from engine.contract.names import PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT

SPIN_NS = 100_000
GRACE_NS = 5_000_000_000  # after the last message, for answers still on their way
PR_SET_TIMERSLACK = 29

now_ns = time.monotonic_ns
Arrivals = list[tuple[int, Message]]
Bus = Connection | LocalConnection


def take(connection: Bus, arrivals: Arrivals) -> None:
    """Whatever is there; the time is that of the read, before any parsing."""
    try:
        data = connection.read(socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    at_ns = now_ns()
    arrivals.extend((at_ns, message) for message in connection.parse(data))


def read_until(connection: Bus, due_ns: int, arrivals: Arrivals) -> None:
    """Takes what comes until `due_ns`: asleep at first, spinning at last."""
    sockets = [connection.socket]
    while (left_ns := due_ns - now_ns()) > 0:
        if left_ns > SPIN_NS and not select.select(sockets, [], [], (left_ns - SPIN_NS) / 1e9)[0]:
            continue
        take(connection, arrivals)


def send_all(connection: Bus, planned: list[Planned]) -> tuple[dict[str, int], Arrivals]:
    """When each message had left, and what came back until the last answer, or the end of the grace."""
    sent_ns: dict[str, int] = {}
    arrivals: Arrivals = []
    for each in planned:
        read_until(connection, each.due_ns, arrivals)
        connection.send(each.wire)
        sent_ns[each.name] = now_ns()
    give_up_ns = now_ns() + GRACE_NS
    while len(arrivals) < len(planned) and now_ns() < give_up_ns:
        if select.select([connection.socket], [], [], 0.05)[0]:
            take(connection, arrivals)
    return sent_ns, arrivals


def run_round(connection: Bus, stream: Stream | Crowd, dues_ns: list[int], echo_bytes: int | None) -> dict[str, Any]:
    """One round: made, sent, judged."""
    strays: Arrivals = []
    take(connection, strays)  # an answer of an earlier round that came twice, or after its grace
    unix_ns = time.time_ns() - now_ns()
    closed = stream.minutes_closed
    planned = [stream.plan(due_ns, unix_ns + due_ns) for due_ns in dues_ns]
    gc.collect()
    gc.disable()
    begun_ns, begun_s = now_ns(), time.process_time()
    sent_ns, arrivals = send_all(connection, planned)
    used_s, wall_s = time.process_time() - begun_s, (now_ns() - begun_ns) / 1e9
    gc.enable()
    arrived = strays + arrivals
    if isinstance(connection, LocalConnection):
        arrived = named(arrived, [each.name for each in planned], echo_bytes is not None)
    found = judge(planned, sent_ns, arrived, echo_bytes)
    found.minutes_closed, found.generator_s, found.wall_s = stream.minutes_closed - closed, used_s, wall_s
    return vars(found)


def connected(about: Mapping[str, Any]) -> Bus:
    """To NATS by its URL, to a local bus by its path."""
    company = about["company"]
    if about["url"].startswith("/"):
        local = LocalConnection(about["url"])
        local.open(company, about["user"], about["token"])
        return local
    connection = Connection(about["url"], "generator")
    connection.open()
    for subject in (f"{PREDICTIONS_SUBJECT}.{company}.>", f"{REJECTIONS_SUBJECT}.{company}.>", REJECTIONS_SUBJECT):
        connection.subscribe(subject)
    return connection


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # select() wakes within microseconds, not within 50
    about = json.loads(sys.stdin.readline())
    of_all = (about["company"], about["user"], about["token"], about["seed"])
    connection = connected(about)
    crowds = {load.name: Crowd(load, *of_all) for load in CROWDS}
    streams: dict[str, Stream | Crowd] = {
        load.name: Stream(load, *of_all, wrap=connection.wrap) for load in (*LOADS, QUIET, STEADY, *SIZED)
    }
    streams |= crowds
    for line in sys.stdin:
        job = json.loads(line)
        if job["load"] in crowds:
            crowds[job["load"]].use(*job["streams"])
        found = run_round(connection, streams[job["load"]], job["dues_ns"], job["echo_bytes"])
        print(json.dumps(found), flush=True)
    connection.close()


if __name__ == "__main__":
    main()

"""The roles of the engine's processes, as a table.

Owns which module a role runs and how its children end when the supervisor dies. The supervisor reads
it to start children, a child to find its own module, so that no stage is imported but in its process.
"""

import signal
from typing import NamedTuple

from engine.shared import CONTROL, EGRESS, INGRESS, KAFKA, WATCH, Seat, worker_seat


class Role(NamedTuple):
    """What a kind of child is.

    Parameters
    ----------
    module
        Has `run(child) -> int`.
    orphan_signal
        Sent by the kernel when the supervisor dies. Owners of files get the chance to leave them in order.
    """

    name: str
    module: str
    orphan_signal: signal.Signals


ROLES = {
    "ingress": Role("ingress", "engine.ingress.main", signal.SIGTERM),
    "egress": Role("egress", "engine.egress.main", signal.SIGTERM),
    "control": Role("control", "engine.control.main", signal.SIGKILL),
    "kafka": Role("kafka", "engine.kafka.main", signal.SIGKILL),
    "watch": Role("watch", "engine.watch.main", signal.SIGTERM),
    "worker": Role("worker", "engine.inference.main", signal.SIGKILL),
}


def cast(workers: int, standby: bool, kafka: bool = False) -> list[tuple[Role, Seat]]:
    """Who takes part: each fixed role, those that settings ask for, a process for each worker, one warm spare."""
    fixed = [(ROLES[seat.name], seat) for seat in (INGRESS, EGRESS, CONTROL, WATCH)]
    wanted = [(ROLES["kafka"], KAFKA)] if kafka else []
    return fixed + wanted + [(ROLES["worker"], worker_seat(number)) for number in range(workers + standby)]

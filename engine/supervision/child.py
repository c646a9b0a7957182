"""A child process: opens the arena, runs its role, pulses.

Owns its row of the `children` region. Runs as `python -m engine.supervision.child ROLE ROW MANIFEST_FD`.
Reads the manifest that the supervisor wrote into a memfd. What must stay true: it ends when its
supervisor does, and it pulses from the loop that does the work, so that a hung loop shows.
"""

import asyncio
import ctypes
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Coroutine
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import orjson
import uvloop

from engine.contract.names import Bus
from engine.settings import Settings, digest
from engine.shared import EGRESS, BusState, Engine, Phase, Seat, Shared, regions, ring_bell
from engine.supervision.logs import open_log
from engine.supervision.roles import ROLES, Role
from fastpath.arena import Arena

PR_SET_PDEATHSIG = 1
BUS_WORDS = {Bus.NATS: "bus_nats", Bus.LOCAL: "bus_local"}


class Child:
    """What a role's `run` gets: the settings, the arena, and its own row in it.

    `row` is an array of `child_row` of shape (1,); its counters outlive the process.
    """

    def __init__(self, role: Role, seat: Seat, settings: Settings, shared: Shared, owner_pid: int) -> None:
        self.role = role
        self.seat = seat
        self.settings = settings
        self.shared = shared
        self.owner_pid = owner_pid
        self.row = shared.children[seat.row : seat.row + 1]
        self.log = open_log(seat.name)
        self.egress_bell = EGRESS.row
        self.cores = len(os.sched_getaffinity(0))
        self._ending = False

    def open(self) -> None:
        """Announces the process and arms what ends it."""
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(self.role.orphan_signal), 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody; the supervisor decides
        signal.signal(signal.SIGTERM, self._end)
        self.row[0]["pid"] = os.getpid()
        self.pulse(Phase.LOADING)
        self._pin()

    def pulse(self, phase: Phase) -> None:
        row, now = self.row[0], time.monotonic_ns()
        if row["phase"] != phase:
            row["phase_ns"] = now
        row["phase"] = phase
        row["pulse_ns"] = now

    def ready(self) -> None:
        """Loaded and warm, or connected and listening."""
        gc.collect()
        gc.freeze()
        self.row[0]["ready"] = 1
        self.log.info("ready")

    def stopping(self) -> bool:
        """Whether to end: the supervisor says so, or is gone."""
        return self._ending or self.row[0]["order"] != 0 or os.getppid() != self.owner_pid

    def engine_state(self) -> Engine:
        return Engine(int(self.shared.supervisor[0]["state"]))

    def bus_state(self, bus: Bus, up: BusState | bool) -> None:
        state = up if isinstance(up, BusState) else BusState.UP if up else BusState.DOWN
        self.row[0][BUS_WORDS[bus]] = state

    def ring_bell(self, worker: int) -> int:
        """Index of the doorbell of whoever serves this worker's rings."""
        return ring_bell(worker)

    def _end(self, *_: object) -> None:
        self._ending = True

    def _pin(self) -> None:
        """The processors of the settings: ingress the first, egress the last, workers those between."""
        cpus = self.settings.engine.cpus
        if not cpus or self.role.name == "control":
            return
        between = cpus[1:-1] or cpus
        chosen = {"ingress": cpus[0], "egress": cpus[-1]}.get(self.role.name, between[self.seat.row % len(between)])
        os.sched_setaffinity(0, {chosen})


def run_loop(coroutine: Coroutine[Any, Any, int]) -> int:
    """Runs an I/O role on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def from_plain(kind: type, values: dict) -> Any:
    """Settings from the plain data that `dataclasses.asdict` and JSON made of them."""
    hints = get_type_hints(kind)
    given = {}
    for field in fields(kind):
        value = values[field.name]
        if is_dataclass(hints[field.name]):
            value = from_plain(hints[field.name], value)
        given[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


def main(arguments: list[str]) -> int:
    role, row, manifest_fd = ROLES[arguments[0]], int(arguments[1]), int(arguments[2])
    manifest = orjson.loads(os.pread(manifest_fd, os.fstat(manifest_fd).st_size, 0))
    settings = from_plain(Settings, manifest["settings"])
    workers = manifest["workers"]
    arena = Arena.attach(manifest["arena"], regions(settings, workers), digest(settings))
    shared = Shared(arena, settings, workers, manifest["bells"])
    child = Child(role, Seat(row, manifest["names"][row]), settings, shared, manifest["owner"])
    child.open()
    if os.getppid() != child.owner_pid:
        return 1  # it died before its death could be told
    try:
        return importlib.import_module(role.module).run(child)
    except Exception:
        child.log.exception("ended by an error")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

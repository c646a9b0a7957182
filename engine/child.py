"""What a role gets from the process that runs it: settings, arena, its own row, a pulse.

Owns this process's row of the `children` region. Every child has one `Child`. What must stay true: the
process ends when its supervisor does, and it pulses from the loop that does the work, so that a hung
loop shows.
"""

import asyncio
import ctypes
import gc
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import uvloop

from engine import limits
from engine.contract.names import Bus
from engine.cores import cores_for
from engine.logs import open_log
from engine.settings import Settings
from engine.shared import BusState, Engine, Phase, Seat, Shared
from fastpath.doorbell import resolve_policy

PR_SET_PDEATHSIG = 1
BUS_WORDS = {Bus.NATS: "bus_nats", Bus.LOCAL: "bus_local", Bus.KAFKA: "bus_kafka"}


class Child:
    """What a role's `run` gets: the settings, the arena, and its own row in it.

    `row` is an array of `child_row` of shape (1,). What is read or written for each message has a view of its own here:
    for one number, a memoryview takes a third of an array's time. The counters outlive the process.
    """

    def __init__(
        self, role: str, seat: Seat, settings: Settings, shared: Shared, owner_pid: int, gpus: Sequence[int] = ()
    ) -> None:
        self.role = role
        self.seat = seat
        self.settings = settings
        self.shared = shared
        self.owner_pid = owner_pid
        self.gpus = gpus  # numbers of those that models run on
        self.row = shared.children[seat.row : seat.row + 1]
        self.counters = self.row["counters"][0].data
        self._phase, self._phase_ns, self._pulse_ns = (
            self.row[name].data for name in ("phase", "phase_ns", "pulse_ns")
        )
        self.log = open_log(seat.name)
        self.cores = cores_for(settings)
        self._ending = False

    def open(self, orphan_signal: signal.Signals) -> None:
        """Announces the process and arms what ends it; `orphan_signal` comes when the supervisor dies."""
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody; the supervisor decides
        signal.signal(signal.SIGTERM, self._end)
        self.row[0]["pid"] = os.getpid()
        self.pulse(Phase.LOADING)
        self._pin()

    def pulse(self, phase: Phase) -> None:
        """Alive, and in a moment between two messages: the one for garbage, of which the way of a vector makes none."""
        if gc.get_count()[0] > limits.GARBAGE_MAX:
            gc.collect()
        now = time.monotonic_ns()
        if self._phase[0] != phase:
            self._phase_ns[0] = now
        self._phase[0] = phase
        self._pulse_ns[0] = now

    def ready(self) -> None:
        """Loaded and warm, or connected and listening."""
        gc.collect()
        gc.freeze()
        gc.disable()
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

    def policy(self, processes_before: int) -> tuple[str, int]:
        """How this process waits at rings, and for how many nanoseconds it spins before it blocks; told in the log."""
        policy, spin_ns = resolve_policy(self.settings.engine.wait, self.cores, processes_before)
        self.log.info("waits by %s: %d cores, %d processes before it", policy, self.cores, processes_before)
        return policy, spin_ns

    def _end(self, *_: object) -> None:
        self._ending = True

    def _pin(self) -> None:
        """The processors of the settings: ingress the first, egress the last, workers those between."""
        cpus = self.settings.engine.cpus
        if not cpus or self.role == "control":
            return
        between = cpus[1:-1] or cpus
        chosen = {"ingress": cpus[0], "egress": cpus[-1]}.get(self.role, between[self.seat.row % len(between)])
        os.sched_setaffinity(0, {chosen})


def stay_awake(policy: str) -> None:
    """Where an event loop's process spins or yields, the loop asks the kernel for news without waiting for it."""
    loop = asyncio.get_running_loop()

    def again() -> None:
        if policy == "yield":
            os.sched_yield()
        loop.call_soon(again)

    if policy != "block":
        again()


def run_loop(coroutine: Coroutine[Any, Any, int]) -> int:
    """Runs an I/O role on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)

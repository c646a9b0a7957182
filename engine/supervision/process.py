"""One child process, from its start to its burial.

Owns its handle, its life and its restart budget; on the arena, its `seat` and `order`, and its whole
row while no process has it. Runs in the supervisor. What must stay true: a life changes only along
`TRANSITIONS`; nothing of a row is cleared before its process is reaped.
"""

import os
import select
import signal
import subprocess
from logging import Logger
from pathlib import Path

from engine import limits
from engine.shared import Life, Phase, Seat, Shared
from engine.supervision.restarts import Budget, is_self_inflicted
from engine.supervision.roles import Role

TRANSITIONS = {
    (Life.ABSENT, Life.LOADING),
    (Life.LOADING, Life.READY),
    (Life.LOADING, Life.DYING),
    (Life.READY, Life.DYING),
    (Life.LOADING, Life.ABSENT),
    (Life.READY, Life.ABSENT),
    (Life.DYING, Life.ABSENT),
    (Life.ABSENT, Life.SPENT),
}
KEPT = ("counters", "failures", "successes", "unsound", "slow")  # what of a row outlives its process
WATCHED_SHARE = 5  # from a fifth of its limit on, what a silent process waits for a processor is watched
PULSE_LIMITS_MS = {
    Phase.LOADING: limits.LOADING_LIMIT_MS,
    Phase.STANDBY: limits.PULSE_LIMIT_MS,
    Phase.IDLE: limits.PULSE_LIMIT_MS,
    Phase.IN_MODEL: limits.IN_MODEL_LIMIT_MS,
    Phase.WRITING: limits.WRITING_LIMIT_MS,
}


def waited_ns(pid: int) -> int:
    """How long a process was ready to run and got no processor: a busy host is no fault of the child's."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0


class Process:
    """A place in the cast and whoever fills it now."""

    def __init__(self, role: Role, seat: Seat, shared: Shared, log: Logger) -> None:
        self.role = role
        self.seat = seat
        self.log = log
        self.life = Life.ABSENT
        self.row = shared.children[seat.row]
        self.budget = Budget()
        self.handle: subprocess.Popen | None = None
        self.pidfd = -1
        self.started_ns = 0
        self.killed_as_stuck = False
        self._waited_from_ns = -1  # what `waited_ns` said when the silence became long

    def started(self, handle: subprocess.Popen, now_ns: int) -> None:
        self._become(Life.LOADING)
        self.handle = handle
        self.pidfd = os.pidfd_open(handle.pid)
        self.started_ns = now_ns
        self.killed_as_stuck = False

    def is_running(self) -> bool:
        return self.handle is not None and self.poll() is None

    def poll(self) -> int | None:
        """The status of a process that ended and was reaped just now or before, None while it runs."""
        return None if self.handle is None else self.handle.poll()

    def is_to_blame(self, status: int) -> bool:
        return is_self_inflicted(status, self.killed_as_stuck)

    def buried(self, status: int, now_ns: int) -> None:
        """After reaping: clears what the process said of itself, and decides whether it comes again."""
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        lived_s = (now_ns - self.started_ns) / 1e9
        self.log.warning("%s ended with %s after %.1f s", self.seat.name, how, lived_s)
        os.close(self.pidfd)
        self.handle = None
        for name in self.row.dtype.names:
            if name not in KEPT:
                self.row[name] = 0
        self._become(Life.ABSENT)
        if self.is_to_blame(status) and not self.budget.spend(now_ns / 1e9, lived_s):
            self._become(Life.SPENT)
            self.log.error(
                "%s died %d times soon after its start; it is not started again", self.seat.name, limits.RESTART_BUDGET
            )

    def is_stuck(self, now_ns: int) -> str:
        """Why it is to be killed, empty where it is well."""
        pulse_ns = int(self.row["pulse_ns"])
        if self.life not in (Life.LOADING, Life.READY):
            return ""
        loading = self.life == Life.LOADING  # it runs its models to warm them, and may take its time
        phase = Phase.LOADING if loading else Phase(int(self.row["phase"]))
        limit_ms = PULSE_LIMITS_MS[phase]
        since_ns = self.started_ns if loading else pulse_ns
        if phase == Phase.IN_MODEL:
            since_ns = max(pulse_ns, int(self.row["phase_ns"]))  # each model has its own time
        silent_ms = (now_ns - since_ns) // 1_000_000
        if WATCHED_SHARE * silent_ms < limit_ms:
            self._waited_from_ns = -1
            return ""
        if self._waited_from_ns < 0:
            self._waited_from_ns = waited_ns(self.row["pid"])
        silent_ms -= (waited_ns(self.row["pid"]) - self._waited_from_ns) // 1_000_000
        return (
            f"silent for {silent_ms} ms while {phase.name.lower()}, at most {limit_ms} are allowed"
            if silent_ms > limit_ms
            else ""
        )

    def kill_as_stuck(self) -> None:
        """SIGKILL, which works on stopped processes too."""
        assert self.handle is not None
        self.killed_as_stuck = True
        self._become(Life.DYING)
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def notice_ready(self) -> None:
        if self.life == Life.LOADING and self.row["ready"]:
            self._become(Life.READY)

    def take_seat(self, worker: int) -> None:
        self.row["seat"] = worker + 1

    def order_end(self) -> None:
        self.row["order"] = 1

    def keep_record(self) -> None:
        """To the watch: the flight recorder is to be written out."""
        if self.life == Life.READY:
            signal.pidfd_send_signal(self.pidfd, signal.SIGUSR1)

    def kill(self) -> None:
        """For the engine's end; `reap` follows."""
        if self.handle is not None and self.handle.poll() is None:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> None:
        """Waits for a killed process, so that nothing is left behind."""
        if self.handle is None:
            return
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not poll.poll(limits.REAP_LIMIT_MS):
            self.log.error("%s (pid %d) cannot be killed: it hangs in the kernel", self.seat.name, self.handle.pid)
            return
        self.handle.wait()
        os.close(self.pidfd)
        self.handle = None

    def _become(self, to: Life) -> None:
        if (self.life, to) not in TRANSITIONS:
            raise ValueError(f"{self.seat.name} does not go from {self.life.name} to {to.name}")
        self.life = to

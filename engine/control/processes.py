"""Who belongs to the engine, and what each costs the host: seats, CPU time, memory.

Owns what was read from /proc at the last look, and CPU time summed over all lives of a process;
the control process runs it, once a second. Reads the arena's child rows and /proc, writes nothing.
What must stay true: CPU time never falls, whoever is restarted; a process that goes away between
two reads is no error.
"""

import os
from pathlib import Path
from typing import NamedTuple

from engine.shared import CONTROL, EGRESS, INGRESS, KAFKA, WATCH, Life, Seat, Shared, worker_seat

SUPERVISOR = "supervisor"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Of one process."""

    cpu_s: float  # over all its lives
    resident_bytes: int  # shared memory and files included
    private_bytes: int  # what its end would give back


def seats(shared: Shared) -> list[Seat]:
    """Every child that should be there: the fixed ones, those that the settings ask for, those of `worker_seats`."""
    wanted = [seat for seat in (KAFKA, WATCH) if shared.supervisor[0]["starts"][seat.row]]
    return [INGRESS, EGRESS, CONTROL, *wanted, *worker_seats(shared)]


def worker_seats(shared: Shared) -> list[Seat]:
    """A process for each worker, and the spare where one was started."""
    spare = worker_seat(shared.workers)
    kept = [spare] if shared.supervisor[0]["starts"][spare.row] else []
    return [worker_seat(number) for number in range(shared.workers)] + kept


def life(shared: Shared, seat: Seat) -> Life:
    return Life(int(shared.supervisor[0]["lives"][seat.row]))


def pids(shared: Shared) -> dict[str, int]:
    """Process ids by name, of those that live."""
    found = {SUPERVISOR: shared.arena.owner_pid}
    for seat in seats(shared):
        pid = int(shared.children[seat.row]["pid"])
        if pid and life(shared, seat) in (Life.LOADING, Life.READY):
            found[seat.name] = pid
    return found


class Costs:
    """Costs by process name, as of the last `read`."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self.now: dict[str, Cost] = {}
        self._proc = proc
        self._lives: dict[tuple[int, int], int] = {}  # (pid, start time) -> ticks at the last read
        self._cpu_s: dict[str, float] = {}

    def read(self, named: dict[str, int]) -> None:
        seen: dict[tuple[int, int], int] = {}
        self.now = {}
        for name, pid in named.items():
            try:
                start, ticks = _ticks((self._proc / str(pid) / "stat").read_text())
                resident, private = _memory((self._proc / str(pid) / "status").read_text())
            except (OSError, ValueError, IndexError):
                continue  # it ended just now
            seen[pid, start] = ticks
            spent = (ticks - self._lives.get((pid, start), 0)) / TICKS_PER_S
            self._cpu_s[name] = self._cpu_s.get(name, 0.0) + spent
            self.now[name] = Cost(self._cpu_s[name], resident, private)
        self._lives = seen

    @property
    def cpu_s(self) -> float:
        """Of all processes and all their lives together."""
        return sum(self._cpu_s.values())


def _ticks(stat: str) -> tuple[int, int]:
    """(start time, user and system time) in clock ticks; the name in brackets may hold anything."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[19]), int(fields[11]) + int(fields[12])


def _memory(status: str) -> tuple[int, int]:
    """(resident bytes, of which are its own: neither files nor shared memory)."""
    kilobytes = {"VmRSS": 0, "RssAnon": 0}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in kilobytes:
            kilobytes[name] = int(value.split()[0])
    return kilobytes["VmRSS"] << 10, kilobytes["RssAnon"] << 10

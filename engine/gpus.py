"""The host's GPUs: how many models can run on, and how full their memory is.

Owns the connection to NVIDIA's management library. Run by the supervisor's start, by `check` and `replay` (how many),
and by the control process (memory). Reads /dev and asks another process, because whoever has once spoken to CUDA keeps
its hundreds of megabytes. What must stay true: a host without a GPU is not asked twice and needs none of the libraries.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.settings import Settings

PROBE_S = 60.0  # a first start of CUDA reads hundreds of megabytes from disk


class Memory(NamedTuple):
    gpu: int
    used_bytes: int
    total_bytes: int


def are_there(devices: Path = Path("/dev")) -> bool:
    return any(devices.glob("nvidia[0-9]*"))


def usable(settings: Settings) -> tuple[int, str]:
    """How many GPUs this configuration's models run on, and why there is none where one is wanted or there."""
    if settings.engine.device == "cpu" or (settings.engine.device == "auto" and not are_there()):
        return 0, ""
    return _probed() if are_there() else (0, "there is no GPU here")


@functools.cache
def _probed() -> tuple[int, str]:
    try:
        probe = subprocess.run(
            [sys.executable, "-m", "engine.inference.models.cuda"], capture_output=True, timeout=PROBE_S, check=True
        )
        found = json.loads(probe.stdout)
        return int(found["gpus"]), str(found["why"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return 0, f"CUDA cannot be asked: {error}"


def memory_reader() -> Callable[[], list[Memory]]:
    """Of each GPU that the driver shows, by NVML; one that says nothing where that is not to be had."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # the package or the driver is not there
        return list

    def read() -> list[Memory]:
        try:
            infos = [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        except pynvml.NVMLError:  # the driver lost it
            return []
        return [Memory(number, int(info.used), int(info.total)) for number, info in enumerate(infos)]

    return read

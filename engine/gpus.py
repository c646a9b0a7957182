"""The host's GPUs: how many models can run on, and how full their memory is.

Owns the connection to NVIDIA's management library. Run by the supervisor's start, by `check` and `replay` (how many),
and by the control process (memory). Reads /dev and asks another process, because whoever has once spoken to CUDA keeps
its hundreds of megabytes. What must stay true: a host without a GPU is not asked twice and needs none of the libraries.
"""

import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.settings import Settings

PAYS_FROM_BYTES = 4 << 20  # of an artefact; `bench.gpu` shows why
PROBE_S = 60.0  # a first start of CUDA reads hundreds of megabytes from disk


class Memory(NamedTuple):
    gpu: int
    used_bytes: int
    total_bytes: int


def are_there(devices: Path = Path("/dev")) -> bool:
    return any(devices.glob("nvidia[0-9]*"))


def min_artefact_bytes(settings: Settings) -> int:
    """Of a graph that runs on a GPU: of all where it was asked for, else of those large enough for it to pay."""
    return 0 if settings.engine.device == "cuda" else PAYS_FROM_BYTES


def usable(settings: Settings) -> tuple[list[int], str]:
    """The numbers of the GPUs that this configuration's models run on, and why not of (all) those wanted or there."""
    if settings.engine.device == "cpu":
        return [], ""
    if settings.engine.device == "auto":
        sizes = [path.lstat().st_size for path in Path(settings.models.path).rglob("*.onnx")]
        if not are_there() or max(sizes, default=0) < PAYS_FROM_BYTES:
            return [], ""
    return probed() if are_there() else ([], "there is no GPU here")


@functools.cache
def probed() -> tuple[list[int], str]:
    """Whatever the configuration says."""
    try:
        probe = subprocess.run(
            [sys.executable, "-m", "engine.inference.models.cuda"], capture_output=True, timeout=PROBE_S, check=True
        )
        found = json.loads(probe.stdout)
        return [int(each) for each in found["gpus"]], str(found["why"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return [], f"CUDA cannot be asked: {error}"


def memory_reader() -> Callable[[], list[Memory]]:
    """Of each GPU that the driver shows, by NVML; one that says nothing where that is not to be had."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # the package or the driver is not there
        return list

    def read() -> list[Memory]:
        found = []
        for number, handle in enumerate(handles):
            with contextlib.suppress(pynvml.NVMLError):  # the driver lost it
                info = pynvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(Memory(number, int(info.used), int(info.total)))
        return found

    return read

"""The worker process: loads, stands by until it is given a ring, then serves it.

Owns nothing before it has a seat; then the answers ring, the requests ring's tail and the windows of
its shards. What must stay true: models and kernels are loaded and warm before it says ready.
"""

from pathlib import Path

from engine import limits
from engine.child import Child
from engine.errors import CudaError
from engine.gpus import min_artefact_bytes
from engine.inference import jit, microbatch
from engine.inference.loop import serve
from engine.inference.models.cuda import Device
from engine.inference.predictor import Predictor
from engine.shared import Gpu, Phase, worker_seat


def run(child: Child) -> int:
    settings, shared = child.settings, child.shared
    device = gpu_of(child)
    predictor = Predictor(
        Path(settings.models.path), shared.versions, shared.plans, child.row, settings.engine.max_batch, device
    )
    if not any(jit.FOLDER.glob("*.nbc")):
        child.log.info("compiling kernels (first start), which takes a minute or two")
    predictor.load()
    if device is not None:
        child.row[0]["gpu"] = gpu_state(device)
        child.log.info("%d of %d graphs run on GPU %d", device.placed, device.wanted, device.number)
    microbatch.warm(shared.requests[0].slots, shared.answers[0].slots)
    child.pulse(Phase.STANDBY)
    child.ready()
    worker = await_seat(child)
    if worker < 0:
        return 0
    return serve(child, predictor, worker)


def gpu_of(child: Child) -> Device | None:
    """The GPU that this worker's graphs are to run on, by its place among the workers; None: the processor does."""
    row, place = child.row[0], child.seat.row - worker_seat(0).row
    row["gpu"] = Gpu.AWAY if child.settings.engine.device == "cuda" else Gpu.NONE
    if not child.gpus:
        return None
    number = child.gpus[place % len(child.gpus)]

    def tell(why: str) -> None:
        row["gpu"] = Gpu.AWAY
        child.log.error("GPU %d: %s; the processor stands in for it", number, why)

    try:
        return Device(number, tell, min_artefact_bytes(child.settings))
    except CudaError as error:
        tell(str(error))
        return None


def gpu_state(device: Device) -> Gpu:
    """Of a worker that has loaded its models."""
    if device.placed and not device.lost:
        return Gpu.IN_USE
    return Gpu.AWAY if device.wanted else Gpu.NONE


def await_seat(child: Child) -> int:
    """The index of the ring to serve, -1 where the engine ends first. Asleep all the while."""
    bell = child.shared.bells[child.seat.row]
    while not child.stopping():
        child.pulse(Phase.STANDBY)
        if seat := int(child.row[0]["seat"]):
            child.log.info("serves ring %d", seat - 1)
            return seat - 1
        bell.wait([], [], "block", 0, limits.TICK_MS)  # the bell may have rung between the look and the sleep
    return -1

"""The worker process: loads, stands by until it is given a ring, then serves it.

Owns nothing before it has a seat; then the answers ring, the requests ring's tail and the windows of
its shards. What must stay true: models and kernels are loaded and warm before it says ready.
"""

from pathlib import Path

from engine import limits
from engine.child import Child
from engine.inference import jit, microbatch
from engine.inference.loop import serve
from engine.inference.predictor import Predictor
from engine.shared import Phase


def run(child: Child) -> int:
    settings, shared = child.settings, child.shared
    predictor = Predictor(
        Path(settings.models.path), shared.versions, shared.plans, child.row, settings.engine.max_batch
    )
    if not any(jit.FOLDER.glob("*.nbc")):
        child.log.info("compiling kernels (first start), which takes a minute or two")
    predictor.load()
    microbatch.warm(shared.requests[0].slots, shared.answers[0].slots)
    child.pulse(Phase.STANDBY)
    child.ready()
    worker = await_seat(child)
    if worker < 0:
        return 0
    return serve(child, predictor, worker)


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

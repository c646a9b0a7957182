"""What `/health` says, judged from the arena alone.

Owns nothing; the control process runs it at each question. Reads the supervisor's board, child and
version rows, writes nothing. What must stay true: the status is true in every state of the engine.
Nothing here believes a process that the supervisor does not call ready, because a dead one's row
still says what it said last.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

from engine.control.processes import life, seats, worker_seats
from engine.control.samples import Rates
from engine.gpus import Memory
from engine.settings import Settings
from engine.shared import CONTROL, EGRESS, INGRESS, KAFKA, WATCH, Breaker, BusState, Count, Engine, Gpu, Life, Shared
from engine.tenancy.tiers import BASELINE, VOTE

TICK_AGE_MAX_NS = 1_000_000_000  # an older tick of the supervisor: nobody watches the children


class Health(Enum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # predictions go on, something is away
    UNHEALTHY = "unhealthy"


class Verdict(NamedTuple):
    health: Health
    reasons: tuple[str, ...]  # for the log: one each, the gravest first


OF_BREAKER = {
    Breaker.CLOSED: Health.HEALTHY,
    Breaker.HALF_OPEN: Health.DEGRADED,
    Breaker.OPEN: Health.UNHEALTHY,
}


def judge(shared: Shared, settings: Settings, now_ns: int) -> Verdict:
    """The engine's health at `now_ns` (CLOCK_MONOTONIC), and why."""
    grave = _grave(shared, settings, now_ns)
    slight = _slight(shared, settings)
    health = Health.UNHEALTHY if grave else Health.DEGRADED if slight else Health.HEALTHY
    return Verdict(health, (*grave, *slight))


def _grave(shared: Shared, settings: Settings, now_ns: int) -> list[str]:
    reasons = []
    if not supervised(shared, now_ns):
        reasons.append(f"the supervisor has not ticked for {tick_age_ns(shared, now_ns) / 1e9:.1f} s")
    state = Engine(int(shared.supervisor[0]["state"]))
    if state in (Engine.DRAINING, Engine.STOPPING):
        reasons.append(f"the engine is {state.name.lower()}: it takes no input")
    if "up" not in buses(shared, settings).values():
        reasons.append("no bus is up")
    if not served(shared):
        reasons.append("no worker is ready")
    spent = [seat.name for seat in seats(shared) if life(shared, seat) is Life.SPENT]
    return reasons + [f"{name} died on every start and is not started again" for name in spent]


def _slight(shared: Shared, settings: Settings) -> list[str]:
    reasons = [f"bus {name} is down" for name, state in buses(shared, settings).items() if state != "up"]
    for seat in seats(shared):
        now = life(shared, seat)
        gone = now is Life.ABSENT and seat in (INGRESS, EGRESS)  # a worker's absence shows in its ring
        if seat != CONTROL and (gone or now in (Life.LOADING, Life.DYING)):  # this process answers, so it is there
            reasons.append(f"{seat.name} is {now.name.lower()}")
    if shared.children[WATCH.row]["counters"][Count.TAPE_STUCK]:
        reasons.append("the tape cannot be written")
    reasons += [f"{name} runs its models on the processor: its GPU is away" for name in without_gpu(shared)]
    reasons += [f"model {name} could not be loaded: its fallback answers" for name in left_out(shared)]
    unserved = shared.workers - len(served(shared))
    if unserved:
        reasons.append(f"{unserved} of {shared.workers} workers away")
    return reasons + [f"breaker of {name} is {word(now)}" for name, now in breakers(shared).items() if now]


def tick_age_ns(shared: Shared, now_ns: int) -> int:
    return max(0, now_ns - int(shared.supervisor[0]["tick_ns"]))


def supervised(shared: Shared, now_ns: int) -> bool:
    """Whether the supervisor ticked within the last second."""
    return tick_age_ns(shared, now_ns) <= TICK_AGE_MAX_NS


def served(shared: Shared) -> set[int]:
    """Indexes of the workers' rings that a ready process serves; a spare has none."""
    ready = [seat for seat in worker_seats(shared) if life(shared, seat) is Life.READY]
    return {int(shared.children[seat.row]["seat"]) - 1 for seat in ready} - {-1}


def without_gpu(shared: Shared) -> list[str]:
    """Names of ready workers that the processor stands in for their GPU."""
    ready = [seat for seat in worker_seats(shared) if life(shared, seat) is Life.READY]
    return [seat.name for seat in ready if int(shared.children[seat.row]["gpu"]) == Gpu.AWAY]


def left_out(shared: Shared) -> list[str]:
    """Names of shared models whose newest version some ready worker could not load."""
    ready = [
        int(shared.children[seat.row]["left_out"]) for seat in worker_seats(shared) if life(shared, seat) is Life.READY
    ]
    return [name for name, row in versions(shared).items() if any(mask >> row & 1 for mask in ready)]


def ready(shared: Shared, settings: Settings, now_ns: int) -> bool:
    """Whether a vector sent now would be answered: watched, running, a warm worker, a bus."""
    running = int(shared.supervisor[0]["state"]) == Engine.RUNNING
    bus = "up" in buses(shared, settings).values()
    return running and supervised(shared, now_ns) and bool(served(shared)) and bus


def buses(shared: Shared, settings: Settings) -> dict[str, str]:
    """`up` or `down` of each configured bus: up when it can be read from and written to."""
    bus = settings.bus
    configured = {"nats": bus.nats.url, "kafka": bus.kafka.bootstrap, "local": bus.local.path}
    return {name: _bus(shared, name) for name, where in configured.items() if where}


def _bus(shared: Shared, name: str) -> str:
    field = f"bus_{name}"
    for seat in (KAFKA,) if name == "kafka" else (INGRESS, EGRESS):
        if life(shared, seat) is not Life.READY or int(shared.children[seat.row][field]) != BusState.UP:
            return "down"
    return "up"


def versions(shared: Shared) -> dict[str, int]:
    """Row of each shared model's newest version; companies' own are nobody else's, the vote and the baseline none."""
    rows = {}
    for row in range(len(shared.versions)):
        if shared.versions[row]["taken"] and not shared.versions[row]["own"]:
            rows[shared.versions[row]["model_id"].decode()] = row
    return {name: row for name, row in rows.items() if name not in (VOTE, BASELINE)}


def breakers(shared: Shared) -> dict[str, Breaker]:
    return {name: Breaker(int(shared.versions[row]["breaker"])) for name, row in versions(shared).items()}


def word(breaker: Breaker) -> str:
    return breaker.name.lower()


def body(
    shared: Shared,
    settings: Settings,
    verdict: Verdict,
    rates: Rates,
    cores: float,
    gpu_memory: Sequence[Memory],
    version: str,
    now: datetime,
) -> dict[str, Any]:
    """The JSON of `/health`, in the contract's order."""
    missing = left_out(shared)
    models = {
        f"model_{name}": {
            "status": Health.UNHEALTHY.value if name in missing else OF_BREAKER[breaker].value,
            "version": shared.versions[versions(shared)[name]]["version"].decode(),
            "breaker": word(breaker),
        }
        for name, breaker in breakers(shared).items()
    }
    return {
        "service": "ml-processing",
        "status": verdict.health.value,
        "timestamp": f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
        "version": version,
        **models,
        "gpu_memory": [memory._asdict() for memory in gpu_memory],
        "cpu_usage": round(rates.cores / cores, 4),
        "avg_inference_time_ms": round(rates.inference_ms, 4),
        "throughput_predictions_per_second": round(rates.predictions_per_s, 1),
        "circuit_breakers": {name: word(breaker) for name, breaker in breakers(shared).items()},
        "active_tenants": int(shared.children[INGRESS.row]["counters"][Count.TENANTS]),
        "buses": buses(shared, settings),
    }

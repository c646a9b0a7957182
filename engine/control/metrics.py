"""What `/metrics` says: the arena's counters, histograms and boards under their Prometheus names.

Owns the table of names; the control process runs it at each scrape. Reads the arena, writes
nothing, so a scrape disturbs nobody. What must stay true: every counter of the arena has a row in
the table; labels are process, stage, model, status, cause and bus alone, never a symbol, a user, a company.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.control import health
from engine.control.exposition import Labels, family, histogram
from engine.control.processes import Cost, life, seats, worker_seats
from engine.control.samples import Rates
from engine.gpus import Memory
from engine.settings import Settings
from engine.shared import Breaker, Cause, Count, Engine, Gpu, Life, Seat, Shared, Stage
from engine.tenancy.tiers import BASELINE, VOTE


class Metric(NamedTuple):
    """How a counter of a child row is shown. `kind` gauge: the name goes without `_total`."""

    owner: str  # ingress | worker | egress | kafka | watch
    kind: str
    text: str


METRICS: dict[Count, Metric] = {
    Count.MESSAGES: Metric("ingress", "counter", "Messages taken from a bus, whatever became of them."),
    Count.MESSAGE_BYTES: Metric("ingress", "counter", "Bytes of messages taken from a bus."),
    Count.INPUTS_ACCEPTED: Metric("ingress", "counter", "Inputs accepted: named, numbered, kept until answered."),
    Count.VECTORS_ACCEPTED: Metric("ingress", "counter", "Feature vectors of accepted inputs."),
    Count.DUPLICATES: Metric("ingress", "counter", "Further copies of a name that was accepted before."),
    Count.CONFLICTS: Metric("ingress", "counter", "Copies whose bytes differ from the first under their name."),
    Count.MISSING: Metric("ingress", "counter", "Sequences found missing when a stream moved on."),
    Count.LATE: Metric("ingress", "counter", "Inputs that came after their stream had moved on."),
    Count.REJECTED_MESSAGES: Metric("ingress", "counter", "Messages answered by a rejection."),
    Count.REJECTED_VECTORS: Metric("ingress", "counter", "Vectors answered with status REJECTED."),
    Count.UNVERIFIED: Metric("ingress", "counter", "Messages refused before they could take a name."),
    Count.UNVERIFIED_UNREPORTED: Metric("ingress", "counter", "Refused messages beyond the reports a second."),
    Count.OVERLOADED: Metric("ingress", "counter", "Messages that found their company's queue full."),
    Count.DROPPED: Metric("ingress", "counter", "NATS messages dropped because every place was taken."),
    Count.HEARTBEATS: Metric("ingress", "counter", "Heartbeats of producers."),
    Count.TOKENS_VERIFIED: Metric("ingress", "counter", "Token signatures verified; remembered tokens do not count."),
    Count.WINDOWS_EVICTED: Metric("ingress", "counter", "Windows given up for another key."),
    Count.REAPPLIED: Metric("ingress", "counter", "Inputs completed after a restart of ingress."),
    Count.QUEUED: Metric("ingress", "gauge", "Messages that wait for a place in a ring."),
    Count.TENANTS: Metric("ingress", "gauge", "Companies heard in the last five minutes."),
    Count.MICROBATCHES: Metric("worker", "counter", "Microbatches run."),
    Count.PREDICTIONS: Metric("worker", "counter", "Vectors answered by the workers."),
    Count.PREDICTIONS_EXPIRED: Metric("worker", "counter", "Vectors answered EXPIRED at their turn."),
    Count.PREDICTIONS_DEGRADED: Metric("worker", "counter", "Vectors answered with a fallback in place of a model."),
    Count.PREDICTIONS_WARMING: Metric("worker", "counter", "Vectors answered while a window was not full."),
    Count.POISONED: Metric("worker", "counter", "Vectors answered `poison`: a worker died of them twice."),
    Count.DEAD_LETTERS: Metric("egress", "counter", "Inputs that killed workers: dead letters."),
    Count.REPEATED: Metric("worker", "counter", "Vectors taken again after a restart of a worker."),
    Count.SENT: Metric("egress", "counter", "Messages handed to a bus."),
    Count.SENT_BYTES: Metric("egress", "counter", "Bytes handed to a bus."),
    Count.CONFIRMED: Metric("egress", "counter", "Answers confirmed by a bus."),
    Count.RESENT: Metric("egress", "counter", "Answers sent again under their name."),
    Count.EXPIRED_UNSENT: Metric("egress", "counter", "Inputs sent as EXPIRED because no bus took them in time."),
    Count.LOCAL_READERS: Metric("egress", "gauge", "Readers of the local bus."),
    Count.LOCAL_CUT: Metric("egress", "counter", "Readers of the local bus cut off because they did not read."),
    Count.OUTBOX_BYTES: Metric("egress", "gauge", "Bytes kept for a bus that is away."),
    Count.OUTBOX_DROPPED: Metric("egress", "counter", "Answers dropped from a full outbox."),
    Count.UNREAD: Metric("egress", "counter", "Answers that nobody read for, on a host with the local bus alone."),
    Count.KAFKA_TAKEN: Metric("kafka", "counter", "Records read from Kafka."),
    Count.KAFKA_PUBLISHED: Metric("kafka", "counter", "Answers and reports that Kafka confirmed."),
    Count.KAFKA_REFUSED: Metric("kafka", "counter", "Answers and reports that Kafka will never take."),
    Count.NATS_UNCONFIRMED: Metric("egress", "counter", "Answers sent over Kafka because NATS did not confirm them."),
    Count.TAPE_INPUTS: Metric("watch", "counter", "Inputs recorded with their answers."),
    Count.TAPE_BYTES: Metric("watch", "counter", "Bytes recorded."),
    Count.TAPE_STUCK: Metric("watch", "gauge", "1 while the tape cannot be written."),
    Count.TAPE_LOST: Metric("watch", "counter", "Inputs that are in a hole of the tape."),
    Count.TAPE_FAILURES: Metric("watch", "counter", "Writes to the tape that failed."),
    Count.TAPE_DUMPS: Metric("watch", "counter", "Times that the flight recorder was written to disk."),
}

STAGES: dict[Stage, str] = {
    Stage.INGRESS: "ingress",
    Stage.RING_WAIT: "worker",
    Stage.INFERENCE: "worker",
    Stage.EGRESS: "egress",
    Stage.ENGINE: "egress",
    Stage.CONFIRM: "egress",
    Stage.BUS_LAG: "ingress",
    Stage.WORKER: "egress",
}


def page(
    shared: Shared,
    settings: Settings,
    costs: dict[str, Cost],
    rates: Rates,
    cores: float,
    gpu_memory: Sequence[Memory],
    now_ns: int,
) -> Iterator[str]:
    """Every line of the page; `costs` by process name, `now_ns` by CLOCK_MONOTONIC."""
    yield from _status(shared, settings, now_ns)
    yield from _supervision(shared, now_ns)
    yield from _models(shared)
    yield from _counters(shared)
    yield from _queues(shared)
    yield from _stages(shared)
    yield from _host(shared, costs, rates, cores)
    yield from _gpus(shared, gpu_memory)


def _status(shared: Shared, settings: Settings, now_ns: int) -> Iterator[str]:
    now = health.judge(shared, settings, now_ns).health
    yield from family(
        "tickpath_health",
        "gauge",
        "1 for the engine's status, 0 for the others.",
        [({"status": each.value}, each is now) for each in health.Health],
    )
    yield from family(
        "tickpath_bus_up",
        "gauge",
        "1 while a bus can be read from and written to.",
        [({"bus": name}, state == "up") for name, state in health.buses(shared, settings).items()],
    )


def _supervision(shared: Shared, now_ns: int) -> Iterator[str]:
    board = shared.supervisor[0]
    yield from family(
        "tickpath_engine_state",
        "gauge",
        "1 for the state of the engine's life, 0 for the others.",
        [({"status": each.name.lower()}, each == int(board["state"])) for each in Engine],
    )
    yield from family(
        "tickpath_start_time_seconds", "gauge", "Unix time of the engine's start.", [({}, int(board["epoch"]) / 1e9)]
    )
    yield from family(
        "tickpath_supervisor_tick_age_seconds",
        "gauge",
        "Time since the supervisor looked after its children.",
        [({}, health.tick_age_ns(shared, now_ns) / 1e9)],
    )
    yield from family(
        "tickpath_process_state",
        "gauge",
        "1 for the state of a child process, 0 for the others.",
        [
            ({"process": seat.name, "status": each.name.lower()}, each is life(shared, seat))
            for seat in seats(shared)
            for each in Life
        ],
    )
    yield from family(
        "tickpath_process_starts_total",
        "counter",
        "Starts of a child process.",
        [({"process": seat.name}, int(board["starts"][seat.row])) for seat in seats(shared)],
    )


def _models(shared: Shared) -> Iterator[str]:
    yield from family(
        "tickpath_breaker_state",
        "gauge",
        "1 for the state of a model's circuit breaker, 0 for the others.",
        [
            ({"model": name, "status": health.word(each)}, each is now)
            for name, now in health.breakers(shared).items()
            for each in Breaker
        ],
    )
    yield from family(
        "tickpath_breaker_opened_total",
        "counter",
        "How often a model's circuit breaker opened, by why.",
        [
            ({"model": name, "cause": cause.name.lower()}, int(shared.versions["opened"][rows, cause].sum()))
            for name, rows in _shared_models(shared).items()
            for cause in Cause
        ],
    )
    for field, text in (
        ("successes", "Groups of vectors that a model answered."),
        ("failures", "Groups of vectors that a model failed to answer."),
        ("unsound", "Groups of vectors for which a model gave numbers that cannot be used."),
        ("slow", "Groups of vectors for which a model took longer than its budget."),
    ):
        yield from family(f"tickpath_model_{field}_total", "counter", text, _by_model(shared, field))


def _by_model(shared: Shared, field: str) -> list[tuple[Labels, float]]:
    """Sums over the versions of a model, for each worker process that was started."""
    return [
        ({"process": seat.name, "model": name}, int(shared.children[seat.row][field][rows].sum()))
        for seat in _of_owner(shared, "worker")
        for name, rows in _shared_models(shared).items()
    ]


def _shared_models(shared: Shared) -> dict[str, list[int]]:
    """Rows of each model that is nobody's own; the vote and the baseline are no models."""
    rows_of: dict[str, list[int]] = {}
    for row in range(len(shared.versions)):
        name = shared.versions[row]["model_id"].decode()
        if shared.versions[row]["taken"] and not shared.versions[row]["own"] and name not in (VOTE, BASELINE):
            rows_of.setdefault(name, []).append(row)
    return rows_of


def _counters(shared: Shared) -> Iterator[str]:
    for count, metric in METRICS.items():
        name = f"tickpath_{count.name.lower()}" + ("_total" if metric.kind == "counter" else "")
        samples = [
            ({"process": seat.name}, int(shared.children[seat.row]["counters"][count]))
            for seat in _of_owner(shared, metric.owner)
        ]
        yield from family(name, metric.kind, metric.text, samples)


def _queues(shared: Shared) -> Iterator[str]:
    """What waits where. A tail is read before its head, so that no difference is negative."""
    waiting = [("requests", shared.requests), ("answers", shared.answers), ("rejections", [shared.rejections])]
    for name, rings in waiting:
        tails = [ring.tail for ring in rings]
        slots = sum(ring.head - tail for ring, tail in zip(rings, tails, strict=True))
        yield from family(f"tickpath_{name}_slots", "gauge", f"Slots in use in the {name} rings.", [({}, slots)])
    tail = shared.inputs.tail
    yield from family(
        "tickpath_input_position",
        "gauge",
        "Position of the last accepted input: how many there were, heartbeats included.",
        [({}, int(shared.ingress[0]["applied"]))],
    )
    yield from family(
        "tickpath_inputs_bytes", "gauge", "Bytes of inputs not done with.", [({}, shared.inputs.head - tail)]
    )


def _stages(shared: Shared) -> Iterator[str]:
    rows = [
        ({"process": seat.name, "stage": stage.name.lower()}, shared.histograms[seat.row, stage])
        for stage, owner in STAGES.items()
        for seat in _of_owner(shared, owner)
    ]
    yield from histogram("tickpath_stage_duration_seconds", "Where the time of a vector goes, by stage.", rows)


def _host(shared: Shared, costs: dict[str, Cost], rates: Rates, cores: float) -> Iterator[str]:
    for name, kind, text, field in (
        ("cpu_seconds_total", "counter", "CPU time of a process, over all its lives.", "cpu_s"),
        (
            "resident_memory_bytes",
            "gauge",
            "Memory of a process, what it touched of the shared part included.",
            "resident_bytes",
        ),
        ("private_memory_bytes", "gauge", "Memory of a process that no other one shares.", "private_bytes"),
    ):
        samples = [({"process": process}, getattr(cost, field)) for process, cost in costs.items()]
        yield from family(f"tickpath_process_{name}", kind, text, samples)
    yield from family("tickpath_arena_bytes", "gauge", "Size of the shared memory.", [({}, shared.arena.bytes)])
    yield from family("tickpath_allowed_cores", "gauge", "Cores that the engine may use.", [({}, cores)])
    yield from family("tickpath_used_cores", "gauge", "Cores used over the last ten seconds.", [({}, rates.cores)])


def _gpus(shared: Shared, memory: Sequence[Memory]) -> Iterator[str]:
    """Nothing where models are not to run on any."""
    wanted = [seat for seat in worker_seats(shared) if shared.children[seat.row]["gpu"]]
    if not wanted:
        return
    samples = [({"process": seat.name}, shared.children[seat.row]["gpu"] == Gpu.AWAY) for seat in wanted]
    yield from family("tickpath_gpu_away", "gauge", "1 while the processor stands in for a worker's GPU.", samples)
    for name, text, field in (
        ("used", "Memory of a GPU in use, by whomever.", "used_bytes"),
        ("total", "Memory of a GPU.", "total_bytes"),
    ):
        samples = [({"gpu": str(each.gpu)}, getattr(each, field)) for each in memory]
        yield from family(f"tickpath_gpu_memory_{name}_bytes", "gauge", text, samples)


def _of_owner(shared: Shared, owner: str) -> list[Seat]:
    """Children of a role; workers that were never started are left out."""
    if owner != "worker":
        return [seat for seat in seats(shared) if seat.name == owner]
    return [seat for seat in worker_seats(shared) if shared.supervisor[0]["starts"][seat.row]]

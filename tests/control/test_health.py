"""The status of `/health` is true in every state of the engine."""

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from engine.control import health, samples
from engine.control.health import Health
from engine.control.samples import Rates, Sample
from engine.gpus import Memory
from engine.settings import Nats
from engine.shared import CONTROL, EGRESS, INGRESS, Breaker, BusState, Count, Engine, Gpu, Life, Stage, worker_seat
from tests.control import engines
from tests.control.engines import SETTINGS

NOW = datetime(2026, 11, 23, 12, 0, 0, 7_000, tzinfo=UTC)
NOW_NS = 5_000_000_000_000
RATES = Rates(predictions_per_s=251.34, inference_ms=0.06049, cores=0.82)


def life(seat, now):
    def change(shared):
        shared.supervisor[0]["lives"][seat.row] = now

    return change


def gpu(seat, now):
    def change(shared):
        shared.children[seat.row]["gpu"] = now

    return change


def without(seat, versions):
    def change(shared):
        shared.children[seat.row]["left_out"] = versions

    return change


def bus(field, seat, now):
    def change(shared):
        shared.children[seat.row][field] = now

    return change


def both(*changes):
    def change(shared):
        for each in changes:
            each(shared)

    return change


def state(now):
    def change(shared):
        shared.supervisor[0]["state"] = now

    return change


def breaker(row, now):
    def change(shared):
        shared.versions[row]["breaker"] = now

    return change


def late_tick(shared):
    shared.supervisor[0]["tick_ns"] -= 2_500_000_000


NOBODY = both(
    life(worker_seat(0), Life.LOADING), life(worker_seat(1), Life.LOADING), life(worker_seat(2), Life.LOADING)
)
NO_BUS = both(bus("bus_nats", INGRESS, BusState.DOWN), bus("bus_local", EGRESS, BusState.DOWN))

STATES = {
    "all there": (both(), Health.HEALTHY, ()),
    "one bus down for reading": (
        bus("bus_nats", INGRESS, BusState.DOWN),
        Health.DEGRADED,
        ("bus nats is down",),
    ),
    "one bus down for writing": (bus("bus_local", EGRESS, BusState.DOWN), Health.DEGRADED, ("bus local is down",)),
    "both buses down": (
        NO_BUS,
        Health.UNHEALTHY,
        ("no bus is up", "bus nats is down", "bus local is down"),
    ),
    "ingress dead, its row still saying up": (
        life(INGRESS, Life.DYING),
        Health.UNHEALTHY,
        ("no bus is up", "bus nats is down", "bus local is down", "ingress is dying"),
    ),
    "ingress gone": (
        life(INGRESS, Life.ABSENT),
        Health.UNHEALTHY,
        ("no bus is up", "bus nats is down", "bus local is down", "ingress is absent"),
    ),
    "one worker starts again, no spare yet": (
        both(life(worker_seat(0), Life.LOADING), life(worker_seat(2), Life.ABSENT)),
        Health.DEGRADED,
        ("worker-0 is loading", "1 of 2 workers away"),
    ),
    "the spare still loads": (life(worker_seat(2), Life.LOADING), Health.DEGRADED, ("worker-2 is loading",)),
    "no worker ready": (
        NOBODY,
        Health.UNHEALTHY,
        (
            "no worker is ready",
            "worker-0 is loading",
            "worker-1 is loading",
            "worker-2 is loading",
            "2 of 2 workers away",
        ),
    ),
    "only the spare ready, without a ring": (
        both(life(worker_seat(0), Life.DYING), life(worker_seat(1), Life.DYING)),
        Health.UNHEALTHY,
        ("no worker is ready", "worker-0 is dying", "worker-1 is dying", "2 of 2 workers away"),
    ),
    "a budget spent while others go on": (
        life(worker_seat(1), Life.SPENT),
        Health.UNHEALTHY,
        ("worker-1 died on every start and is not started again", "1 of 2 workers away"),
    ),
    "the supervisor away": (late_tick, Health.UNHEALTHY, ("the supervisor has not ticked for 2.5 s",)),
    "draining": (state(Engine.DRAINING), Health.UNHEALTHY, ("the engine is draining: it takes no input",)),
    "stopping": (state(Engine.STOPPING), Health.UNHEALTHY, ("the engine is stopping: it takes no input",)),
    "a worker without its GPU": (
        gpu(worker_seat(1), Gpu.AWAY),
        Health.DEGRADED,
        ("worker-1 runs its models on the processor: its GPU is away",),
    ),
    "a model that a worker could not load": (
        both(without(worker_seat(1), 0b10), without(worker_seat(0), 0)),
        Health.DEGRADED,
        ("model xgboost_direction could not be loaded: its fallback answers",),
    ),
    "a model that a dead worker could not load": (
        both(without(worker_seat(1), 0b10), life(worker_seat(1), Life.DYING)),
        Health.DEGRADED,
        ("worker-1 is dying", "1 of 2 workers away"),
    ),
    "a GPU in use": (gpu(worker_seat(1), Gpu.IN_USE), Health.HEALTHY, ()),
    "a breaker open": (breaker(1, Breaker.OPEN), Health.DEGRADED, ("breaker of xgboost_direction is open",)),
    "a breaker half open": (breaker(0, Breaker.HALF_OPEN), Health.DEGRADED, ("breaker of basic_lstm is half_open",)),
    "control itself not called ready yet": (life(CONTROL, Life.LOADING), Health.HEALTHY, ()),
}


@pytest.mark.parametrize(("change", "status", "reasons"), STATES.values(), ids=STATES.keys())
def test_status_is_true_and_its_reasons_are_named(shared, change, status, reasons):
    shared.supervisor[0]["tick_ns"] = NOW_NS
    change(shared)
    assert health.judge(shared, SETTINGS, NOW_NS) == (status, reasons)


@pytest.mark.parametrize(("change", "status"), [state[:2] for state in STATES.values()], ids=STATES.keys())
def test_ready_means_that_a_vector_sent_now_would_be_answered(shared, change, status):
    shared.supervisor[0]["tick_ns"] = NOW_NS
    change(shared)
    spent_beside_others = change is STATES["a budget spent while others go on"][0]
    assert health.ready(shared, SETTINGS, NOW_NS) == (status is not Health.UNHEALTHY or spent_beside_others)


def test_an_engine_that_was_just_made_is_unhealthy_and_not_ready():
    shared = engines.make_shared()
    verdict = health.judge(shared, SETTINGS, NOW_NS)
    assert verdict.health is Health.UNHEALTHY
    assert not health.ready(shared, SETTINGS, NOW_NS)
    engines.close(shared)


def test_body_is_the_contracts(shared):
    shared.children[INGRESS.row]["counters"][Count.TENANTS] = 5
    breaker(1, Breaker.OPEN)(shared)
    bus("bus_nats", EGRESS, BusState.DOWN)(shared)
    verdict = health.judge(shared, SETTINGS, int(shared.supervisor[0]["tick_ns"]))
    body = health.body(shared, SETTINGS, verdict, RATES, 2.0, [Memory(0, 1024, 4096)], "0.1.0", NOW)
    assert body == {
        "service": "ml-processing",
        "status": "degraded",
        "timestamp": "2026-11-23T12:00:00.007Z",
        "version": "0.1.0",
        "model_basic_lstm": {"status": "healthy", "version": "1.0", "breaker": "closed"},
        "model_xgboost_direction": {"status": "unhealthy", "version": "3.2", "breaker": "open"},
        "gpu_memory": [{"gpu": 0, "used_bytes": 1024, "total_bytes": 4096}],
        "cpu_usage": 0.41,
        "avg_inference_time_ms": 0.0605,
        "throughput_predictions_per_second": 251.3,
        "circuit_breakers": {"basic_lstm": "closed", "xgboost_direction": "open"},
        "active_tenants": 5,
        "buses": {"nats": "down", "local": "up"},
    }


def test_only_configured_buses_are_named(shared):
    alone = replace(SETTINGS, bus=replace(SETTINGS.bus, nats=Nats()))
    bus("bus_nats", INGRESS, BusState.ABSENT)(shared)
    assert health.buses(shared, alone) == {"local": "up"}
    assert health.judge(shared, alone, int(shared.supervisor[0]["tick_ns"])).health is Health.HEALTHY


def test_the_newest_version_of_a_model_speaks_for_it(shared):
    engines.add_version(shared, 5, "basic_lstm", "1.1", Breaker.HALF_OPEN)
    assert health.breakers(shared)["basic_lstm"] is Breaker.HALF_OPEN


def test_rates_are_of_the_last_ten_seconds(shared):
    kept = deque(maxlen=samples.KEPT)
    row = shared.children[worker_seat(1).row]
    histogram = shared.histograms[worker_seat(1).row, Stage.INFERENCE]
    for second in range(15):
        kept.append(samples.take(shared, second * 1_000_000_000, cpu_s=second * 0.5))
        row["counters"][Count.PREDICTIONS] += 100 * second
        histogram["count"] += second
        histogram["sum_ns"] += second * 60_000
    assert samples.rates(kept) == Rates(predictions_per_s=850.0, inference_ms=0.06, cores=0.5)


def test_a_rate_is_of_the_time_that_passed_not_of_the_time_that_should_have():
    kept = deque([Sample(0, 0, 0, 0, 0.0), Sample(4_000_000_000, 1000, 10, 5_000_000, 2.0)])
    assert samples.rates(kept) == Rates(predictions_per_s=250.0, inference_ms=0.5, cores=0.5)


def test_counters_that_begin_anew_are_no_negative_rate():
    kept = deque([Sample(0, 5000, 5000, 5000, 1.0), Sample(1_000_000_000, 10, 10, 10, 1.0)])
    assert samples.rates(kept) == Rates(0.0, 0.0, 0.0)
    assert samples.rates(deque([Sample(0, 5, 5, 5, 1.0)])) == Rates(0.0, 0.0, 0.0)

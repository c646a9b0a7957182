"""The metrics page: what a Prometheus server reads from it."""

import re

import numpy as np
import pytest

from engine.control import exposition, metrics
from engine.control.processes import Cost
from engine.control.samples import Rates
from engine.gpus import Memory
from engine.shared import EGRESS, INGRESS, KAFKA, WATCH, Count, Gpu, Stage, worker_seat
from fastpath.histogram import Histogram
from tests.control import engines
from tests.control.engines import SETTINGS

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
ALLOWED = {"process", "stage", "model", "status", "cause", "bus", "le"}
FIXED = {seat.name: seat for seat in (INGRESS, EGRESS, KAFKA, WATCH)}
SUFFIXES = ("_bucket", "_sum", "_count")


def parse(text):
    """Family -> (type, {(sample name, labels): value}), as strict as the format."""
    assert text.endswith("\n")
    families, current = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            assert current not in families, f"{current} stands twice"
            families[current] = ["", {}]
        elif line.startswith("# TYPE "):
            assert line.split()[2] == current
            families[current][0] = line.split()[3]
        else:
            name, labels, value = SAMPLE.fullmatch(line).groups()
            assert not value.endswith(".0"), line
            kind, samples = families[current]
            assert name == current or (kind == "histogram" and name.removeprefix(current) in SUFFIXES), line
            key = (name, tuple(LABEL.findall(labels or "")))
            assert key not in samples, line
            samples[key] = float(value)
    return families


def page(shared, costs=None, gpu_memory=()):
    now_ns = int(shared.supervisor[0]["tick_ns"])
    lines = metrics.page(shared, SETTINGS, costs or {}, Rates(1.0, 2.0, 0.5), 2.0, gpu_memory, now_ns)
    return parse("\n".join(lines) + "\n")


def value(families, name, **labels):
    return families[name][1][name, tuple(labels.items())]


def test_every_counter_of_the_arena_is_shown(shared):
    for count in Count:
        shared.children["counters"][:, count] = 1000 + count
    for seat in FIXED.values():
        shared.supervisor[0]["starts"][seat.row] = 1
    families = page(shared)
    for count, metric in metrics.METRICS.items():
        name = f"tickpath_{count.name.lower()}" + ("_total" if metric.kind == "counter" else "")
        seats = {"worker": [worker_seat(k) for k in range(3)]}.get(metric.owner, [FIXED.get(metric.owner)])
        assert families[name] == [
            metric.kind,
            {(name, (("process", seat.name),)): 1000 + count for seat in seats},
        ]
    assert set(metrics.METRICS) == set(Count)
    assert set(metrics.STAGES) == set(Stage)


def test_names_and_labels_are_only_those_allowed(shared):
    families = page(shared, {"ingress": Cost(1.5, 3 << 20, 1 << 20)})
    for name, (kind, samples) in families.items():
        assert name.startswith("tickpath_")
        assert (kind == "counter") == name.endswith("_total")
        assert samples, name
        assert {label for _, labels in samples for label, _ in labels} <= ALLOWED


def test_states_are_one_for_the_state_that_is(shared):
    families = page(shared)
    assert value(families, "tickpath_health", status="healthy") == 1
    assert value(families, "tickpath_health", status="degraded") == 0
    assert value(families, "tickpath_bus_up", bus="nats") == 1
    assert value(families, "tickpath_process_state", process="worker-0", status="ready") == 1
    assert value(families, "tickpath_process_state", process="worker-0", status="spent") == 0
    assert value(families, "tickpath_breaker_state", model="basic_lstm", status="closed") == 1


def test_versions_of_a_model_are_summed_and_the_vote_is_no_model(shared):
    engines.add_version(shared, 4, "basic_lstm", "1.1")
    row = shared.children[worker_seat(0).row]
    row["successes"][[0, 2, 4]] = 5, 100, 7
    families = page(shared)
    assert value(families, "tickpath_model_successes_total", process="worker-0", model="basic_lstm") == 12
    models = {dict(labels)["model"] for _, labels in families["tickpath_model_successes_total"][1]}
    assert models == {"basic_lstm", "xgboost_direction"}


def test_histogram_buckets_are_cumulative_and_end_at_the_count(shared):
    seed = np.random.default_rng().integers(1 << 32)
    print(f"seed {seed}")
    durations_ns = np.exp(np.random.default_rng(seed).uniform(np.log(100), np.log(60e9), 5000)).astype(np.int64)
    histogram = Histogram(shared.histograms[EGRESS.row, Stage.ENGINE : Stage.ENGINE + 1])
    for each in durations_ns:
        histogram.record(int(each))
    name, labels = "tickpath_stage_duration_seconds", (("process", "egress"), ("stage", "engine"))
    samples = page(shared)[name][1]
    buckets = {
        float(found[-1][1]): count
        for (sample, found), count in samples.items()
        if sample == f"{name}_bucket" and found[:2] == labels
    }
    assert list(buckets) == [*exposition.BOUNDS_S, np.inf]
    counts = list(buckets.values())
    assert counts == sorted(counts)
    assert buckets[np.inf] == samples[f"{name}_count", labels] == 5000
    assert samples[f"{name}_sum", labels] == pytest.approx(durations_ns.sum() / 1e9)
    for bound, count in list(buckets.items())[:-1]:  # a bucket of the arena is 1/64 wide at most
        assert (durations_ns <= bound * 1e9 * 63 / 64).sum() <= count <= (durations_ns <= bound * 1e9).sum()


def test_queues_are_what_stands_between_head_and_tail(shared):
    for ring in shared.requests:
        first = ring.claim(3)
        ring.publish(first + 3)
    shared.requests[0].release(1)
    families = page(shared)
    assert value(families, "tickpath_requests_slots") == 5
    assert value(families, "tickpath_answers_slots") == 0


def test_a_scrape_changes_no_byte_of_the_arena(shared):
    regions = (
        "supervisor",
        "versions",
        "children",
        "bells",
        "histograms",
        "ingress",
        "requests.0",
        "answers.0",
        "inputs",
    )
    before = [bytes(shared.arena.memory(name)) for name in regions]
    page(shared)
    assert [bytes(shared.arena.memory(name)) for name in regions] == before


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (3.0, "3"), (2**64 - 1, "18446744073709551615"), (1e-5, "1e-05"), (True, "1")]
)
def test_numbers_read_back_as_themselves(number, text):
    assert exposition.number(number) == text


def test_label_values_cannot_break_out():
    assert list(exposition.family("tickpath_x", "gauge", "X.", [({"model": 'a"b\\c\nd'}, 1)])) == [
        "# HELP tickpath_x X.",
        "# TYPE tickpath_x gauge",
        'tickpath_x{model="a\\"b\\\\c\\nd"} 1',
    ]


def test_gpus_are_told_where_workers_are_to_use_them(shared):
    assert not any("gpu" in name for name in page(shared))
    shared.children[worker_seat(0).row]["gpu"], shared.children[worker_seat(1).row]["gpu"] = Gpu.IN_USE, Gpu.AWAY
    families = page(shared, gpu_memory=[Memory(0, 3 << 30, 80 << 30)])
    assert value(families, "tickpath_gpu_away", process="worker-0") == 0
    assert value(families, "tickpath_gpu_away", process="worker-1") == 1
    assert value(families, "tickpath_gpu_memory_used_bytes", gpu="0") == 3 << 30
    assert value(families, "tickpath_gpu_memory_total_bytes", gpu="0") == 80 << 30

"""Each benchmark in small: real processes, real engines, and a result that programs can read."""

import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from bench.goals import GOALS
from bench.load import CROWDS, MINUTE_NS, Crowd
from bench.overload import recovery_ns
from bench.steadiness import WINDOW_NS, judge

SEED = "5"


def ran(name, folder, *words):
    """(what it said, its result)."""
    command = [sys.executable, "-m", f"bench.{name}", "--seed", SEED, "--results", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    result = folder / f"{name}.json"
    assert result.exists(), done.stderr
    found = json.loads(result.read_text())
    assert found["seed"] == int(SEED)
    assert found["host"]["cores"] >= 1
    assert f"seed {SEED}" in done.stdout
    assert {goal.figure for goal in GOALS if goal.bench == name} <= set(found.get("figures", ()))
    return done, found


def test_how_steady_the_host_is_is_told_of_each_processor(tmp_path):
    command = [sys.executable, "-m", "bench.steadiness", "--seconds", "0.5", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "steadiness.json").read_text())["processors"]
    assert set(found) == {str(each) for each in os.sched_getaffinity(0)}
    assert all(0.0 <= each["slow_share"] <= 1.0 and each["worst"] > 0.0 for each in found.values())


def test_slow_windows_are_counted_by_spells():
    took = [10] * 10 + [25] * 2 + [10] * 10 + [21, 50, 21] + [10] * 10
    begins = [number * WINDOW_NS for number in range(len(took))]  # short passes, one at the begin of each window
    found = judge(begins, took)
    assert (found.slow_spells, found.longest_ns, found.worst) == (2, 3 * WINDOW_NS, 5.0)
    assert found.slow_share == 5 / len(took)


def test_a_pass_that_stalls_for_many_windows_makes_all_of_them_slow():
    took = [WINDOW_NS] * 20 + [10 * WINDOW_NS] + [WINDOW_NS] * 20
    begins = [sum(took[:number]) for number in range(len(took))]
    found = judge(begins, took)
    assert (found.slow_spells, found.longest_ns, found.slow_share) == (1, 10 * WINDOW_NS, 10 / 50)


def test_hops_of_every_way_arrive(tmp_path):
    done, found = ran("ring", tmp_path, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert {way["rounds"][0]["count"] for way in found["ways"].values()} == {5_000}
    assert found["figures"]["hop_p50"]["measured"] > 0


def test_a_warm_worker_answers_everything_with_every_model(tmp_path):
    done, found = ran("worker", tmp_path, "--rounds", "3")
    assert done.returncode == 0, done.stderr
    assert sum(found["statuses"].values()) == 3 * 30 * 2 * (1 + 10)
    assert all(figure["measured"] > 0 and figure["baseline"] > 0 for figure in found["figures"].values())


def test_capacity_and_then_an_overload_of_it(tmp_path):
    words = ("--rounds", "1", "--trial", "1", "--limit", "5", "--p99", "30000")
    done, found = ran("capacity", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert set(found["cases"]) == {"steady", "minutes", "plain"}
    trial = found["cases"]["steady"][0][0]
    assert {"ingress", "egress", "worker-0", "nats-server", "engine-generator"} <= set(trial["cores"])
    closed = found["cases"]["minutes"][0][0]["found"]
    assert closed["minutes_closed"] == 10 * len(closed["latencies_ns"])

    done, found = ran("overload", tmp_path, "--rounds", "1", "--seconds", "1", "--rate", "400")
    (engine,) = found["rounds_of"]["engine"]
    assert "no answer, messages" not in engine["answers"]
    assert sum(count for text, count in engine["answers"].items() if text.endswith("vectors")) > 0
    assert all(memory > 0 for memory in engine["memory_bytes"])


def test_pauses_are_the_same_for_all(tmp_path):
    _, found = ran(
        "pause", tmp_path, "--rounds", "1", "--short", "0.3", "--messages", "6", "--long", "1", "--long-messages", "2"
    )
    assert set(found["rounds_of"]) == {"short", "long"}
    for contender in found["rounds_of"]["short"].values():
        dues = contender[0]["due_ns"]
        assert {later - due for due, later in pairwise(dues)} == {300_000_000}
    assert found["figures"]["short_p50"]["baseline"] > 0


def test_the_local_bus_is_measured_beside_an_echo_of_its_own(tmp_path):
    _, found = ran("local", tmp_path, "--seconds", "2")
    for load in found["loads"]:
        for name in ("echo", "echo-again"):
            assert load["contenders"][name]["problems"] == {}
        assert "no answer" not in load["contenders"]["engine"]["problems"]


def test_scaling_has_its_points_and_a_plot(tmp_path):
    done, found = ran("scaling", tmp_path, "--rounds", "1", "--part", "0.5", "--of", "vectors")
    assert done.returncode == 0, done.stderr
    assert [(each["x"], each["contender"]) for each in found["points"]] == [
        (vectors, who) for vectors in (1, 4, 16, 64) for who in ("engine", "plain-remembering")
    ]
    assert (tmp_path / "scaling-vectors.svg").read_text().startswith("<svg ")


def test_a_crowd_takes_turns_and_closes_a_minute_with_each_vector_where_it_is_to():
    crowd = Crowd(CROWDS[1], "acme", "feed", "token", 1)
    crowd.use(0, 2)
    planned = [crowd.plan(n, 1_700_000_000 * 10**9 + n * MINUTE_NS // 600) for n in range(6)]
    assert [each.name.split("/")[1] for each in planned] == ["crowd-minutes-0", "crowd-minutes-1"] * 3
    assert [each.name.split("/")[3] for each in planned] == ["1", "1", "2", "2", "3", "3"]
    assert crowd.minutes_closed == 40  # ten vectors a message, and a stream's first has none before it


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([5] * 20, 0),
        ([90] * 3 + [5] * 17, 300_000_000),
        ([90] * 20, 1_900_000_000),
    ],
)
def test_recovery_is_when_latency_is_normal_again(after, expected):
    tenth = 100_000_000
    due = [n * tenth for n in range(10 + len(after))]
    found = recovery_ns(due, [5] * 10 + after, 10 * tenth, 10 * tenth)
    assert found == (None if after == [90] * 20 else expected)


def test_a_soak_knows_no_pause_and_draws_its_plots(tmp_path):
    done, found = ran("soak", tmp_path, "--rounds", "4", "--block", "2", "--rate", "200")
    assert done.returncode == 0, done.stdout
    assert [(block["began_s"], block["problems"]) for block in found["blocks"]] == [(2 * n, {}) for n in range(4)]
    assert all(block["memory_bytes"]["worker-0"] > 0 for block in found["blocks"])
    assert "<svg" in (tmp_path / "soak-latency.svg").read_text()
    assert "<svg" in (tmp_path / "soak-memory.svg").read_text()

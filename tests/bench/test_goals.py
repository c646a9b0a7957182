"""The table of goals: what stands in a row, and what stands there where nothing was measured."""

import importlib.util
import json

import pytest

from bench import goals
from bench.__main__ import RUNS, main
from bench.goals import GOALS, MS, RATE, US, Goal, row

HOST = {"host": {"cores_allowed": 2}, "others_cores": 0.0}
FIRST = Goal("warm worker", "worker", "first", 100e3, US)


def test_a_row_has_goal_measured_baseline_ratio_and_cores():
    result = HOST | {"figures": {"first": {"measured": 80_000, "baseline": 400_000}}}
    assert row(FIRST, result) == ["warm worker", "<= 100 us", "80 us", "400 us", "0.20", "2"]


def test_a_goal_may_be_a_multiple_of_its_baseline_or_a_least():
    assert Goal("", "", "", 1.5, MS, of_baseline=True).words == "<= 1.5 x baseline"
    assert Goal("", "", "", 5_000, RATE, at_least=True).words == ">= 5,000 /s"


def test_other_work_on_the_host_is_told():
    result = HOST | {"others_cores": 0.5, "figures": {"first": {"measured": 80_000}}}
    assert row(FIRST, result) == ["warm worker", "<= 100 us", "80 us", "", "", "2 busy"]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "not run: python -m bench.worker"),
        (HOST, "not among its figures"),
        (HOST | {"figures": {"first": {"measured": None}}}, "too few observations"),
        (HOST | {"figures": {"first": {"measured": None, "why": "needs four cores"}}}, "needs four cores"),
    ],
)
def test_what_was_not_measured_has_no_figure_and_a_reason(result, why):
    assert row(FIRST, result) == ["warm worker", "<= 100 us", why, "", "", ""]


def test_the_table_is_of_the_results_in_the_folder(tmp_path, capsys):
    result = HOST | {"figures": {"hop_p50": {"measured": 250, "baseline": 5_000}}}
    (tmp_path / "ring.json").write_text(json.dumps(result))
    assert goals.main(["--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(GOALS)
    hop = next(line for line in lines if line.startswith("hop over a ring, p50"))
    assert hop.split() == [
        "hop",
        "over",
        "a",
        "ring,",
        "p50",
        "<=",
        "300",
        "ns",
        "250",
        "ns",
        "5,000",
        "ns",
        "0.05",
        "2",
    ]


def test_every_benchmark_that_is_run_is_a_module():
    assert all(importlib.util.find_spec(f"bench.{name}") for name, _, _ in RUNS)


def test_one_that_fails_does_not_hide_the_goals(tmp_path, capfd):
    assert main(["--only", "overload", "--results", str(tmp_path)]) == 1
    said = capfd.readouterr()
    assert said.err.splitlines() == [
        "bench.overload: expected a capacity, found none; run python -m bench.capacity before, or give --rate",
        "bench: overload gave no figures, or not all; the reasons stand above",
    ]
    assert "== goals" in said.out

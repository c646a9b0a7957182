"""The goals, and how far the last runs came: one row each.

Owns the table of goals, all in one place; run as `python -m bench.goals`, and by `python -m bench` after all others.
Reads `figures` of `bench/results/<name>.json`, writes nothing. What must stay true: a goal is stated and never
asserted; a row without a figure says why; measured and baseline are of one run, on the cores that stand beside them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import host
from bench.figures import table

RESULTS = Path(__file__).parent / "results"


class Unit(NamedTuple):
    name: str
    show: Callable[[float], str]


def _short(value: float) -> str:
    """
    >>> _short(0.01234), _short(7.891), _short(4321.0)
    ('0.0123', '7.89', '4,321')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


NS = Unit("ns", lambda value: f"{_short(value)} ns")
US = Unit("us", lambda value: f"{_short(value / 1e3)} us")
MS = Unit("ms", lambda value: f"{_short(value / 1e6)} ms")
S = Unit("s", lambda value: f"{_short(value / 1e9)} s")
RATE = Unit("1/s", lambda value: f"{_short(value)} /s")
COUNT = Unit("", lambda value: f"{value:,.0f}")


class Goal(NamedTuple):
    """`figure` of a benchmark's `figures`, times in ns. `of_baseline`: the limit is a multiple of the baseline."""

    what: str
    bench: str
    figure: str
    limit: float
    unit: Unit
    of_baseline: bool = False
    at_least: bool = False

    @property
    def words(self) -> str:
        bound = f"{self.limit:g} x baseline" if self.of_baseline else self.unit.show(self.limit)
        return f"{'>=' if self.at_least else '<='} {bound}"


def _wire(load: str, words: str, percent: str, limit: float) -> Goal:
    return Goal(f"wire to wire, {words}, {percent}", "wire", f"{load}_{percent}", limit, MS, of_baseline=True)


GOALS = (
    _wire("batches", "5 x 10 vectors/s", "p50", 1.5),
    _wire("batches", "5 x 10 vectors/s", "p99", 2.0),
    _wire("singles", "500 x 1 vector/s", "p50", 1.5),
    _wire("singles", "500 x 1 vector/s", "p99", 2.0),
    Goal("wire to wire over the local bus, p50", "local", "singles_p50", 150e3, US),
    Goal("wire to wire over the local bus, p99", "local", "singles_p99", 500e3, US),
    Goal("vectors/s with p99 < 15 ms, all on two cores", "capacity", "steady", 5_000, RATE, at_least=True),
    Goal("the same, the engine alone on two cores", "capacity-alone", "steady", 10_000, RATE, at_least=True),
    Goal("the same, each vector closes a minute", "capacity", "minutes", 5_000, RATE, at_least=True),
    Goal("warm worker, first vector, p50", "worker", "first", 100e3, US),
    Goal("warm worker, each further vector, p50", "worker", "further", 30e3, US),
    Goal("warm worker, core time a vector, all put off included", "worker", "core", 100e3, US),
    Goal("LSTM 50 steps x 100 features, 2 x 100, sliding, p99", "lstm", "last_step_p99", 3e3, US),
    Goal("hop over a ring, p50", "ring", "hop_p50", 300, NS),
    Goal("hop over a ring, p99", "ring", "hop_p99", 1e3, NS),
    Goal("100 trees of depth 5, p50", "trees", "predict_p50", 3e3, US),
    Goal("100 trees of depth 5, SHAP values, p50", "trees", "shap_p50", 15e3, US),
    Goal("after a pause of 1 s, p50", "pause", "short_p50", 1.5, MS, of_baseline=True),
    Goal("after a pause of 60 s, p50", "pause", "long_p50", 1.5, MS, of_baseline=True),
    Goal("after 10 s of twice the capacity, latency back to normal", "overload", "recovery", 1e9, S),
    Goal("vectors without an answer after it", "overload", "unanswered", 0, COUNT),
)  # fmt: skip


def row(goal: Goal, result: Mapping[str, Any] | None) -> list[str]:
    """What, goal, measured, baseline, ratio, cores."""
    if result is None:
        return [goal.what, goal.words, f"not run: python -m bench.{goal.bench.replace('-', ' --')}", "", "", ""]
    figure = result.get("figures", {}).get(goal.figure)
    if figure is None or figure["measured"] is None:
        why = figure.get("why", "too few observations") if figure else "not among its figures"
        return [goal.what, goal.words, why, "", "", ""]
    measured, baseline = float(figure["measured"]), figure.get("baseline")
    busy = " busy" if result["others_cores"] > host.QUIET_CORES else ""
    cores = f"{figure.get('cores', result['host']['cores_allowed'])}{busy}"
    if baseline is None:
        return [goal.what, goal.words, goal.unit.show(measured), "", "", cores]
    ratio = f"{measured / baseline:.2f}" if baseline else ""
    return [goal.what, goal.words, goal.unit.show(measured), goal.unit.show(baseline), ratio, cores]


def result_of(folder: Path, bench: str) -> dict[str, Any] | None:
    path = folder / f"{bench}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def as_text(folder: Path) -> str:
    results = {bench: result_of(folder, bench) for bench in dict.fromkeys(goal.bench for goal in GOALS)}
    rows = [row(goal, results[goal.bench]) for goal in GOALS]
    head = ["what", "goal", "measured", "baseline", "measured / baseline", "cores"]
    busy = "busy: other work was on the host meanwhile, so that row tells of that work too"
    return "\n".join([table(head, rows), *([busy] if any("busy" in each[-1] for each in rows) else [])])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.goals", description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    print(as_text(parser.parse_args(words).results))
    return 0


if __name__ == "__main__":
    sys.exit(main())

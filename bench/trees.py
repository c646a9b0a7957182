"""Boosted trees for one row: how long from the row to its margins, and to exact SHAP values.

Owns the rounds; run as `python -m bench.trees`, in one process on one core. Prints tables, writes
`bench/results/trees.json`. Models: 100 trees of depth 5 over 20 numbers, and the bundled direction models.

A round is some random rows, a tenth of their numbers missing. Each contender answers all of them at a stretch, row by
row, in shuffled order: the engine's own code, XGBoost with one thread, and ONNX Runtime with one thread over bound
buffers. What must stay true: a time is one call from Python, from the row to written outputs (XGBoost's `predict` gets
a DMatrix that is made already); answers are compared in the same run, to XGBoost's; nothing is left out, whatever else
the host did meanwhile.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import xgboost

from bench import host
from bench.figures import Ratio, Summary, ratio, summarise, table
from bench.lstm import microseconds, timed
from bench.onnx_file import trees_file
from engine.inference.models.trees import Parts, read_parts
from fastpath.trees import Trees

TREES, DEPTH, INPUTS = 100, 5, 20
ROWS = 50  # of a round
MISSING = 0.1
RESULTS = Path(__file__).parent / "results"
STORE = Path(__file__).parent.parent / "models"
GOALS_US = {"run": 3, "values": 15}
FIGURES = {"predict_p50": ("run", "xgboost"), "shap_p50": ("values", "xgboost_values")}  # measured, baseline
WHO = {  # and whose time is over it in the table
    "run": ("margins, in bound arrays", "xgboost_inplace"),
    "margins": ("margins", "xgboost_inplace"),
    "onnxruntime": ("margins, ONNX Runtime", ""),
    "xgboost_inplace": ("margins, XGBoost's inplace_predict", ""),
    "xgboost": ("margins, XGBoost's predict", ""),
    "values": ("SHAP values", "xgboost_values"),
    "edges": ("SHAP values without tables", "xgboost_values"),
    "xgboost_values": ("SHAP values, XGBoost's pred_contribs", ""),
    "call": ("a call that does nothing", ""),
}


class Case(NamedTuple):
    name: str
    booster: xgboost.Booster
    parts: Parts


class Found(NamedTuple):
    times: dict[str, list[list[int]]]  # ns, of each round
    errors: dict[str, float]  # largest differences
    different: int  # answers that were not the same again in another place, to the bit
    compared: int


def cases(seed: int) -> list[Case]:
    boosters = {f"{TREES} trees of depth {DEPTH}": made_up(seed)}
    for path in sorted(STORE.glob("*/*/model.ubj")):
        boosters[path.parts[-3]] = booster = xgboost.Booster()
        booster.load_model(path)
    found = []
    for name, booster in boosters.items():
        booster.feature_names = None
        booster.set_param({"nthread": 1})
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        found.append(Case(name, booster, read_parts(learner)))
    return found


def rows_of(rng: np.random.Generator, count: int, inputs: int) -> np.ndarray:
    rows = rng.normal(0, 1, (count, inputs)).astype("f4")
    rows[rng.random(rows.shape) < MISSING] = np.nan
    return rows


def made_up(seed: int) -> xgboost.Booster:
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, 4000, INPUTS)
    known = np.nan_to_num(rows)
    label = known @ rng.normal(size=INPUTS) + 2 * known[:, 0] * known[:, 1] + rng.normal(size=len(rows))
    fit = {"max_depth": DEPTH, "eta": 0.1, "min_child_weight": 0, "seed": seed % (1 << 31), "nthread": 1}
    return xgboost.train(fit, xgboost.DMatrix(rows, label=label), TREES)


class Contest:
    """One model in all ways, over rows that each way finds in arrays of its own kind."""

    def __init__(self, case: Case) -> None:
        self.booster, inputs, classes = case.booster, case.parts.inputs, len(case.parts.base)
        self.trees, self.edges = Trees(*case.parts), Trees(*case.parts, tables_bytes=0)
        self.k = classes - 1
        self.margins, self.values, self.by_edges = np.zeros(classes), *(np.zeros(inputs + 1, "f4") for _ in range(2))
        self.columns, self.chances = np.zeros((1, inputs), "f4"), np.zeros((1, classes))
        self.shap, self.never = np.zeros((1, inputs + 1), "f4"), np.zeros(1, "u1")
        self.trees.bind(
            self.columns, np.arange(inputs), 1.0, np.zeros(classes), np.zeros(1, "u1"), self.chances, self.shap
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        file = trees_file(*case.parts)
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.binding, self.oracle = self.session.io_binding(), np.zeros((1, classes), "f4")
        self.binding.bind_input("row", "cpu", 0, np.float32, self.columns.shape, self.columns.ctypes.data)
        self.binding.bind_output("margins", "cpu", 0, np.float32, self.oracle.shape, self.oracle.ctypes.data)

    def take(self, row: np.ndarray, data: xgboost.DMatrix) -> None:
        self.columns[0], self.row, self.data = row, row, data

    def ways(self) -> dict[str, Callable[[], Any]]:
        booster = self.booster
        return {
            "run": lambda: self.trees.run([0], self.never),
            "margins": lambda: self.trees.margins(self.row, self.margins),
            "onnxruntime": lambda: self.session.run_with_iobinding(self.binding),
            "xgboost_inplace": lambda: booster.inplace_predict(self.columns, predict_type="margin"),
            "xgboost": lambda: booster.predict(self.data, output_margin=True),
            "values": lambda: self.trees.explain(self.row, self.k, self.values),
            "edges": lambda: self.edges.explain(self.row, self.k, self.by_edges),
            "xgboost_values": lambda: booster.predict(self.data, pred_contribs=True),
            "call": lambda: self.trees.run([], self.never),
        }

    def errors(self) -> dict[str, float]:
        """After all ways have answered the row."""
        margins = self.booster.predict(self.data, output_margin=True).ravel()
        values = self.booster.predict(self.data, pred_contribs=True).reshape(len(self.margins), -1)[self.k]
        return {
            "margins": float(np.abs(self.margins - margins).max()),
            "onnxruntime": float(np.abs(self.oracle[0] - margins).max()),
            "values": float(np.abs(self.values - values).max()),
            "edges": float(np.abs(self.by_edges - values).max()),
            "sum": float(abs(self.values.sum(dtype="f8") - self.margins[self.k])),
        }

    def answer(self, row: np.ndarray, data: xgboost.DMatrix) -> bytes:
        self.take(row, data)
        self.trees.margins(self.row, self.margins)
        self.trees.explain(self.row, self.k, self.values)
        return self.margins.tobytes() + self.values.tobytes()


def measure(case: Case, seconds: float, rng: np.random.Generator) -> Found:
    """Rounds until the time is up, after a few that count for nothing."""
    contest = Contest(case)
    ways, every, errors, different, compared = contest.ways(), list[dict[str, list[int]]](), dict[str, float](), 0, 0
    until, warm = time.monotonic() + seconds, 3
    while warm > 0 or time.monotonic() < until or len(every) < 2:
        times: dict[str, list[int]] = {}
        rows = [(row, xgboost.DMatrix(row[None], nthread=1)) for row in rows_of(rng, ROWS, case.parts.inputs)]
        for name in rng.permutation(list(ways)).tolist():
            times[name] = []
            for row in rows:
                contest.take(*row)
                times[name].append(timed(ways[name]))
        first = [contest.answer(*row) for row in rows]
        for n in rng.permutation(ROWS).tolist():
            different, compared = different + (contest.answer(*rows[n]) != first[n]), compared + 1
        for name in ways:
            ways[name]()
        errors = {name: max(found, errors.get(name, 0.0)) for name, found in contest.errors().items()}
        if warm:
            warm, every = warm - 1, []
        every.append(times)
    return Found({name: [each[name] for each in every[1:]] for name in WHO}, errors, different, compared)


def ratio_of(found: Found, name: str) -> Ratio | None:
    over = WHO[name][1]
    return ratio(found.times[over], found.times[name]) if over else None


def summary(found: Found, name: str) -> Summary:
    return summarise([each for part in found.times[name] for each in part])


def as_text(case: Case, found: Found) -> str:
    rows = []
    for name, (words, _) in WHO.items():
        told, to = summary(found, name), ratio_of(found, name)
        cells = [microseconds(told.percentiles_ns[each]) for each in (50.0, 99.0, 99.9)]
        rows.append([words, str(told.messages), *cells, microseconds(told.max_ns), f"{to.middle:.0f}" if to else ""])
    size = f"{len(case.parts.trees)} trees, {len(case.parts.base)} classes, {case.parts.inputs} inputs"
    return "\n".join(
        [
            f"{case.name} ({size}); SHAP values of one class, XGBoost's of all of them",
            table(("us", "times", "p50", "p99", "p99.9", "max", "XGBoost / this"), rows),
            "largest difference to XGBoost: "
            + ", ".join(f"{name} {found.errors[name]:.1e}" for name in ("margins", "onnxruntime", "values", "edges"))
            + f"; values' sum to the margin {found.errors['sum']:.1e}",
            f"answers unlike those of another turn, to the bit: {found.different} of {found.compared}",
        ]
    )


def as_json(case: Case, found: Found) -> dict[str, Any]:
    ratios = {name: to._asdict() for name in WHO if (to := ratio_of(found, name))}
    return {"name": case.name, "ratios_of_medians": ratios, "times_ns": found.times} | {
        name: getattr(found, name) for name in ("errors", "different", "compared")
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trees", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of all models together (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="of trees and rows (default: drawn, and printed)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of trees.json")
    arguments = parser.parse_args(words)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    every, about = cases(seed), host.describe()
    how = "plain C" if Trees(*every[0].parts).portable else "AVX2"
    print(f"boosted trees, one row, one core: from the row to its margins and SHAP values, by {how}")
    print(f"seed {seed}, {arguments.seconds:g} s; XGBoost and ONNX Runtime with one thread, the same run")
    print(host.line(about))
    begun_s, busy_s, ours_s = time.monotonic(), host.busy_s(), host.used_s([os.getpid()])
    found = [measure(case, arguments.seconds / len(every), np.random.default_rng(seed)) for case in every]
    others = (host.busy_s() - busy_s - (host.used_s([os.getpid()]) - ours_s)) / (time.monotonic() - begun_s)
    print(f"cores busy with other work meanwhile: {max(0.0, others):.2f}")
    for case, each in zip(every, found, strict=True):
        print("\n" + as_text(case, each))
    print()
    p50 = {name: summary(found[0], name).percentiles_ns[50.0] for name in WHO}
    for name, most in GOALS_US.items():
        print(f"goal (at most {most} us): {every[0].name}, {WHO[name][0]}: {microseconds(p50[name])} us at p50")
    arguments.results.mkdir(parents=True, exist_ok=True)
    told = {"benchmark": "trees", "seed": seed, "seconds": arguments.seconds, "host": about, "others_cores": others}
    told["figures"] = {name: {"measured": p50[own], "baseline": p50[base]} for name, (own, base) in FIGURES.items()}
    whole = {**told, "cases": [as_json(case, each) for case, each in zip(every, found, strict=True)]}
    (arguments.results / "trees.json").write_text(json.dumps(whole) + "\n")
    return 1 if any(each.different or max(each.errors.values()) > 1e-5 for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())

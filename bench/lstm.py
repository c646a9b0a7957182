"""An LSTM over a sliding window: how long from the newest row to the answer, and what a closed minute costs.

Owns the rounds; run as `python -m bench.lstm`, in one process on one core. Prints tables, writes
`bench/results/lstm.json`. Networks: two layers of 100 units over 50 steps of 100 numbers, and the bundled LSTMs.

A round is a minute of one key: its first vector, which closes the minute before, then others, each by the lanes; what
they put off is worked off after each, as a worker does, and timed too. After it the same windows run whole, by the
engine's own code and by ONNX Runtime, one thread, over bound buffers. What must stay true: a time is one call from
Python, with its input checked and its outputs written; answers are compared in the same run, lanes with whole windows
to the bit; nothing is left out, whatever else the host did meanwhile.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from bench import host
from bench.figures import Ratio, Summary, microseconds, ratio, summarise, table, timed
from bench.onnx_file import lstm_file
from engine.inference.models.recurrent import read_weights
from fastpath.lanes import Lanes, block_bytes
from fastpath.lstm import Network

STEPS = 50
HORIZONS = 4
VECTORS = 30  # of a minute
WHOLE = 3  # of them by whole windows too, so that ONNX Runtime does not take all the time
RESULTS = Path(__file__).parent / "results"
STORE = Path(__file__).parent.parent / "models"
FOREVER = 1 << 60
WHO = {
    "lanes": "a vector within its minute",
    "first": "the first of a minute, its lane guessed right",
    "unguessed": "the first of a minute, its lane guessed wrong",
    "whole": "the whole window, own code",
    "onnxruntime": "the whole window, ONNX Runtime",
    "work": "after a vector within its minute, put off",
    "refill": "after the first of a minute, put off: all lanes by a row",
    "call": "a call that does nothing",
}


class Case(NamedTuple):
    name: str
    file: bytes
    network: Network


class Found(NamedTuple):
    times: dict[str, list[list[int]]]  # ns, of each round
    error: float  # largest difference to ONNX Runtime
    different: int  # answers of lanes that were not those of the whole window, to the bit
    compared: int


def cases(seed: int) -> list[Case]:
    found = [("2 x 100 units, 100 inputs", made_up(seed, 100, (100, 100)))]
    found += [(path.parts[-3], path.read_bytes()) for path in sorted(STORE.glob("*_lstm/*/model.onnx"))]
    return [Case(name, file, read_weights(file).network(STEPS)) for name, file in found]


def made_up(seed: int, inputs: int, units: Sequence[int]) -> bytes:
    rng = np.random.default_rng(seed)
    layers, wide = [], inputs
    for each in units:
        w, r = (rng.normal(0, 1 / np.sqrt(n), (4 * each, n)).astype("f4") for n in (wide, each))
        layers.append((w, r, rng.normal(0, 0.3, 4 * each).astype("f4")))
        wide = each
    heads = [(rng.normal(0, 0.3, (wide, HORIZONS)).astype("f4"), np.zeros(HORIZONS, "f4")) for _ in range(2)]
    return lstm_file(layers, heads, STEPS)


class Contest:
    """One network in all ways, over one key's window."""

    def __init__(self, case: Case) -> None:
        self.network = network = case.network
        self.lanes = Lanes(network, 1)
        self.lanes.reset(1)
        self.rows, self.closing = np.zeros((1, STEPS, network.inputs), "f4"), np.zeros((1, network.inputs), "f4")
        self.step = np.array([STEPS], "i8")
        self.move, self.rise = np.zeros((1, HORIZONS)), np.zeros((1, HORIZONS))
        self.whole = np.zeros(2 * HORIZONS, "f4")
        self.lanes.bind(
            self.rows, np.arange(network.inputs), self.closing, np.zeros(1, "i8"), np.zeros(1, "u4"), self.step,
            self.move, self.rise,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(case.file, options, providers=["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.oracle = [np.zeros((1, HORIZONS), "f4") for _ in range(2)]
        self.binding.bind_input("rows", "cpu", 0, np.float32, self.rows.shape, self.rows.ctypes.data)
        for name, out in zip(("move", "rise"), self.oracle, strict=True):
            self.binding.bind_output(name, "cpu", 0, np.float32, out.shape, out.ctypes.data)

    def ask(self, slots: list[int]) -> int:
        return timed(self.lanes.run, slots)

    def work(self) -> int:
        return timed(self.lanes.work, FOREVER)

    def run_whole(self) -> int:
        return timed(self.network.run, self.rows[0], self.whole)

    def run_onnxruntime(self) -> int:
        return timed(self.session.run_with_iobinding, self.binding)


def measure(case: Case, seconds: float, rng: np.random.Generator) -> Found:
    """Minutes until the time is up, after a few that count for nothing."""
    contest, closed = Contest(case), rng.normal(0, 1, (STEPS - 1, case.network.inputs)).astype("f4")
    every, error, different, compared = list[dict[str, list[int]]](), 0.0, 0, 0
    until, warm = time.monotonic() + seconds, 5
    while warm > 0 or time.monotonic() < until or len(every) < 2:
        times: dict[str, list[int]] = {name: [] for name in WHO}
        right = bool(rng.integers(2))
        for n in range(VECTORS):
            row = rng.normal(0, 1, case.network.inputs).astype("f4")
            contest.rows[0, :-1], contest.rows[0, -1], contest.closing[0] = closed, row, row
            if n == VECTORS - 1 and not right:
                contest.closing[0] += 1.0  # another one closes the minute
            times["call"].append(timed(contest.lanes.run, []))
            first = "first" if every and every[-1]["right"] else "unguessed"
            times["lanes" if n else first].append(contest.ask([0]))
            answer = np.concatenate([contest.move[0], contest.rise[0]]).astype("f4")
            if n % (VECTORS // WHOLE) == 0:
                times["whole"].append(contest.run_whole())
                times["onnxruntime"].append(contest.run_onnxruntime())
                different += answer.tobytes() != contest.whole.tobytes()
                compared += 1
                error = max(error, float(np.abs(answer - np.concatenate(contest.oracle, axis=None)).max()))
            times["work" if n else "refill"].append(contest.work())
        closed = np.concatenate([closed[1:], row[None]])
        contest.step += 1
        if warm:
            warm -= 1
            every = []
        every.append({**times, "right": [1] if right else []})
    every = every[1:] if len(every) > 2 else every
    return Found({name: [each[name] for each in every] for name in WHO}, error, different, compared)


def ratio_to(found: Found, name: str) -> Ratio:
    return ratio(found.times["onnxruntime"], found.times[name])


def summary(found: Found, name: str) -> Summary:
    return summarise([each for part in found.times[name] for each in part])


def core_ns(found: Found) -> float:
    """Of a vector, what it put off included: the mean over whole minutes."""
    spent = [sum(sum(part) for part in found.times[name]) for name in ("lanes", "first", "unguessed", "work", "refill")]
    return sum(spent) / (VECTORS * len(found.times["lanes"]))


def as_text(case: Case, found: Found) -> str:
    rows = []
    for name, words in WHO.items():
        if not any(found.times[name]):
            continue
        told = summary(found, name)
        share = f"{ratio_to(found, name).middle:.1f}" if name in ("lanes", "whole") else ""
        cells = [microseconds(told.percentiles_ns[each]) for each in (50.0, 99.0, 99.9)]
        rows.append([words, str(told.messages), *cells, microseconds(told.max_ns), share])
    refill = median(each for part in found.times["refill"] for each in part)
    return "\n".join(
        [
            table((f"{case.name}, us", "times", "p50", "p99", "p99.9", "max", "ONNX Runtime / this"), rows),
            f"a minute of {VECTORS} vectors, all that was put off included: {core_ns(found) / 1e3:.2f} us of a core a "
            f"vector, {1e9 / core_ns(found):,.0f} vectors/s; minutes alone: {1e9 / refill:,.0f} closed/s; "
            f"{block_bytes(case.network) / 1024:.0f} KiB a key",
            f"largest difference to ONNX Runtime {found.error:.1e}; answers unlike the whole window's, to the bit: "
            f"{found.different} of {found.compared}",
        ]
    )


def as_json(case: Case, found: Found) -> dict[str, Any]:
    return {
        "name": case.name,
        "portable": case.network.portable,
        "error": found.error,
        "different": found.different,
        "compared": found.compared,
        "core_ns": core_ns(found),
        "ratio_of_medians": ratio_to(found, "lanes")._asdict(),
        "times_ns": found.times,
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.lstm", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of all networks together (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="of weights and rows (default: drawn, and printed)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of lstm.json")
    arguments = parser.parse_args(words)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    every, about = cases(seed), host.describe()
    how = "portable C" if every[0].network.portable else "AVX2 and FMA"
    print(f"one LSTM, one key, one core, {STEPS} steps: from the newest row to the answer, by {how}")
    print(f"seed {seed}, {arguments.seconds:g} s; ONNX Runtime with one thread, whole windows, the same run")
    print(host.line(about))
    begun_s, busy_s, ours_s = time.monotonic(), host.busy_s(), host.used_s([os.getpid()])
    found = [measure(case, arguments.seconds / len(every), np.random.default_rng(seed)) for case in every]
    others = (host.busy_s() - busy_s - (host.used_s([os.getpid()]) - ours_s)) / (time.monotonic() - begun_s)
    print(f"cores busy with other work meanwhile: {max(0.0, others):.2f}")
    for case, each in zip(every, found, strict=True):
        print("\n" + as_text(case, each))
    p99 = summary(found[0], "lanes").percentiles_ns[99.0]
    print(f"\ngoal (at most 3 us at p99): {every[0].name}: {microseconds(p99)} us")
    arguments.results.mkdir(parents=True, exist_ok=True)
    base = summary(found[0], "onnxruntime").percentiles_ns[99.0]
    figures = {"last_step_p99": {"measured": p99, "baseline": base}}
    told = {"benchmark": "lstm", "seed": seed, "seconds": arguments.seconds, "host": about, "others_cores": others}
    told["figures"] = figures
    whole = {**told, "cases": [as_json(case, each) for case, each in zip(every, found, strict=True)]}
    (arguments.results / "lstm.json").write_text(json.dumps(whole) + "\n")
    return 1 if any(each.different or each.error > 1e-5 for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())

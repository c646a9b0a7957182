"""From which batch and which size of model on a GPU pays: the same graphs on it and on one core.

Owns the rounds; run as `python -m bench.gpu`, in one process, on a host with a GPU. Prints a table, writes
`bench/results/gpu.json`. Graphs: the bundled pattern models; LSTMs over 50 minutes of two layers, from small to large,
run whole. Both sides go through ONNX Runtime as the engine uses it: rows one by one on one core, one thread; on the GPU
one padded shape, replayed launches, pinned memory. What must stay true: a time is one call from Python with the rows in
the host's memory before it and the answers there after it; sides are interleaved; answers are compared in the same run.

The engine's own ways are left out: windows in flight (`bench.lstm`), trees (`bench.trees`) and remembered pictures.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from bench import rounds
from bench.figures import microseconds, summarise, table, timed
from bench.lstm import STEPS, made_up
from engine.gpus import are_there, probed
from engine.inference.models.cuda import ROWS, Device, DeviceGraph, one_thread, staging
from engine.inference.models.onnx_graph import with_rows

COUNTS = (1, 2, 4, 8, 16, ROWS)  # rows asked about at once
WIDTHS = ((16, (32, 32)), (16, (48, 48)), (100, (100, 100)), (100, (256, 256)), (256, (512, 512)))  # inputs, units
NAMES = ("image", "pattern", "rows", "move", "rise")  # of tensors
STORE = Path(__file__).parent.parent / "models"


class Case(NamedTuple):
    name: str
    one: bytes  # the graph of one row
    many: bytes  # the same, of ROWS


def cases(seed: int) -> list[Case]:
    found = []
    for model in ("simple_pattern", "cnn_patterns"):
        data = next((STORE / model).glob("*/model.onnx")).read_bytes()
        found.append(Case(model, data, bytes(with_rows(data, ROWS, NAMES))))
    for inputs, units in WIDTHS:
        data = made_up(seed, inputs, units)
        name = f"LSTM {' + '.join(map(str, units))}, {inputs} inputs"
        found.append(Case(name, data, bytes(with_rows(data, ROWS, NAMES))))
    return found


class Contest:
    """One graph on both sides, over the same rows."""

    def __init__(self, case: Case, device: Device, seed: int) -> None:
        self.session = onnxruntime.InferenceSession(case.one, one_thread(), providers=["CPUExecutionProvider"])
        (of,) = self.session.get_inputs()
        self.feed = staging((ROWS, *of.shape[1:]))
        self.feed[:] = np.random.default_rng(seed).normal(size=self.feed.shape)
        self.out = {each.name: staging((ROWS, *each.shape[1:])) for each in self.session.get_outputs()}
        self.bindings = [self._bound(of.name, row) for row in range(ROWS)]
        self.graph = DeviceGraph(case.many, device, of.name, self.feed, self.out)

    def _bound(self, name: str, row: int) -> onnxruntime.IOBinding:
        binding, feed = self.session.io_binding(), self.feed[row : row + 1]
        binding.bind_input(name, "cpu", 0, np.float32, feed.shape, feed.ctypes.data)
        for each, array in self.out.items():
            out = array[row : row + 1]
            binding.bind_output(each, "cpu", 0, np.float32, out.shape, out.ctypes.data)
        return binding

    def here(self, count: int) -> None:
        for binding in self.bindings[:count]:
            self.session.run_with_iobinding(binding)

    def there(self, count: int) -> None:
        self.graph.run(count)

    def difference(self) -> float:
        """The largest one between the sides."""
        answers = []
        for side in (self.here, self.there):
            for array in self.out.values():
                array.fill(np.nan)
            side(ROWS)
            answers.append(np.concatenate([array.ravel() for array in self.out.values()]))
        return float(np.abs(answers[0] - answers[1]).max())


def measure(contest: Contest, count_of_rounds: int) -> dict[str, dict[int, list[int]]]:
    """Nanoseconds by side and count of rows."""
    sides: dict[str, Callable[[int], None]] = {"cpu": contest.here, "gpu": contest.there}
    for side in sides.values():
        side(ROWS)
    times: dict[str, dict[int, list[int]]] = {name: {count: [] for count in COUNTS} for name in sides}
    for _ in range(count_of_rounds):
        for count in COUNTS:
            for name, side in sides.items():
                times[name][count].append(timed(side, count))
    return times


def told(times: list[int]) -> dict[str, int | None]:
    summary = summarise(times)
    return {
        "calls": summary.messages,
        "p50": summary.percentiles_ns[50.0],
        "p99": summary.percentiles_ns[99.0],
        "max": summary.max_ns,
    }


def pays_from(found: dict[str, Any]) -> str:
    """The fewest rows for which the GPU's median is the smaller one."""
    for count in COUNTS:
        if found["gpu"][count]["p50"] < found["cpu"][count]["p50"]:
            return f"{count} rows" if count > 1 else "1 row"
    return "never"


def main(words: Sequence[str] | None = None) -> int:
    arguments = rounds.asked("gpu", __doc__.split("\n")[0], 40, "each a call of each side and count of rows", words)
    found, why = probed() if are_there() else ([], "")
    if not found:
        print(f"bench.gpu: no GPU to measure: {why or 'there is none here'}", file=sys.stderr)
        return 1
    device, others = Device(found[0]), rounds.Others()
    results = {}
    for case in cases(arguments.seed):
        contest = Contest(case, device, arguments.seed)
        times = measure(contest, arguments.rounds)
        results[case.name] = {
            side: {count: told(each) for count, each in of_side.items()} for side, of_side in times.items()
        } | {"difference": contest.difference()}
    about = rounds.about(arguments, others.cores())
    print(rounds.heading("bench.gpu: ONNX graphs on a GPU and on one core, median µs of a call", about))
    rows = []
    for name, of_name in results.items():
        cells = [microseconds(of_name[side][n]["p50"]) for n in (1, 8, ROWS) for side in ("cpu", "gpu")]
        rows.append([name, *cells, pays_from(of_name), f"{of_name['difference']:.0e}"])
    head = ["graph", *(f"{n} on the {side}" for n in (1, 8, ROWS) for side in ("core", "GPU")), "pays from", "differ"]
    print(table(head, rows))
    rounds.write(arguments.results, {"benchmark": "gpu", "about": about, "graphs": results, "steps": STEPS})
    return 0


if __name__ == "__main__":
    sys.exit(main())

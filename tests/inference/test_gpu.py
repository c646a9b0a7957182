"""Models on a GPU: what is the same there, whatever the batch, and what happens when it is lost.

Tests that need a GPU say so and run where one is; the others put a graph in its place that fails.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engine.cli import checks_host
from engine.errors import CudaError
from engine.gpus import are_there, memory_reader, min_artefact_bytes, probed, usable
from engine.inference import batch as arrays
from engine.inference.batch import Batch, Output
from engine.inference.main import gpu_state
from engine.inference.models import lstm
from engine.inference.models import session as sessions
from engine.inference.models.classifier import ClassifierModel
from engine.inference.models.cnn import PatternModel
from engine.inference.models.cuda import ROWS, Device, is_captured
from engine.inference.models.lstm import PriceModel
from engine.inference.models.onnx_graph import Unfit, read_graph, with_rows
from engine.inference.proof import prove
from engine.registry.manifest import read_manifest
from engine.settings import Engine, Settings
from engine.shared import Gpu
from tests.inference.conftest import STORE, make_predictor
from tests.inference.market import walk
from tests.inference.test_schedulings import SCHEDULINGS, Worker, check_schedulings

SLOTS = ROWS + 8  # more than one run
NO_IMPORTANCE = np.zeros(1, "u1")
CUDA = Settings(engine=Engine(device="cuda"))
CRASHING = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry crash() {
    .reg .u64 %where;
    .reg .u32 %what;
    mov.u64 %where, 16;
    mov.u32 %what, 1;
    st.global.u32 [%where], %what;
    ret;
}
"""
LOSING = """
import ctypes
import sys
from tests.inference import test_gpu as here

kind = here.PatternModel, here.folder("cnn_patterns")
device = here.Device(here.GPUS[0])
model = here.opened(kind, device)
before = here.answers(model, *here.made_up())
driver, module, function = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_void_p()
assert driver.cuModuleLoadData(ctypes.byref(module), here.CRASHING) == 0
assert driver.cuModuleGetFunction(ctypes.byref(function), module, b"crash") == 0
assert driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None) == 0
driver.cuCtxSynchronize()
after = here.answers(model, *here.made_up())
assert device.lost, "the GPU is still used"
assert after.tobytes() == here.answers(here.opened(kind, None), *here.made_up()).tobytes()
assert abs(after - before)[:, :7].max() < 1e-5
print(device.lost)
"""
GPUS = probed()[0] if are_there() else []
needs_gpu = pytest.mark.skipif(not GPUS, reason="no GPU here that models can run on")


class StandIn(Device):
    """Where there is no GPU: remembers what was told of it."""

    def __init__(self, works: bool) -> None:
        self.works = lambda: works
        self.number, self.lost, self.min_artefact_bytes, self.wanted, self.placed = 0, "", 0, 0, 0
        self.told: list[str] = []
        self._tell = self.told.append


class Graph:
    """In place of one on a GPU."""

    def __init__(self, data, device, name, feed, outs) -> None:
        self.outs = outs

    def run(self, rows: int) -> None:
        for array in self.outs.values():
            array[:rows] = 0.5


class Gone(Graph):
    def run(self, rows: int) -> None:
        raise CudaError("cudaStreamSynchronize: the launch failed")


def folder(model_id: str) -> Path:
    (found,) = (STORE / model_id).glob("*")
    return found


def whole_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Price models as if the lanes did not fit their graphs."""

    def unfit(self):
        raise Unfit("the test says so")

    monkeypatch.setattr(lstm.PriceModel, "_network", unfit)


def made_up() -> tuple[Batch, Output]:
    batch, output = arrays.new_batch(SLOTS), arrays.Output(SLOTS)
    rng = np.random.default_rng(81)
    batch.path[:] = [walk(rng, arrays.IMAGE_MINUTES) for _ in range(SLOTS)]
    batch.rows[:] = rng.normal(size=batch.rows.shape)
    return batch, output


def answers(model: PatternModel | PriceModel | ClassifierModel, batch: Batch, output: Output) -> np.ndarray:
    for array in (output.pattern, output.move, output.rise):
        array[:] = np.nan
    model.run(list(range(SLOTS)), batch, output, NO_IMPORTANCE)
    return np.concatenate([output.pattern, output.move, output.rise], axis=1)


@pytest.fixture(params=["simple_pattern", "cnn_patterns", "basic_lstm", "advanced_lstm"])
def kind(request, monkeypatch) -> Iterator[tuple[type, Path]]:
    whole_windows(monkeypatch)
    return PriceModel if "lstm" in request.param else PatternModel, folder(request.param)


def opened(kind: tuple[type, Path], device: Device | None):
    model = kind[0](read_manifest(kind[1]), device)
    model.open()
    return model


@pytest.mark.parametrize("when", ["as it is placed", "as it runs"])
def test_the_processor_answers_the_same_bytes_where_the_gpu_is_lost(kind, monkeypatch, when) -> None:
    expected = answers(opened(kind, None), *made_up())
    device = StandIn(works=False)
    monkeypatch.setattr(sessions, "DeviceGraph", Gone)
    if when == "as it is placed":
        model = opened(kind, device)
    else:
        device.lost = "later"  # nothing is placed yet
        model = opened(kind, device)
        device.lost, model._session._graph = "", Gone(b"", device, "", None, {})
        device.wanted = 1
    for _ in range(2):
        assert answers(model, *made_up()).tobytes() == expected.tobytes()
    assert len(device.told) == 1
    assert "the launch failed" in device.told[0]
    assert device.lost
    assert gpu_state(device) == Gpu.AWAY


def test_one_graph_that_fails_leaves_the_gpu_to_the_others(kind) -> None:
    device = StandIn(works=True)
    device.lost = "later"
    model = opened(kind, device)
    device.lost, model._session._graph = "", Gone(b"", device, "", None, {})
    for _ in range(2):
        assert answers(model, *made_up()).tobytes() == answers(opened(kind, None), *made_up()).tobytes()
    assert len(device.told) == 1
    assert device.lost == ""


def test_a_graph_that_answers_otherwise_on_the_gpu_runs_on_the_processor(kind, monkeypatch) -> None:
    device = StandIn(works=True)
    monkeypatch.setattr(sessions, "DeviceGraph", Graph)
    model = opened(kind, device)
    assert (device.lost, device.wanted, device.placed) == ("", 1, 0)
    assert answers(model, *made_up()).tobytes() == answers(opened(kind, None), *made_up()).tobytes()


def test_where_nobody_asked_for_a_gpu_small_graphs_stay_on_the_processor(kind, monkeypatch) -> None:
    device = StandIn(works=False)
    device.min_artefact_bytes = min_artefact_bytes(Settings())
    monkeypatch.setattr(sessions, "DeviceGraph", Gone)
    opened(kind, device)
    assert (device.lost, device.wanted) == ("", 0)
    assert gpu_state(device) == Gpu.NONE
    assert min_artefact_bytes(CUDA) == 0


class Near(Graph):
    """Close enough to be placed, and too far for golden rows."""

    def __init__(self, data, device, name, feed, outs) -> None:
        super().__init__(data, device, name, feed, outs)
        self.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        self.name, self.feed = name, feed

    def run(self, rows: int) -> None:
        for name, array in self.outs.items():
            array[:] = self.session.run([name], {self.name: self.feed})[0] + 5e-5


def test_a_graph_that_misses_its_golden_rows_on_the_gpu_answers_on_the_processor(monkeypatch) -> None:
    device = StandIn(works=True)
    monkeypatch.setattr(sessions, "DeviceGraph", Near)
    predictor = make_predictor(STORE, device)
    patterns = [model for model in predictor.models.values() if isinstance(model, PatternModel)]
    assert [model._session._graph for model in patterns] == [None, None]
    assert (device.wanted, device.placed, device.told) == (2, 0, [])


def test_a_graph_of_one_row_is_made_one_of_many(kind) -> None:
    data = read_manifest(kind[1]).path.read_bytes()
    one, many = (
        onnxruntime.InferenceSession(bytes(each), providers=["CPUExecutionProvider"])
        for each in (data, with_rows(data, ROWS, ("image", "pattern", "rows", "move", "rise")))
    )
    (feed,) = many.get_inputs()
    rows = np.random.default_rng(83).normal(size=feed.shape).astype("f4")
    assert len(rows) == ROWS
    for name, found in zip((each.name for each in many.get_outputs()), many.run(None, {feed.name: rows}), strict=True):
        alone = [one.run([name], {feed.name: rows[n : n + 1]})[0][0] for n in range(ROWS)]
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)


def test_only_graphs_of_kinds_that_were_tried_are_captured() -> None:
    for name in ("simple_pattern", "cnn_patterns", "basic_lstm", "advanced_lstm"):
        graph = read_graph((folder(name) / "model.onnx").read_bytes())
        assert is_captured(graph)
        first = graph.nodes[0]
        assert not is_captured(graph._replace(nodes=[first._replace(op="Einsum"), *graph.nodes[1:]]))
        assert not is_captured(graph._replace(nodes=[first._replace(attributes={"group": 2}), *graph.nodes[1:]]))


def test_a_gpu_is_asked_for_where_it_is_wanted_alone() -> None:
    assert usable(Settings(engine=Engine(device="cpu"))) == ([], "")
    assert usable(Settings()) == ([], ""), "the bundled graphs are small"
    if not are_there():
        assert usable(CUDA) == ([], "there is no GPU here")
        (finding,) = checks_host.gpus(CUDA)
        assert str(finding).startswith("FAIL  gpus — not there for models: there is no GPU here; ")
        assert list(checks_host.gpus(Settings())) == []
        assert memory_reader()() == []


@needs_gpu
def test_a_gpu_answers_as_the_processor_does_and_to_the_golden_rows(kind) -> None:
    device = Device(GPUS[0])
    model = opened(kind, device)
    assert model._session._graph is not None
    np.testing.assert_allclose(answers(model, *made_up()), answers(opened(kind, None), *made_up()), rtol=0, atol=1e-5)
    prove(model)
    assert device.lost == ""


@needs_gpu
def test_the_bits_of_a_row_on_a_gpu_do_not_depend_on_the_rows_beside_it(kind) -> None:
    session = opened(kind, Device(GPUS[0]))._session
    rng = np.random.default_rng(82)
    rows = rng.normal(size=session.feed.shape).astype("f4")

    def run(which: list[int]) -> np.ndarray:
        session.feed[: len(which)] = rows[which]
        session.run(len(which))
        return np.concatenate([array[: len(which)] for array in session.out.values()], axis=1)

    expected = np.concatenate([run([n]) for n in range(ROWS)])
    for _ in range(50):
        which = rng.permutation(ROWS)[: rng.integers(1, ROWS + 1)].tolist()
        assert run(which).tobytes() == expected[which].tobytes()
    rows[0], rows[1], rows[2] = np.nan, np.inf, 3e38
    assert run(list(range(ROWS)))[3:].tobytes() == expected[3:].tobytes()


@needs_gpu
def test_answers_with_a_gpu_are_the_same_bytes_however_slots_are_scheduled() -> None:
    devices = [Device(GPUS[0]) for _ in range(3)]
    predictors = [make_predictor(STORE, device) for device in devices]
    assert all(device.placed == device.wanted > 0 for device in devices)
    check_schedulings(predictors[0], [Worker(each) for each in predictors[1:]], SCHEDULINGS)


@needs_gpu
def test_a_gpu_s_memory_is_told() -> None:
    first, *_ = memory_reader()()
    assert 0 < first.used_bytes < first.total_bytes


@needs_gpu
def test_the_processor_goes_on_in_a_process_whose_gpu_a_kernel_has_crashed() -> None:
    done = subprocess.run([sys.executable, "-c", LOSING], cwd=STORE.parent, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert "cnn_patterns 1.8: " in done.stdout

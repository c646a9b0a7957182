"""One ONNX graph over buffers that already exist, a row at a time, or on a GPU some rows at once.

Owns an ONNX Runtime session and its buffers; run by workers. What must stay true: a row's result does
not depend on other rows, so on a processor rows run one by one, on one thread, in the caller's own; a graph on a GPU
answers like the same one on the processor, and the processor goes on with it where the GPU is lost.
"""

import logging
import re
from collections.abc import Iterator, Mapping

import numpy as np
import onnxruntime

from engine.errors import ModelError
from engine.inference.models.cuda import ROWS, Device, DeviceGraph, one_thread, staging
from engine.inference.models.onnx_bytes import check_onnx
from engine.inference.models.onnx_graph import Unfit, with_rows
from engine.registry.manifest import Manifest, read_artefact

log = logging.getLogger(__name__)

DIFFERENCE_MAX = 1e-4  # of the GPU's answers to the processor's: float32 sums in another order, through some layers


def _refused(told: str) -> str:
    """ONNX Runtime's words as ours. Too new a file is what the newest exporters write by themselves."""
    runtime = f"ONNX Runtime {onnxruntime.__version__}"
    if found := re.search(r"IR version: (\d+), max supported IR version: (\d+)", told):
        version, most = found.groups()
        return (
            f"expected IR version {most} at most, which {runtime} reads, found {version}; "
            f"set model.ir_version = {most} before saving"
        )
    if found := re.search(
        r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", told, re.S
    ):
        version, domain, most = found.groups()
        return f"expected opset {most} of {domain} at most, which {runtime} reads, found {version}; export it with that"
    return f"expected a model that {runtime} accepts, found: {told}; export it again"


class Session:
    """`feed` is written, `run` called, `out` read.

    feed, outs: names and shapes, of one row. device: the GPU that `place` may use; without, `rows` is 1.
    """

    def __init__(
        self,
        manifest: Manifest,
        feed: tuple[str, tuple[int, ...]],
        outs: Mapping[str, tuple[int, ...]],
        device: Device | None = None,
    ) -> None:
        self.manifest = manifest
        self.rows = ROWS if device else 1
        self._shapes = {feed[0]: feed[1], **outs}
        self._name, self._device = feed[0], device
        self._graph: DeviceGraph | None = None
        self.feed = staging((self.rows, *feed[1][1:]))
        self.out = {name: staging((self.rows, *shape[1:])) for name, shape in outs.items()}

    def open(self) -> None:
        path = self.manifest.path
        data = read_artefact(self.manifest)
        check_onnx(data, path)
        try:
            self._session = onnxruntime.InferenceSession(data, one_thread(), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{path}: {_refused(str(error))}") from error
        for each in (*self._session.get_inputs(), *self._session.get_outputs()):
            self._check(each)
        found = {each.name for each in (*self._session.get_inputs(), *self._session.get_outputs())}
        unneeded = {each.name for each in self._session.get_outputs()} - set(self.out)  # such as a classifier's label
        if found - unneeded != set(self._shapes):
            raise ModelError(
                f"{path}: expected the tensors {sorted(self._shapes)}, found {sorted(found)}; export with these names"
            )
        self._bindings = [self._bound(row) for row in range(self.rows)]

    def _check(self, each: onnxruntime.NodeArg) -> None:
        shape = self._shapes.get(each.name)
        if shape is None:
            return
        # Exporters leave the number of rows open; a processor takes one at a time.
        rows, *others = each.shape or (0,)
        if (
            each.type != "tensor(float)"
            or tuple(others) != shape[1:]
            or not (rows == 1 or isinstance(rows, str | None))
        ):
            raise ModelError(
                f"{self.manifest.path}: {each.name}: expected tensor(float) of shape {shape}, "
                f"found {each.type} of {tuple(each.shape)}; export it so"
            )

    def _bound(self, row: int) -> onnxruntime.IOBinding:
        binding = self._session.io_binding()
        feed = self.feed[row : row + 1]
        binding.bind_input(self._name, "cpu", 0, np.float32, feed.shape, feed.ctypes.data)
        for each, array in self.out.items():
            out = array[row : row + 1]
            binding.bind_output(each, "cpu", 0, np.float32, out.shape, out.ctypes.data)
        return binding

    def place(self) -> None:
        """On the GPU, where there is one and the graph fits it: seen to answer there as here."""
        device = self._device
        if device is None or device.lost or self.manifest.path.stat().st_size < device.min_artefact_bytes:
            return
        device.wanted += 1
        try:
            data = bytes(with_rows(read_artefact(self.manifest), ROWS, self._shapes))
            graph = DeviceGraph(data, device, self._name, self.feed, self.out)
            self._differ(graph)
        except Exception as error:  # ONNX Runtime's, CUDA's, or that the graph is not fit
            log.warning("model %s runs on the processor: %s", self.manifest.name, error)
            if not device.works():
                device.failed(str(error))
            return
        self._graph = graph
        device.placed += 1

    def _differ(self, graph: DeviceGraph) -> None:
        """Unfit where some made-up rows are answered otherwise than by the processor."""
        self.feed[:] = np.random.default_rng(0).normal(size=self.feed.shape)
        graph.run(self.rows)
        there = {name: array.copy() for name, array in self.out.items()}
        self.run(self.rows)
        for name, here in self.out.items():
            if not np.allclose(there[name], here, rtol=DIFFERENCE_MAX, atol=DIFFERENCE_MAX, equal_nan=True):
                worst = np.nanmax(np.abs(there[name] - here))
                raise Unfit(f"{name}: its answers on the GPU lie {worst:.1e} from the processor's")

    def close(self) -> None:
        """Gives its memory back; it is not run again."""
        del self._bindings, self._session

    def portions(self, slots: list[int]) -> Iterator[list[int]]:
        """As many at a time as there are rows."""
        return (slots[first : first + self.rows] for first in range(0, len(slots), self.rows))

    def run(self, rows: int = 1) -> None:
        """The first `rows` of `feed`. On the processor, an output that the model did not write is NaN."""
        for array in self.out.values():
            array.fill(np.nan)
        if self._graph is not None and self._ran_there(self._graph, rows):
            return
        for row in range(rows):
            self._session.run_with_iobinding(self._bindings[row])

    def _ran_there(self, graph: DeviceGraph, rows: int) -> bool:
        """Whether the GPU answered; where it failed once, this graph is not run there again."""
        assert self._device is not None
        try:
            if not self._device.lost:
                graph.run(rows)
                return True
        except Exception as error:
            self._device.failed(f"{self.manifest.name}: {error}")
        self._graph = None
        return False

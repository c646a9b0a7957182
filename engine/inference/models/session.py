"""One ONNX graph over buffers that already exist, a row at a time.

Owns an ONNX Runtime session and its buffers; run by workers. What must stay true: a row's result does
not depend on other rows, so rows run one by one, on one thread, in the caller's own.
"""

import os
import re
from collections.abc import Mapping

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import: nothing of ours is told to anybody
import onnxruntime

from engine.errors import ModelError
from engine.inference.models.onnx_bytes import check_onnx
from engine.registry.manifest import Manifest, read_artefact


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
    """`feed` is written, `run` called, `out` read."""

    def __init__(
        self, manifest: Manifest, feed: tuple[str, tuple[int, ...]], outs: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.manifest = manifest
        self._shapes = {feed[0]: feed[1], **outs}
        self.feed = np.zeros(feed[1], "f4")
        self.out = {name: np.zeros(shape, "f4") for name, shape in outs.items()}

    def open(self) -> None:
        path = self.manifest.path
        data = read_artefact(self.manifest)
        check_onnx(data, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = (
            4  # what it says of errors is in their exceptions, and told once, twice, four times ...
        )
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
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
        self._bind()

    def _check(self, each: onnxruntime.NodeArg) -> None:
        shape = self._shapes.get(each.name)
        if shape is None:
            return
        # Exporters leave the number of rows open; it is always one here.
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

    def _bind(self) -> None:
        self._binding = self._session.io_binding()
        name = self._session.get_inputs()[0].name
        self._binding.bind_input(name, "cpu", 0, np.float32, self.feed.shape, self.feed.ctypes.data)
        for each, array in self.out.items():
            self._binding.bind_output(each, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def close(self) -> None:
        """Gives its memory back; it is not run again."""
        del self._binding, self._session

    def run(self) -> None:
        """An output that the model did not write stays NaN, and so is seen."""
        for array in self.out.values():
            array.fill(np.nan)
        self._session.run_with_iobinding(self._binding)

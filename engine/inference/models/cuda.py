"""One ONNX graph on a GPU: ONNX Runtime's CUDA provider between two pieces of pinned memory.

Owns the way there and back: a stream, the copies, and the graph's one shape. Run by workers whose engine has a GPU
to use, and as `python -m engine.inference.models.cuda` to find out how many there are. What must stay true: a row's
result does not depend on the rows beside it, so every run has the same padded shape, and algorithms are those of the
shape, never those that a timing liked; sums are float32 all the way (no TF32). Errors of CUDA are `CudaError`s here;
who calls goes on without the GPU.

Copies and stream are CUDA's own, because ONNX Runtime's binding copies an input when it is bound, not when it runs.
"""

import contextlib
import ctypes
import io
import json
import logging
import mmap
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime

from engine.errors import CudaError
from engine.inference.models.onnx_graph import Graph, read_graph

log = logging.getLogger(__name__)

ROWS = 32  # of each run, however many are asked about; the others are what they were
# A graph of these operators, with these attributes at most, is captured as a CUDA graph and launched as one. A provider
# that frees memory amid a capture ends the whole process, so what has not been tried is launched node by node.
CAPTURED: dict[str, set[str]] = {
    "Conv": {"pads", "strides"}, "Flatten": set(), "Gemm": set(), "LSTM": {"hidden_size"}, "Relu": set(),
    "Sigmoid": set(), "Squeeze": set(), "Transpose": {"perm"},
}  # fmt: skip
CAPTURED_INPUTS_MAX = 4  # of a node
RUNS_BEFORE_CAPTURED = 3
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
NON_BLOCKING = 1  # cudaStreamNonBlocking
PROVIDER = "CUDAExecutionProvider"
OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "DEFAULT",  # one algorithm; the others time several, and take what was fast just then
    "arena_extend_strategy": "kSameAsRequested",
}
# The smallest graph: y = x, float[1]; as bytes of an ONNX file.
NOTHING = bytes.fromhex(
    "0808" "3a37" "0a10" "0a0178" "120179" "22084964656e74697479" "12016e"
    "5a0f0a0178120a0a08080112040a020801" "620f0a0179120a0a08080112040a020801" "42040a001015"
)  # fmt: skip


def one_thread() -> onnxruntime.SessionOptions:
    """A session's options: in the caller's thread alone, and silent."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # of errors its exceptions tell, once, twice, four times ...
    return options


class Runtime:
    """CUDA's runtime library, the one that the provider uses."""

    def __init__(self) -> None:
        told = io.StringIO()
        with contextlib.redirect_stdout(told):  # the library prints what it does not find
            onnxruntime.preload_dlls()
        onnxruntime.set_default_logger_severity(3)  # it warns of every session
        major = str(onnxruntime.cuda_version).split(".")[0]
        try:
            self._library = ctypes.CDLL(f"libcudart.so.{major}")
        except OSError as error:
            raise CudaError(f"CUDA's libraries are not there: {error}") from error
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._library, name)(*arguments):
            self._library.cudaGetLastError()  # forgets it, or ONNX Runtime takes it for one of its own
            raise CudaError(f"{name}: {self._library.cudaGetErrorString(code).decode()}")

    def devices(self) -> int:
        count = ctypes.c_int()
        self.call("cudaGetDeviceCount", ctypes.byref(count))
        return count.value


class Device:
    """One GPU as one process has it; CudaError where it cannot be had.

    lost: why it is not used any more; empty: it is. tell: called where the processor has to stand in for it from now
    on. min_artefact_bytes: of which a graph runs there. wanted, placed: graphs that were to run there, and do.
    """

    def __init__(self, number: int, tell: Callable[[str], None] = log.error, min_artefact_bytes: int = 0) -> None:
        self.number = number
        self.min_artefact_bytes = min_artefact_bytes
        self.lost = ""
        self.wanted = self.placed = 0
        self._tell = tell
        self.runtime = Runtime()
        self.runtime.call("cudaSetDevice", number)
        self.stream = ctypes.c_void_p()
        self.runtime.call("cudaStreamCreateWithFlags", ctypes.byref(self.stream), NON_BLOCKING)

    def works(self) -> bool:
        try:
            self.runtime.call("cudaStreamSynchronize", self.stream)
        except CudaError:
            return False
        return True

    def failed(self, why: str) -> None:
        """One graph did; where nothing works any more, it is lost for all of them."""
        if not self.works():
            self.lost = why
        self._tell(why)

    def session(self, data: bytes, captured: bool) -> onnxruntime.InferenceSession:
        """Of a graph's bytes, on this GPU; CudaError where the provider is not to be had."""
        options = one_thread()
        options.use_deterministic_compute = True
        mine = {
            **OPTIONS,
            "device_id": str(self.number),
            "user_compute_stream": str(self.stream.value),
            "enable_cuda_graph": "1" if captured else "0",
        }
        session = onnxruntime.InferenceSession(
            data, options, providers=[(PROVIDER, mine), "CPUExecutionProvider"], enable_fallback=0
        )
        if PROVIDER not in session.get_providers():
            raise CudaError("ONNX Runtime's CUDA provider cannot be loaded; install the extra `cuda`")
        return session


def staging(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 zeros in whole pages, so that they can be pinned."""
    size = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(4 * size, 1)), "f4", size).reshape(shape)


def is_captured(graph: Graph) -> bool:
    return all(
        node.op in CAPTURED and node.attributes.keys() <= CAPTURED[node.op] and len(node.inputs) <= CAPTURED_INPUTS_MAX
        for node in graph.nodes
    )


class DeviceGraph:
    """`run` takes the first rows of `feed` through the graph into `outs`; both are `staging`, of ROWS rows.

    What it raises is the provider's, or CudaError.
    """

    def __init__(
        self, data: bytes, device: Device, name: str, feed: np.ndarray, outs: Mapping[str, np.ndarray]
    ) -> None:
        self._call, self._stream = device.runtime.call, device.stream
        self._session = device.session(data, is_captured(read_graph(data)))
        self._binding = self._session.io_binding()
        self._there: list[Any] = []  # the tensors on the device live as long as this
        self._there_in, self._here_in, _ = self._placed(feed, device)
        self._row_bytes = feed.nbytes // ROWS
        self._binding.bind_ortvalue_input(name, self._there[-1])
        self._back = []
        for each, array in outs.items():
            self._back.append(self._placed(array, device))
            self._binding.bind_ortvalue_output(each, self._there[-1])
        self._asynchronously = onnxruntime.RunOptions()
        self._asynchronously.add_run_config_entry("disable_synchronize_execution_providers", "1")
        for _ in range(RUNS_BEFORE_CAPTURED):
            self.run(ROWS)

    def _placed(self, array: np.ndarray, device: Device) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]:
        """Room for it on the device, and its own memory pinned: both addresses and the bytes."""
        tensor = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, np.float32, "cuda", device.number)
        self._there.append(tensor)
        here, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cudaHostRegister", here, size, ctypes.c_uint(0))
        weakref.finalize(self, _unpin, device.runtime, array)
        return ctypes.c_void_p(tensor.data_ptr()), here, size

    def run(self, rows: int) -> None:
        size = ctypes.c_size_t(rows * self._row_bytes)
        self._call("cudaMemcpyAsync", self._there_in, self._here_in, size, TO_DEVICE, self._stream)
        self._session.run_with_iobinding(self._binding, self._asynchronously)
        for there, here, size in self._back:
            self._call("cudaMemcpyAsync", here, there, size, TO_HOST, self._stream)
        self._call("cudaStreamSynchronize", self._stream)


def _unpin(runtime: Runtime, array: np.ndarray) -> None:
    """Before the memory goes: another array may be given the same pages."""
    with contextlib.suppress(CudaError):  # of a GPU that is lost
        runtime.call("cudaHostUnregister", ctypes.c_void_p(array.ctypes.data))


def probe() -> dict[str, Any]:
    """The numbers of the GPUs that models can run on, and why others cannot; found out by running something on each."""
    gpus, why = list[int](), ""
    try:
        count = Runtime().devices()
        why = "" if count else "CUDA sees none"
    except CudaError as error:
        count, why = 0, str(error)
    for number in range(count):
        try:
            Device(number).session(NOTHING, captured=False).run(None, {"x": np.ones(1, "f4")})
            gpus.append(number)
        except Exception as error:  # CUDA's, or the provider's
            why = f"GPU {number}: {' '.join(str(error).split())[:300]}"
    return {"gpus": gpus, "why": why}


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)

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
from engine.inference.models.onnx_graph import read_graph
from engine.settings import Settings

log = logging.getLogger(__name__)

ROWS = 32  # of each run, however many are asked about; the others are what they were
PAYS_FROM_BYTES = 4 << 20  # of an artefact, where nobody asked for the GPU; `bench.gpu` shows why
# Graphs of these are recorded once and replayed as one launch. A provider that frees memory while it records ends
# the whole process, so what has not been tried is launched node by node.
REPLAYED = {"Conv", "Flatten", "Gemm", "LSTM", "Relu", "Sigmoid", "Squeeze", "Transpose"}
RUNS_BEFORE_REPLAY = 3  # of a graph, until its launches have been recorded
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

    lost: why it is not used any more; empty: it is. tell: called with that, once. from_bytes: size of an artefact
    from which on its graph runs there.
    """

    def __init__(self, number: int, tell: Callable[[str], None] = log.error, from_bytes: int = 0) -> None:
        self.number = number
        self.from_bytes = from_bytes
        self.lost = ""
        self._tell = tell
        self.runtime = Runtime()
        self.runtime.call("cudaSetDevice", number)
        self._stream = ctypes.c_void_p()
        self.runtime.call("cudaStreamCreateWithFlags", ctypes.byref(self._stream), NON_BLOCKING)

    def works(self) -> bool:
        try:
            self.runtime.call("cudaStreamSynchronize", self._stream)
        except CudaError:
            return False
        return True

    def lose(self, why: str) -> None:
        if not self.lost:
            self.lost = why
            self._tell(why)

    @property
    def stream(self) -> ctypes.c_void_p:
        return self._stream

    def session(self, data: bytes, replayed: bool) -> onnxruntime.InferenceSession:
        """Of a graph's bytes, on this GPU; CudaError where the provider is not to be had.

        replayed: its launches are recorded once and then replayed as one, which graphs with nodes for the CPU refuse.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        mine = {
            **OPTIONS,
            "device_id": str(self.number),
            "user_compute_stream": str(self._stream.value),
            "enable_cuda_graph": "1" if replayed else "0",
        }
        session = onnxruntime.InferenceSession(data, options, providers=[(PROVIDER, mine), "CPUExecutionProvider"])
        if PROVIDER not in session.get_providers():
            raise CudaError("ONNX Runtime's CUDA provider cannot be loaded; install the extra `cuda`")
        return session


def staging(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 zeros in whole pages, so that they can be pinned."""
    size = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(4 * size, 1)), "f4", size).reshape(shape)


def from_bytes(settings: Settings) -> int:
    """All graphs where it was asked for, else those large enough for it to pay."""
    return 0 if settings.engine.device == "cuda" else PAYS_FROM_BYTES


class CudaGraph:
    """`run` takes the first rows of `feed` through the graph into `outs`; both are `staging`, of ROWS rows.

    What it raises is the provider's, or CudaError.
    """

    def __init__(
        self, data: bytes, device: Device, name: str, feed: np.ndarray, outs: Mapping[str, np.ndarray]
    ) -> None:
        self._call, self._stream = device.runtime.call, device.stream
        self._session = device.session(data, {node.op for node in read_graph(data).nodes} <= REPLAYED)
        self._binding = self._session.io_binding()
        self._there: list[Any] = []  # the tensors on the device live as long as this
        self._there_in, self._here_in, _ = self._placed(feed, device)
        self._row_bytes = feed.nbytes // ROWS
        self._binding.bind_ortvalue_input(name, self._there[-1])
        self._back = []
        for each, array in outs.items():
            self._back.append(self._placed(array, device))
            self._binding.bind_ortvalue_output(each, self._there[-1])
        weakref.finalize(self, _unpin, device.runtime, [feed, *outs.values()])
        self._asynchronously = onnxruntime.RunOptions()
        self._asynchronously.add_run_config_entry("disable_synchronize_execution_providers", "1")
        for _ in range(RUNS_BEFORE_REPLAY):
            self.run(ROWS)

    def _placed(self, array: np.ndarray, device: Device) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]:
        """Room for it on the device, and its own memory pinned: both addresses and the bytes."""
        tensor = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, np.float32, "cuda", device.number)
        self._there.append(tensor)
        here, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cudaHostRegister", here, size, ctypes.c_uint(0))
        return ctypes.c_void_p(tensor.data_ptr()), here, size

    def run(self, rows: int) -> None:
        size = ctypes.c_size_t(rows * self._row_bytes)
        self._call("cudaMemcpyAsync", self._there_in, self._here_in, size, TO_DEVICE, self._stream)
        self._session.run_with_iobinding(self._binding, self._asynchronously)
        for there, here, size in self._back:
            self._call("cudaMemcpyAsync", here, there, size, TO_HOST, self._stream)
        self._call("cudaStreamSynchronize", self._stream)


def _unpin(runtime: Runtime, arrays: list[np.ndarray]) -> None:
    """Before the memory goes: another array may be given the same pages."""
    for array in arrays:
        with contextlib.suppress(CudaError):  # of a GPU that is lost
            runtime.call("cudaHostUnregister", ctypes.c_void_p(array.ctypes.data))


def probe() -> dict[str, Any]:
    """How many GPUs models can run on, and where there is none, why; found out by running something on each."""
    try:
        count = Runtime().devices()
        for number in range(count):
            Device(number).session(NOTHING, replayed=False).run(None, {"x": np.ones(1, "f4")})
        return {"gpus": count, "why": "" if count else "CUDA sees none"}
    except Exception as error:
        return {"gpus": 0, "why": " ".join(str(error).split())[:300]}


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)

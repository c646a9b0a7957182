"""What training leaves behind: ONNX graphs, manifests and cards, in the model store's folders.

Owns the writing of `models/`; run by `python -m engine.training`. What must stay true: a manifest
names the hash of the bytes beside it; the same parameters give the same bytes.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.inference.batch import LSTM_MINUTES
from engine.inference.features import FEATURES
from engine.inference.image import HEIGHT, IMAGE_MINUTES

OPSET = 17


def _tensor(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def _model(nodes: list[Any], name: str, inputs: list[Any], outputs: list[Any], tensors: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="tickpath"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def lstm_bytes(parameters: Mapping[str, np.ndarray], horizons: int) -> bytes:
    hidden = parameters["r"].shape[1]
    bias = np.concatenate([parameters["b"], np.zeros(4 * hidden, "f4")])
    tensors = [
        _tensor("w", parameters["w"][None]),
        _tensor("r", parameters["r"][None]),
        _tensor("b", bias[None]),
        _tensor("first", np.array([0], "i8")),
        *(_tensor(name, parameters[name]) for name in ("move_w", "move_b", "rise_w", "rise_b")),
    ]
    nodes = [
        helper.make_node("Transpose", ["rows"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "b"], ["", "last"], hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "first"], ["state"]),
        helper.make_node("Gemm", ["state", "move_w", "move_b"], ["move"]),
        helper.make_node("Gemm", ["state", "rise_w", "rise_b"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["rise"]),
    ]
    inputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, LSTM_MINUTES + 1, FEATURES])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, horizons]) for name in ("move", "rise")]
    return _model(nodes, "lstm", inputs, outputs, tensors)


def cnn_bytes(parameters: Mapping[str, np.ndarray], patterns: int) -> bytes:
    tensors = [_tensor(name, parameters[name]) for name in ("k1", "b1", "k2", "b2", "w", "b")]
    spread: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "k1", "b1"], ["c1"], **spread),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "k2", "b2"], ["c2"], **spread),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["pattern"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, HEIGHT, IMAGE_MINUTES])]
    outputs = [helper.make_tensor_value_info("pattern", TensorProto.FLOAT, [1, patterns])]
    return _model(nodes, "cnn", inputs, outputs, tensors)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple | np.ndarray):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer):
        return str(int(value))
    return repr(round(float(value), 6))


def toml(table: Mapping[str, Any]) -> str:
    """Plain values first, then one level of tables."""
    lines = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in inner.items())]
    return "\n".join(lines) + "\n"


def write(store: Path, artefact: bytes, name: str, manifest: Mapping[str, Any], card: str) -> Path:
    """One version's folder: artefact, model.toml, card.md."""
    folder = store / manifest["id"] / manifest["version"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(artefact)
    whole = dict(manifest)
    whole["artefact"] = {"file": name, "sha256": hashlib.sha256(artefact).hexdigest()}
    (folder / "model.toml").write_text(toml(whole))
    (folder / "card.md").write_text(card)
    return folder

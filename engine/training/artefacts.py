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

OPSET = 17


def tensor(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def model_bytes(nodes: list[Any], name: str, inputs: list[Any], outputs: list[Any], tensors: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="tickpath"
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def lstm_bytes(parameters: Mapping[str, np.ndarray], horizons: int) -> bytes:
    """Layer upon layer over all steps; the heads read the last layer's last step."""
    heads = ("move_w", "move_b", "rise_w", "rise_b")
    tensors = [tensor("first", np.array([0], "i8")), *(tensor(name, parameters[name]) for name in heads)]
    nodes = [helper.make_node("Transpose", ["rows"], ["x0"], perm=[1, 0, 2])]
    layers = sum(name[0] == "r" and name[1:].isdigit() for name in parameters)
    if layers > 1:
        tensors.append(tensor("one", np.array([1], "i8")))
    for k in range(layers):
        hidden = parameters[f"r{k}"].shape[1]
        bias = np.concatenate([parameters[f"b{k}"], np.zeros(4 * hidden, "f4")])
        tensors += [tensor(f"{name}{k}", parameters[f"{name}{k}"][None]) for name in ("w", "r")]
        tensors.append(tensor(f"b{k}", bias[None]))
        outs = ["", "last"] if k == layers - 1 else [f"y{k}"]
        nodes.append(helper.make_node("LSTM", [f"x{k}", f"w{k}", f"r{k}", f"b{k}"], outs, hidden_size=hidden))
        if k < layers - 1:
            nodes.append(helper.make_node("Squeeze", [f"y{k}", "one"], [f"x{k + 1}"]))
    nodes += [
        helper.make_node("Squeeze", ["last", "first"], ["state"]),
        helper.make_node("Gemm", ["state", "move_w", "move_b"], ["move"]),
        helper.make_node("Gemm", ["state", "rise_w", "rise_b"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["rise"]),
    ]
    inputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, LSTM_MINUTES + 1, FEATURES])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, horizons]) for name in ("move", "rise")]
    return model_bytes(nodes, "lstm", inputs, outputs, tensors)


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

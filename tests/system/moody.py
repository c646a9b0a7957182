"""ONNX models that are good or bad as their inputs say: what a breaker must see open, half open and close.

One row of numbers in, three chances out. Each number of a company's own, nil for good behaviour, brings out
one vice; a shared model has the mean of the correlation scores in their place.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx

FLOAT = onnx.TensorProto.FLOAT
VICES = ("nan", "raise", "rows", "work")
WIDTH, LAYERS = 256, 8  # of the work: about 1 MFLOP a row


def _node(kind: str, *inputs: str, to: str, **attributes: object) -> onnx.NodeProto:
    return onnx.helper.make_node(kind, list(inputs), [to], **attributes)


def _array(values: object, name: str, dtype: str = "i8") -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.array(values, dtype), name)


def own() -> bytes:
    """By `VICES`: NaN where negative; an error where not nil; so many rows too many; so many rows of work."""
    nodes = [
        _node("Split", "columns", "four", to="nan", axis=1),
        # Chances that do not depend on anything, but for NaN and for what the work gives: nil.
        _node("Add", "nan", "one", to="shifted"),
        _node("Log", "shifted", to="logged"),
        _node("Mul", "logged", "zero", to="maybe_nan"),
        _node("Cast", "raise", to="index", to_=7),
        _node("Gather", "table", "index", to="looked_up", axis=0),
        _node("Cast", "work", to="works", to_=7),
        _node("Add", "works", "one_i", to="work_rows"),
        _node("Reshape", "work_rows", "flat", to="work_count"),
        _node("Concat", "work_count", "width", to="work_shape", axis=0),
        _node("ConstantOfShape", "work_shape", to="layer_0"),
        *(_node("MatMul", f"layer_{n}", "weights", to=f"layer_{n + 1}") for n in range(LAYERS)),
        _node("ReduceSum", f"layer_{LAYERS}", to="worked", keepdims=0),
        _node("Add", "base", "maybe_nan", to="with_nan"),
        _node("Add", "with_nan", "looked_up", to="with_look"),
        _node("Add", "with_look", "worked", to="with_work"),
        _node("Cast", "rows", to="more", to_=7),
        _node("Add", "more", "one_i", to="row_count"),
        _node("Reshape", "row_count", "flat", to="rows_flat"),
        _node("Concat", "rows_flat", "once", to="repeats", axis=0),
        _node("Tile", "with_work", "repeats", to="direction"),
    ]
    nodes[0].output[:] = VICES
    for node in nodes:
        for attribute in node.attribute:
            attribute.name = attribute.name.rstrip("_")
    constants = [
        _array([1, 1, 1, 1], "four"),
        _array([[1.0]], "one", "f4"),
        _array([[0.0]], "zero", "f4"),
        _array([0.0], "table", "f4"),
        _array([[1]], "one_i"),
        _array([1], "flat"),
        _array([WIDTH], "width"),
        _array([1], "once"),
        _array(np.zeros((WIDTH, WIDTH)), "weights", "f4"),
        _array([[0.2, 0.3, 0.5]], "base", "f4"),
    ]
    return _model(nodes, constants, len(VICES))


def shared() -> bytes:
    """NaN where the mean of the correlation scores is below -0.5."""
    nodes = [
        _node("IsNaN", "columns", to="unknown"),
        _node("Where", "unknown", "zero", "columns", to="known"),
        _node("Add", "known", "half", to="shifted"),
        _node("Log", "shifted", to="logged"),
        _node("Mul", "logged", "zero", to="maybe_nan"),
        _node("Add", "base", "maybe_nan", to="direction"),
    ]
    constants = [
        _array([[0.5]], "half", "f4"),
        _array([[0.0]], "zero", "f4"),
        _array([[0.2, 0.3, 0.5]], "base", "f4"),
    ]
    return _model(nodes, constants, 1)


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], columns: int) -> bytes:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "moody",
        [helper.make_tensor_value_info("columns", FLOAT, [1, columns])],
        [helper.make_tensor_value_info("direction", FLOAT, ["rows", 3])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def put(store: Path, model_id: str, version: str, artefact: bytes, features: list[str], company: str = "") -> None:
    """A version into the store."""
    folder = store / model_id / version
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(artefact)
    whose = f'company = "{company}"\nextra = {json.dumps(features)}\n' if company else ""
    (folder / "model.toml").write_text(
        f'id = "{model_id}"\nversion = "{version}"\n{whose}kind = "other"\nrole = "direction"\n'
        f'features = {json.dumps(features)}\nclosed_minutes = 0\noutputs = ["direction"]\nhorizons = [15]\n'
        f'weight = 0.5\n[artefact]\nfile = "model.onnx"\nsha256 = "{hashlib.sha256(artefact).hexdigest()}"\n'
        "[calibration]\n[training]\n[quality]\n"
    )

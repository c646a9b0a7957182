"""A stacked LSTM with its two heads, or boosted trees, as an ONNX file, of any size, without the onnx package.

Owns the encoding; used by `bench.lstm` and `bench.trees`, whose baseline is ONNX Runtime on the same weights. What must
stay true: an LSTM's graph is that of `engine.training.artefacts.lstm_bytes`, which the bundled models have; trees ask
and treat what is missing as XGBoost does.
"""

from collections.abc import Sequence

import numpy as np

from fastpath.packing import Nodes

FLOAT, INT64 = 1, 7  # TensorProto.DataType
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8
INT, FLOATS, INTS, STRINGS = 2, 6, 7, 8  # AttributeProto.Type
Field = tuple[int, "int | str | bytes"]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _message(*fields: Field) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(content)) + content
    return out


def _tensor(name: str, values: np.ndarray) -> Field:
    kind = INT64 if values.dtype.kind == "i" else FLOAT
    return 5, _message(*((1, each) for each in values.shape), (2, kind), (8, name), (9, values.tobytes()))


def _ints(name: str, values: Sequence[int]) -> bytes:
    return _message((1, name), (8, b"".join(_varint(int(each)) for each in values)), (20, INTS))


def _floats(name: str, values: Sequence[float]) -> bytes:
    return _message((1, name), (7, np.asarray(values, "<f4").tobytes()), (20, FLOATS))


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes, domain: str = "") -> Field:
    parts: list[Field] = [(1, each) for each in inputs]
    parts += [(2, each) for each in outputs]
    return 1, _message(*parts, (4, op), *((5, each) for each in attributes), (7, domain))


def _value(field: int, name: str, shape: Sequence[int]) -> Field:
    dims = _message(*((1, _message((1, each))) for each in shape))
    return field, _message((1, name), (2, _message((1, _message((1, FLOAT), (2, dims))))))


def lstm_file(
    layers: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    heads: Sequence[tuple[np.ndarray, np.ndarray]],
    window: int,
) -> bytes:
    """layers: w, r, bias as `Network` takes them. heads: (units, outputs) and (outputs,) of `move`, then of `rise`."""
    graph: list[Field] = [_tensor("first", np.array([0])), _tensor("one", np.array([1]))]
    perm = _message((1, "perm"), (8, 1), (8, 0), (8, 2), (20, INTS))
    graph.append(_node("Transpose", ["rows"], ["x0"], perm))
    for k, (w, r, bias) in enumerate(layers):
        both = np.concatenate([bias, np.zeros_like(bias)])
        graph += [_tensor(f"w{k}", w[None]), _tensor(f"r{k}", r[None]), _tensor(f"b{k}", both[None])]
        outs = ["", "last"] if k == len(layers) - 1 else [f"y{k}"]
        size = _message((1, "hidden_size"), (3, r.shape[1]), (20, INT))
        graph.append(_node("LSTM", [f"x{k}", f"w{k}", f"r{k}", f"b{k}"], outs, size))
        if k < len(layers) - 1:
            graph.append(_node("Squeeze", [f"y{k}", "one"], [f"x{k + 1}"]))
    graph.append(_node("Squeeze", ["last", "first"], ["state"]))
    for name, out, (w, bias) in zip(("move", "rise"), ("move", "logit"), heads, strict=True):
        graph += [_tensor(f"{name}_w", w), _tensor(f"{name}_b", bias)]
        graph.append(_node("Gemm", ["state", f"{name}_w", f"{name}_b"], [out]))
    graph.append(_node("Sigmoid", ["logit"], ["rise"]))
    graph.append(_value(11, "rows", (1, window, layers[0][0].shape[1])))
    graph += [_value(12, name, (1, len(bias))) for name, (_, bias) in zip(("move", "rise"), heads, strict=True)]
    opset = _message((1, ""), (2, OPSET))
    return _message((1, IR_VERSION), (8, opset), (7, _message((2, "lstm"), *graph)))


def trees_file(trees: Sequence[Nodes], of_class: Sequence[int], base: Sequence[float], inputs: int) -> bytes:
    """Of row (1, inputs) the margins, (1, classes)."""
    nodes = [(t, n) for t, tree in enumerate(trees) for n in range(len(tree.left))]
    leaves = [(t, n) for t, n in nodes if trees[t].left[n] < 0]
    modes = ["LEAF" if trees[t].left[n] < 0 else "BRANCH_LT" for t, n in nodes]
    attributes = [
        _ints("nodes_treeids", [t for t, _ in nodes]),
        _ints("nodes_nodeids", [n for _, n in nodes]),
        _ints("nodes_featureids", [trees[t].feature[n] for t, n in nodes]),
        _floats("nodes_values", [trees[t].below[n] for t, n in nodes]),
        _ints("nodes_truenodeids", [max(trees[t].left[n], 0) for t, n in nodes]),
        _ints("nodes_falsenodeids", [max(trees[t].right[n], 0) for t, n in nodes]),
        _ints("nodes_missing_value_tracks_true", [trees[t].missing_left[n] for t, n in nodes]),
        _message((1, "nodes_modes"), *((9, each) for each in modes), (20, STRINGS)),
        _ints("target_treeids", [t for t, _ in leaves]),
        _ints("target_nodeids", [n for _, n in leaves]),
        _ints("target_ids", [of_class[t] for t, _ in leaves]),
        _floats("target_weights", [trees[t].value[n] for t, n in leaves]),
        _message((1, "n_targets"), (3, len(base)), (20, INT)),
        _floats("base_values", base),
    ]
    graph = [_node("TreeEnsembleRegressor", ["row"], ["margins"], *attributes, domain="ai.onnx.ml")]
    graph += [_value(11, "row", (1, inputs)), _value(12, "margins", (1, len(base)))]
    opsets = [(8, _message((1, domain), (2, version))) for domain, version in (("", OPSET), ("ai.onnx.ml", ML_OPSET))]
    return _message((1, IR_VERSION), *opsets, (7, _message((2, "trees"), *graph)))

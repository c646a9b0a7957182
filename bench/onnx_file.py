"""A stacked LSTM with its two heads as an ONNX file, of any size, without the onnx package.

Owns the encoding; used by `bench.lstm`, whose baseline is ONNX Runtime on the same weights. What must stay true: the
graph is that of `engine.training.artefacts.lstm_bytes`, which the bundled models have.
"""

from collections.abc import Sequence

import numpy as np

FLOAT, INT64 = 1, 7  # TensorProto.DataType
OPSET, IR_VERSION = 17, 8
INT, INTS = 2, 7  # AttributeProto.Type
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


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes) -> Field:
    parts: list[Field] = [(1, each) for each in inputs]
    parts += [(2, each) for each in outputs]
    return 1, _message(*parts, (4, op), *((5, each) for each in attributes))


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

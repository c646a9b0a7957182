"""An ONNX file as nodes and tensors, for graphs that the engine runs by itself.

Owns the reading; run by workers at load and by `check`. Reads the bytes of an artefact that `onnx_bytes` has checked
and ONNX Runtime has accepted, and still believes no length in them. What must stay true: what cannot be read is an
`Unfit` with a reason, never a wrong number.
"""

from collections.abc import Container, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from engine.inference.models import onnx_bytes as wire
from engine.inference.models.onnx_bytes import fields, varint

# Field numbers of onnx.proto3, beside those of onnx_bytes.
GRAPH_OUTPUT, VALUE_NAME = 12, 1
GRAPH_VALUES = (11, 12)  # inputs and outputs
VALUE_TO_DIM = (2, 1, 2, 1)  # type, tensor_type, shape, dim
ONE_ROW = b"\x08\x01"  # dim_value: 1
NODE_INPUT, NODE_OUTPUT, NODE_NAME = 1, 2, 3
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_STRING, ATTRIBUTE_INTS, ATTRIBUTE_STRINGS = 1, 2, 3, 4, 8, 9
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_INTS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 7, 8, 9
TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}  # of tensors: float and int64

Attribute = float | int | bytes | tuple[int, ...] | tuple[bytes, ...] | np.ndarray


class Unfit(Exception):
    """Why the engine does not run a graph by itself; its text is the reason."""


class Node(NamedTuple):
    op: str
    name: str
    inputs: tuple[str, ...]  # empty: left out
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]

    @property
    def shown(self) -> str:
        return f"{self.op} {self.name or self.outputs[0]}"


class Graph(NamedTuple):
    nodes: list[Node]
    tensors: dict[str, np.ndarray]  # initializers and constants
    outputs: list[str]


def read_graph(data: bytes) -> Graph:
    """Of a whole file; Unfit where it holds what is not known here."""
    try:
        graph = next(inner for field, _, inner in fields(memoryview(data)) if field == wire.MODEL_GRAPH)
        nodes: list[Node] = []
        tensors: dict[str, np.ndarray] = {}
        outputs: list[str] = []
        for field, _, inner in fields(graph):
            if field == wire.GRAPH_NODE:
                nodes.append(_node(inner))
            elif field == wire.GRAPH_INITIALIZER:
                name, tensor = _tensor(inner)
                tensors[name] = tensor
            elif field == GRAPH_OUTPUT:
                outputs += [_text(text) for part, _, text in fields(inner) if part == VALUE_NAME]
            elif field == wire.GRAPH_SPARSE:
                raise Unfit("it has sparse tensors")
        return Graph(nodes, tensors, outputs)
    except (IndexError, StopIteration, UnicodeDecodeError) as error:
        raise Unfit("its bytes are not those of one graph") from error


def with_rows(data: bytes, rows: int, names: Container[str]) -> bytearray:
    """The same file, in which inputs and outputs of these names have so many rows where they had one.

    rows: below 128, a varint of one byte, so that nothing moves.
    """
    changed = bytearray(data)
    for field, _, graph in fields(memoryview(changed)):
        values = [inner for of, _, inner in fields(graph) if of in GRAPH_VALUES] if field == wire.MODEL_GRAPH else []
        for value in values:
            if not any(of == VALUE_NAME and _text(inner) in names for of, _, inner in fields(value)):
                continue
            dims = [value]
            for wanted in VALUE_TO_DIM:
                dims = [inner for each in dims for of, _, inner in fields(each) if of == wanted]
            if dims and bytes(dims[0]) == ONE_ROW:
                dims[0][-1] = rows
    return changed


def _text(data: memoryview) -> str:
    return bytes(data).decode()


def _node(data: memoryview) -> Node:
    op, name, inputs, outputs = "", "", list[str](), list[str]()
    attributes: dict[str, Attribute] = {}
    for field, _, inner in fields(data):
        if field == NODE_INPUT:
            inputs.append(_text(inner))
        elif field == NODE_OUTPUT:
            outputs.append(_text(inner))
        elif field == NODE_NAME:
            name = _text(inner)
        elif field == wire.NODE_OP:
            op = _text(inner)
        elif field == wire.NODE_ATTRIBUTE:
            key, value = _attribute(inner)
            attributes[key] = value
    if not outputs:
        raise IndexError
    return Node(op, name, tuple(inputs), tuple(outputs), attributes)


def _attribute(data: memoryview) -> tuple[str, Attribute]:
    name = ""
    value: Attribute = b""
    ints, strings = list[int](), list[bytes]()
    for field, number, inner in fields(data):
        if field == ATTRIBUTE_NAME:
            name = _text(inner)
        elif field == ATTRIBUTE_FLOAT:
            value = float(np.frombuffer(inner, "<f4")[0])
        elif field == ATTRIBUTE_INT:
            value = _signed(number)
        elif field == ATTRIBUTE_STRING:
            value = bytes(inner)
        elif field == wire.ATTRIBUTE_TENSOR:
            value = _tensor(inner)[1]
        elif field == ATTRIBUTE_INTS:
            ints += _numbers(number, inner)
        elif field == ATTRIBUTE_STRINGS:
            strings.append(bytes(inner))
    return name, tuple(ints) or tuple(strings) or value


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _numbers(number: int, inner: memoryview) -> Iterator[int]:
    """A repeated int64, one by one or packed."""
    if not inner:
        yield _signed(number)
        return
    at = 0
    while at < len(inner):
        number, at = varint(inner, at)
        yield _signed(number)


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    name, kind, dims = "", 0, list[int]()
    raw, ints = b"", list[int]()
    for field, number, inner in fields(data):
        if field == TENSOR_DIMS:
            dims += _numbers(number, inner)
        elif field == TENSOR_TYPE:
            kind = number
        elif field == TENSOR_INTS:
            ints += _numbers(number, inner)
        elif field == TENSOR_NAME:
            name = _text(inner)
        elif field in (TENSOR_FLOATS, TENSOR_RAW):  # the same bytes either way
            raw += bytes(inner)
    if kind not in TYPES:
        return name, np.empty(0, object)  # such as a table of texts: nobody here asks for it
    if kind == 7 and ints:
        values = np.array(ints, "<i8")
    else:
        if len(raw) % TYPES[kind].itemsize:
            raise IndexError
        values = np.frombuffer(raw, TYPES[kind])
    if min(dims, default=0) < 0 or prod(dims) != len(values):
        raise Unfit(f"tensor {name}: its shape is {tuple(dims)}, and it holds {len(values)} numbers")
    return name, values.reshape(dims)

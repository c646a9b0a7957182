"""What an ONNX file may contain before ONNX Runtime sees it.

Owns the check; run by workers at load. Reads the bytes of an artefact; walks the protobuf wire format
itself, so that no model library is needed for it. What must stay true: nothing outside the bytes is
referred to (external data), and nobody else's code is asked for (operators of other domains, functions).
"""

from collections.abc import Iterator
from pathlib import Path

from engine.errors import ModelError

# Field numbers of onnx.proto3.
MODEL_GRAPH, MODEL_OPSET, MODEL_FUNCTIONS = 7, 8, 25
OPSET_DOMAIN = 1
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
DOMAINS = (b"", b"ai.onnx", b"ai.onnx.ml")
DEPTH_MAX = 8  # graphs within graphs


def varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise IndexError


def fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(field, number, bytes) of one message; a number has empty bytes, one of fixed size is left as its bytes.

    IndexError where the bytes are no message.
    """
    at, nothing = 0, memoryview(b"")
    while at < len(data):
        tag, at = varint(data, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield field, value, nothing
        elif wire == 2:
            size, at = varint(data, at)
            if at + size > len(data):
                raise IndexError
            yield field, 0, data[at : at + size]
            at += size
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if at + size > len(data):
                raise IndexError
            yield field, 0, data[at : at + size]
            at += size
        else:
            raise IndexError


def check_onnx(data: bytes, path: Path) -> None:
    """ModelError unless the bytes are a self-contained model of standard operators."""
    try:
        graphs = 0
        for field, _, inner in fields(memoryview(data)):
            if field == MODEL_FUNCTIONS:
                raise ModelError(
                    f"{path}: expected a graph of standard operators, found functions of its own; "
                    "inline them before exporting"
                )
            if field == MODEL_OPSET:
                _check_domain(
                    path, next((bytes(text) for number, _, text in fields(inner) if number == OPSET_DOMAIN), b"")
                )
            if field == MODEL_GRAPH:
                graphs += 1
                _check_graph(inner, path, 0)
    except IndexError:
        graphs = 0
    if graphs != 1:
        raise ModelError(
            f"{path}: expected an ONNX model with one graph, found {len(data)} bytes of something else; export it again"
        )


def _check_domain(path: Path, domain: bytes) -> None:
    if domain not in DOMAINS:
        raise ModelError(
            f"{path}: expected standard operators, found the domain {domain.decode(errors='replace')!r}; "
            "export without custom operators"
        )


def _check_graph(graph: memoryview, path: Path, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ModelError(
            f"{path}: expected at most {DEPTH_MAX} graphs within each other, found more; export a flatter model"
        )
    for field, _, inner in fields(graph):
        if field == GRAPH_INITIALIZER:
            _check_tensor(inner, path)
        elif field == GRAPH_SPARSE:
            for _, _, part in fields(inner):
                _check_tensor(part, path)
        elif field == GRAPH_NODE:
            _check_node(inner, path, depth)


def _check_tensor(tensor: memoryview, path: Path) -> None:
    for field, number, _ in fields(tensor):
        if field == TENSOR_EXTERNAL or (field == TENSOR_LOCATION and number != 0):
            raise ModelError(
                f"{path}: expected all weights within the file, found external data; export with the weights inside"
            )


def _check_node(node: memoryview, path: Path, depth: int) -> None:
    for field, _, inner in fields(node):
        if field == NODE_DOMAIN:
            _check_domain(path, bytes(inner))
        elif field == NODE_ATTRIBUTE:
            for part, _, value in fields(inner):
                if part in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                    _check_tensor(value, path)
                elif part in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                    _check_graph(value, path, depth + 1)

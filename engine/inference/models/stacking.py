"""Stackers that the engine runs by itself: which ONNX graphs these are, their weights, and the kernel.

Owns the shape that fits, which is what `engine.training.stacker` exports: from the logs of the direction model's
chances, or of base rates where it said nothing, by what one hidden layer makes of all members, to three chances. Run by
workers at load and for each vector. What must stay true: a graph that is any other way is `Unfit` with a reason, and
ONNX Runtime runs it.
"""

from typing import NamedTuple

import numpy as np

from engine.inference.jit import kernel
from engine.inference.models.onnx_graph import Attribute, Node, Unfit, read_graph

# (op, inputs, output), in the graph's order; names are the exporter's own, but for the first and the last.
GRAPH = (
    ("Gemm", ("members", "w1", "b1"), "sum"),
    ("Tanh", ("sum",), "hidden"),
    ("Gemm", ("hidden", "w2", "b2"), "change"),
    ("Slice", ("members", "mask", "first", "axis"), "spoke"),
    ("Slice", ("members", "first", "end", "axis"), "chances"),
    ("Max", ("chances", "small"), "clipped"),
    ("Log", ("clipped",), "logs"),
    ("Mul", ("logs", "spoke"), "own"),
    ("Sub", ("one", "spoke"), "silent"),
    ("Mul", ("silent", "base"), "known"),
    ("Add", ("own", "known"), "start"),
    ("Add", ("start", "change"), "logits"),
    ("Softmax", ("logits",), "direction"),
)
ATTRIBUTES: dict[tuple[str, str], tuple[Attribute, ...]] = {
    ("Gemm", "alpha"): (1.0,), ("Gemm", "beta"): (1.0,), ("Gemm", "transA"): (0,), ("Gemm", "transB"): (0,),
    ("Softmax", "axis"): (1, -1),
}  # fmt: skip


class Stack(NamedTuple):
    w1: np.ndarray  # (members, hidden)
    b1: np.ndarray
    w2: np.ndarray  # (hidden, 3)
    b2: np.ndarray
    base: np.ndarray  # logits where the direction model said nothing
    small: float  # its chances are taken as this at least


def read_stack(data: bytes, members: int, first: int) -> Stack:
    """Of a whole file, whose row has the direction model's chances from `first` on, its mask before them."""
    graph = read_graph(data)
    tensors = dict(graph.tensors)
    if len(graph.nodes) != len(GRAPH):
        raise Unfit(f"it has {len(graph.nodes)} nodes, not {len(GRAPH)}")
    names = {"members": "members", "direction": "direction"}
    for node, (op, inputs, output) in zip(graph.nodes, GRAPH, strict=True):
        _match(node, op, (*inputs, output), names)
    found = {own: tensors[name].astype("f8") for own, name in names.items() if name in tensors}
    hidden = len(found["b1"]) if "b1" in found else 0
    shapes = {"w1": (members, hidden), "b1": (hidden,), "w2": (hidden, 3), "b2": (3,), "base": (1, 3)}
    for name, shape in shapes.items():
        if name not in found or found[name].shape != shape:
            raise Unfit(f"{names[name]}: expected a constant of shape {shape}")
    numbers = {"mask": first - 1, "first": first, "end": first + 3, "axis": 1, "one": 1}
    for name, number in numbers.items():
        if name not in found or found[name].ravel().tolist() != [number]:
            raise Unfit(f"{names[name]}: expected a constant of {number}")
    if "small" not in found or found["small"].size != 1:
        raise Unfit(f"{names['small']}: expected a constant of one number")
    return Stack(found["w1"], found["b1"], found["w2"], found["b2"], found["base"][0], float(found["small"].ravel()[0]))


def _match(node: Node, op: str, own: tuple[str, ...], names: dict[str, str]) -> None:
    """Takes the node's names for ours; a name stands for one thing throughout."""
    theirs = (*node.inputs, *node.outputs)
    if node.op != op or len(theirs) != len(own):
        raise Unfit(f"{node.shown}: expected {op} of {len(own) - 1} inputs here")
    for mine, name in zip(own, theirs, strict=True):
        if names.setdefault(mine, name) != name:
            raise Unfit(f"{node.shown}: expected {names[mine]}, found {name}")
    for key, value in node.attributes.items():
        if value not in ATTRIBUTES.get((op, key), ()):
            raise Unfit(f"{node.shown}: {key}: expected another value than {value!r}, or none")


@kernel
def stack(w1, b1, w2, b2, base, small, row, first, hidden, out):
    """Chances of sell, hold and buy."""
    for n in range(len(hidden)):
        total = b1[n]
        for m in range(len(row)):
            total += row[m] * w1[m, n]
        hidden[n] = np.tanh(total)
    spoke, high = row[first - 1], -np.inf
    for k in range(3):
        chance = row[first + k]
        if chance < small:
            chance = small
        total = np.log(chance) * spoke + (1.0 - spoke) * base[k] + b2[k]
        for n in range(len(hidden)):
            total += hidden[n] * w2[n, k]
        out[k] = total
        high = max(high, total)
    total = 0.0
    for k in range(3):
        out[k] = np.exp(out[k] - high)
        total += out[k]
    for k in range(3):
        out[k] /= total

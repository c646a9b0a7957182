"""Stacked LSTMs that the engine runs by itself: which ONNX graphs these are, and their weights.

Owns the shape that fits, which is what `engine.training` exports: rows, transposed to time first; LSTM layers forward,
with ONNX's own activations, each reading what the one below gave; of the last layer the last step; from it `move`,
linear, and `rise`, through a sigmoid. Run by workers at load and by `check`. Reads an artefact's bytes. What must stay
true: a graph that is any other way, in one attribute even, is `Unfit` with a reason, and ONNX Runtime runs it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from engine.inference.models.onnx_graph import Attribute, Graph, Node, Unfit, read_graph
from fastpath.lstm import Network

DEFAULTS: dict[str, dict[str, Attribute]] = {  # what an attribute may say, if it is there
    "LSTM": {
        "direction": b"forward",
        "activations": (b"Sigmoid", b"Tanh", b"Tanh"),
        "input_forget": 0,
        "layout": 0,
    },
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0},
}
READ = {"LSTM": ("hidden_size",), "Gemm": ("transB",), "Squeeze": ("axes",), "Transpose": ("perm",)}
PROBES = 8  # windows
LSTM_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


class Weights(NamedTuple):
    """In ONNX's order of gates: input, output, forget, cell."""

    layers: list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # w, r, both biases in one
    head_w: np.ndarray
    head_bias: np.ndarray
    linear: int

    def network(self, window: int, portable: bool = False) -> Network:
        try:
            return Network(self.layers, self.head_w, self.head_bias, self.linear, window, portable)
        except ValueError as error:
            raise Unfit(str(error)) from error


def read_weights(data: bytes, rows: str = "rows", plain: str = "move", chances: str = "rise") -> Weights:
    """Of a whole file, whose tensors have these names; Unfit where its graph is another."""
    return _Walk(read_graph(data)).weights(rows, plain, chances)


class _Walk:
    """Along a graph, from its input to its outputs; each node is met once."""

    def __init__(self, graph: Graph) -> None:
        self.tensors = dict(graph.tensors)
        self.left = list(graph.nodes)
        for node in [node for node in self.left if node.op == "Constant" and "value" in node.attributes]:
            value = node.attributes["value"]
            if isinstance(value, np.ndarray):
                self.tensors[node.outputs[0]] = value
                self.left.remove(node)

    def weights(self, rows: str, plain: str, chances: str) -> Weights:
        transpose = self._next("Transpose", rows)
        if transpose.attributes.get("perm") != (1, 0, 2):
            raise Unfit(f"{transpose.shown}: expected perm 1, 0, 2, which puts time first")
        layers, at, last = [], transpose.outputs[0], ""
        while not last:
            node = self._next("LSTM", at)
            layers.append(self._layer(node))
            whole, last = (*node.outputs, "", "")[:2]
            if self._is_read(whole):
                at, last = self._squeezed(whole, 1), ""
        state = self._squeezed(last, 0)
        heads = [self._head(state, plain), self._head(state, chances, "Sigmoid")]
        if self.left:
            raise Unfit(f"{self.left[0].shown}: expected nothing beside the layers and the heads")
        head_w = np.concatenate([w for w, _ in heads])
        return Weights(layers, head_w, np.concatenate([bias for _, bias in heads]), len(heads[0][1]))

    def _is_read(self, name: str) -> bool:
        return bool(name) and any(name in node.inputs for node in self.left)

    def _next(self, op: str, name: str, output: str = "") -> Node:
        """The node that reads `name`, and writes `output` where one is named; its attributes are all known."""
        found = [
            node
            for node in self.left
            if node.inputs and node.inputs[0] == name and (not output or node.outputs[0] == output)
        ]
        if not found or found[0].op != op:
            raise Unfit(f"{found[0].shown if found else name}: expected {op} here")
        node = found[0]
        self.left.remove(node)
        for key, value in node.attributes.items():
            if key in READ.get(op, ()):
                continue
            expected = DEFAULTS.get(op, {}).get(key)
            if expected is None or value != expected:
                raise Unfit(f"{node.shown}: {key}: expected {_shown(expected)}, found {_shown(value)}")
        return node

    def _tensor(self, node: Node, number: int, dims: int, what: str) -> np.ndarray:
        found = self.tensors.get(node.inputs[number] if number < len(node.inputs) else "")
        if found is None or found.dtype.kind not in "fi" or found.ndim != dims:
            raise Unfit(f"{node.shown}: {what}: expected a constant of {dims} dimensions")
        return found

    def _layer(self, node: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w, r = self._tensor(node, 1, 3, "W"), self._tensor(node, 2, 3, "R")
        size = node.attributes.get("hidden_size")
        if w.shape[0] != 1 or r.shape != (1, w.shape[1], w.shape[1] // 4) or size not in (None, r.shape[2]):
            raise Unfit(
                f"{node.shown}: expected weights of one direction with {size!r} units, found {w.shape} and {r.shape}"
            )
        bias = np.zeros(w.shape[1], "f4")
        if len(node.inputs) > 3 and node.inputs[3]:
            both = self._tensor(node, 3, 2, "B")
            if both.shape != (1, 2 * w.shape[1]):
                raise Unfit(f"{node.shown}: B: expected shape {(1, 2 * w.shape[1])}, found {both.shape}")
            bias = both[0, : w.shape[1]] + both[0, w.shape[1] :]
        for number, what in list(enumerate(LSTM_INPUTS))[4:]:
            if number < len(node.inputs) and node.inputs[number]:
                state = self.tensors.get(node.inputs[number])
                if not what.startswith("initial") or state is None or state.dtype.kind != "f" or state.any():
                    raise Unfit(f"{node.shown}: {what}: expected none")
        return w[0], r[0], bias

    def _squeezed(self, name: str, axis: int) -> str:
        node = self._next("Squeeze", name)
        axes = node.attributes.get("axes")
        if axes is None:
            axes = tuple(self._tensor(node, 1, 1, "axes").tolist())
        if axes != (axis,):
            raise Unfit(f"{node.shown}: expected axis {axis}, found {_shown(axes)}")
        return node.outputs[0]

    def _head(self, state: str, output: str, *after: str) -> tuple[np.ndarray, np.ndarray]:
        """A Gemm of the last state, whose name may be another one's before a last node."""
        names = [node.inputs[0] for node in self.left if node.outputs[0] == output and node.op in after and node.inputs]
        gemm = self._next("Gemm", state, names[0] if after and names else output)
        for op in after:
            self._next(op, gemm.outputs[0], output)
        w, bias = self._tensor(gemm, 1, 2, "B"), self._tensor(gemm, 2, 1, "C")
        return (w if gemm.attributes.get("transB", 0) else w.T), bias


def _shown(value: Attribute | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def difference(own: Network, oracle: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> float:
    """The largest one to another's answers over some made-up windows, relative where those are above one."""
    rng, out = np.random.default_rng(seed), np.zeros((2, PROBES, own.outputs), "f4")
    for n in range(PROBES):
        rows = rng.normal(0.0, 2.0, (own.window, own.inputs)).astype("f4")
        own.run(rows, out[0, n])
        out[1, n] = oracle(rows)
    return float((np.abs(out[0] - out[1]) / np.maximum(np.abs(out[1]), 1.0)).max())

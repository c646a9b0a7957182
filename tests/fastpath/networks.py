"""Made-up LSTMs, their plain twin in float64, and one slot's arrays around a `Lanes`."""

from typing import Any, NamedTuple

import numpy as np

from fastpath.lanes import Lanes
from fastpath.lstm import Network

LINEAR = 3
OUTPUTS = 5


class Made(NamedTuple):
    """What a Network is made of."""

    layers: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    head_w: np.ndarray
    head_bias: np.ndarray

    def network(self, window: int, portable: bool = False) -> Network:
        return Network(*self, LINEAR, window, portable)


def made(rng: np.random.Generator, inputs: int, units: tuple[int, ...], scale: float = 1.0) -> Made:
    layers, wide = [], inputs
    for each in units:
        w = rng.normal(0, scale / np.sqrt(wide), (4 * each, wide))
        r = rng.normal(0, scale / np.sqrt(each), (4 * each, each))
        layers.append((w.astype("f4"), r.astype("f4"), rng.normal(0, 0.3, 4 * each).astype("f4")))
        wide = each
    head = rng.normal(0, 1 / np.sqrt(wide), (OUTPUTS, wide)).astype("f4")
    return Made(layers, head, rng.normal(0, 0.1, OUTPUTS).astype("f4"))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def twin(of: Made, rows: np.ndarray) -> np.ndarray:
    """The whole window by the formulas, in float64."""
    x = rows.astype("f8")
    for w, r, bias in of.layers:
        h = c = np.zeros(r.shape[1])
        out = []
        for row in x:
            i, o, f, g = np.split(w.astype("f8") @ row + r.astype("f8") @ h + bias, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            out.append(h)
        x = np.array(out)
    y = of.head_w.astype("f8") @ x[-1] + of.head_bias
    return np.concatenate([y[:LINEAR], sigmoid(y[LINEAR:])])


def whole(network: Network, rows: np.ndarray) -> np.ndarray:
    out = np.zeros(network.outputs, "f4")
    network.run(np.ascontiguousarray(rows), out)
    return out


class Slot:
    """A microbatch of one, over a Lanes of its own."""

    def __init__(
        self, network: Network, blocks: int = 4, keys: int = 8, columns: Any = None, features: int = 0
    ) -> None:
        columns = np.arange(network.inputs) if columns is None else np.asarray(columns)
        features = features or network.inputs
        self.lanes = Lanes(network, blocks)
        self.lanes.reset(keys)
        self.columns = columns
        self.rows, self.closing = np.zeros((1, network.window, features), "f4"), np.zeros((1, features), "f4")
        self.key, self.step, self.generation = np.zeros(1, "i8"), np.zeros(1, "i8"), np.ones(1, "u4")
        self.plain, self.chances = np.zeros((1, network.linear)), np.zeros((1, network.outputs - network.linear))
        self.lanes.bind(
            self.rows, columns, self.closing, self.key, self.generation, self.step, self.plain, self.chances
        )

    def ask(self, rows: np.ndarray, key: int, step: int, generation: int = 1, closing: Any = None) -> np.ndarray:
        self.rows[0], self.key[0], self.step[0], self.generation[0] = rows, key, step, generation
        self.closing[0] = rows[-1] if closing is None else closing
        self.lanes.run([0])
        return np.concatenate([self.plain[0], self.chances[0]]).astype("f4")

    def expected(self, rows: np.ndarray) -> np.ndarray:
        return whole(self.lanes.network, rows[:, self.columns])

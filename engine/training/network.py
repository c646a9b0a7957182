"""Small networks in JAX: how they are fitted, for both the LSTM and the CNN.

Owns the training loop; run by `python -m engine.training`. Reads arrays, returns parameters. What
must stay true: the same seed and data give the same parameters on the same machine.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Parameters = dict[str, Any]


def lstm_parameters(seed: int, inputs: int, hidden: int, outputs: int) -> Parameters:
    """Gates in ONNX's order: input, output, forget, cell."""
    rng = np.random.default_rng(seed)
    bias = np.zeros(4 * hidden, "f4")
    bias[2 * hidden : 3 * hidden] = 1.0
    return {
        "w": rng.normal(0, 1 / np.sqrt(inputs), (4 * hidden, inputs)).astype("f4") * 0.5,
        "r": rng.normal(0, 1 / np.sqrt(hidden), (4 * hidden, hidden)).astype("f4"),
        "b": bias,
        "move_w": np.zeros((hidden, outputs), "f4"),
        "move_b": np.zeros(outputs, "f4"),
        "rise_w": np.zeros((hidden, outputs), "f4"),
        "rise_b": np.zeros(outputs, "f4"),
    }


def lstm(parameters: Parameters, x: Any) -> tuple[Any, Any]:
    """x: (n, steps, inputs) -> medians and logits of a rise, (n, horizons) each."""
    hidden = parameters["r"].shape[1]

    def step(state: Any, row: Any) -> Any:
        h, c = state
        gates = row @ parameters["w"].T + h @ parameters["r"].T + parameters["b"]
        i, o, f, g = jnp.split(gates, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    zero = jnp.zeros((x.shape[0], hidden))
    (h, _), _ = jax.lax.scan(step, (zero, zero), jnp.swapaxes(x, 0, 1))
    return h @ parameters["move_w"] + parameters["move_b"], h @ parameters["rise_w"] + parameters["rise_b"]


def cnn_parameters(seed: int, patterns: int) -> Parameters:
    rng = np.random.default_rng(seed)
    return {
        "k1": rng.normal(0, 1 / 3, (8, 1, 3, 3)).astype("f4"),
        "b1": np.zeros(8, "f4"),
        "k2": rng.normal(0, 1 / 8, (16, 8, 3, 3)).astype("f4"),
        "b2": np.zeros(16, "f4"),
        "w": rng.normal(0, 1 / 32, (16 * 4 * 16, patterns)).astype("f4"),
        "b": np.full(patterns, -3.0, "f4"),
    }


def cnn(parameters: Parameters, image: Any) -> Any:
    """image: (n, 1, 16, 64) -> logits (n, patterns)."""
    pads = [(1, 1), (1, 1)]
    x = jax.lax.conv_general_dilated(image, parameters["k1"], (2, 2), pads)
    x = jax.nn.relu(x + parameters["b1"][:, None, None])
    x = jax.lax.conv_general_dilated(x, parameters["k2"], (2, 2), pads)
    x = jax.nn.relu(x + parameters["b2"][:, None, None])
    return x.reshape(x.shape[0], -1) @ parameters["w"] + parameters["b"]


def fit(
    parameters: Parameters,
    loss: Callable[..., Any],
    arrays: tuple[np.ndarray, ...],
    seed: int,
    epochs: int,
    report: Callable[[str], None],
    rate: float = 2e-3,
    size: int = 256,
) -> Parameters:
    """AdamW with a rate that falls to zero; `loss(parameters, *rows)`."""
    count = len(arrays[0])
    steps = epochs * (count // size)
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-3)

    @jax.jit
    def update(now: Parameters, state: Any, rows: tuple[Any, ...]) -> Any:
        value, gradient = jax.value_and_grad(loss)(now, *rows)
        changes, state = optimizer.update(gradient, state, now)
        return optax.apply_updates(now, changes), state, value

    rng = np.random.default_rng(seed)
    now, state = jax.tree.map(jnp.asarray, parameters), optimizer.init(parameters)
    for epoch in range(epochs):
        order, total = rng.permutation(count), 0.0
        for first in range(0, count - size + 1, size):
            rows = order[first : first + size]
            now, state, value = update(now, state, tuple(each[rows] for each in arrays))
            total += float(value)
        report(f"epoch {epoch + 1}/{epochs}, loss {total / (count // size):.4f}")
    return jax.tree.map(np.asarray, now)


def predict(function: Callable[..., Any], parameters: Parameters, x: np.ndarray, size: int = 2048) -> list[np.ndarray]:
    """In chunks, so that memory stays small."""
    run = jax.jit(function)
    chunks = []
    for first in range(0, len(x), size):
        out = run(parameters, x[first : first + size])
        chunks.append([np.asarray(each) for each in (out if isinstance(out, tuple) else (out,))])
    return [np.concatenate(each) for each in zip(*chunks, strict=True)]

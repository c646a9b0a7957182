"""Small networks in JAX: how they are fitted, for the LSTMs.

Owns the training loop; run by `python -m engine.training`. Reads arrays, returns parameters and the
losses on the way. What must stay true: the same seed and data give the same parameters on the same machine.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Parameters = dict[str, Any]
Disturb = Callable[..., tuple[np.ndarray, ...]]  # (rng, *rows) -> rows


class Fitted(NamedTuple):
    """A network, and how its losses went, one number an epoch."""

    parameters: Parameters
    loss: list[float]  # mean over the epoch's batches
    watched: list[float]  # on the watched rows at the epoch's end; empty where there are none


def lstm_parameters(seed: int, inputs: int, layers: Sequence[int], outputs: int) -> Parameters:
    """Gates in ONNX's order: input, output, forget, cell. Layer k has w, r and b of its own: w0, r0, b0, w1 ..."""
    rng = np.random.default_rng(seed)
    out: Parameters = {}
    for k, hidden in enumerate(layers):
        bias = np.zeros(4 * hidden, "f4")
        bias[2 * hidden : 3 * hidden] = 1.0
        out[f"w{k}"] = rng.normal(0, 1 / np.sqrt(inputs), (4 * hidden, inputs)).astype("f4") * 0.5
        out[f"r{k}"] = rng.normal(0, 1 / np.sqrt(hidden), (4 * hidden, hidden)).astype("f4")
        out[f"b{k}"] = bias
        inputs = hidden
    for name in ("move", "rise"):
        out[f"{name}_w"] = np.zeros((inputs, outputs), "f4")
        out[f"{name}_b"] = np.zeros(outputs, "f4")
    return out


def layers_of(parameters: Mapping[str, Any]) -> int:
    return sum(name.startswith("r") and name[1:].isdigit() for name in parameters)


def lstm(parameters: Parameters, x: Any) -> tuple[Any, Any]:
    """x: (n, steps, inputs) -> medians and logits of a rise, (n, horizons) each. A step knows itself and the past."""
    count = layers_of(parameters)

    def step(states: Any, row: Any) -> Any:
        after = []
        for k in range(count):
            h, c = states[k]
            gates = row @ parameters[f"w{k}"].T + h @ parameters[f"r{k}"].T + parameters[f"b{k}"]
            i, o, f, g = jnp.split(gates, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            row = jax.nn.sigmoid(o) * jnp.tanh(c)
            after.append((row, c))
        return tuple(after), None

    sizes = [parameters[f"r{k}"].shape[1] for k in range(count)]
    start = tuple((jnp.zeros((x.shape[0], size)), jnp.zeros((x.shape[0], size))) for size in sizes)
    states, _ = jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))
    last = states[-1][0]
    return last @ parameters["move_w"] + parameters["move_b"], last @ parameters["rise_w"] + parameters["rise_b"]


def fit(
    parameters: Parameters,
    loss: Callable[..., Any],
    arrays: tuple[np.ndarray, ...],
    seed: int,
    epochs: int,
    report: Callable[[str], None],
    rate: float = 2e-3,
    size: int = 256,
    disturb: Disturb | None = None,
    watch: tuple[np.ndarray, ...] | None = None,
    share: float = 1.0,
) -> Fitted:
    """AdamW with a rate that falls to zero; `loss(parameters, *rows)`.

    Parameters
    ----------
    disturb : changes each batch at random before it is learned
    watch : rows that are not learned; what is returned is the epoch's end that loses least on them, and training
        stops after two epochs that were worse
    share : of the rows that an epoch takes, others each time
    """
    count = int(share * len(arrays[0]))
    steps = epochs * (count // size)
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-3)

    @jax.jit
    def update(now: Parameters, state: Any, rows: tuple[Any, ...]) -> Any:
        value, gradient = jax.value_and_grad(loss)(now, *rows)
        changes, state = optimizer.update(gradient, state, now)
        return optax.apply_updates(now, changes), state, value

    judge = jax.jit(loss)
    rng = np.random.default_rng(seed)
    now, state = jax.tree.map(jnp.asarray, parameters), optimizer.init(parameters)
    best, best_loss, worse = now, np.inf, 0
    losses: list[float] = []
    watched: list[float] = []
    for epoch in range(epochs):
        order, total = rng.permutation(len(arrays[0])), 0.0
        for first in range(0, count - size + 1, size):
            rows = tuple(each[order[first : first + size]] for each in arrays)
            now, state, value = update(now, state, disturb(rng, *rows) if disturb else rows)
            total += float(value)
        losses.append(total / (count // size))
        seen = float(judge(now, *watch)) if watch else -float(epoch)
        watched += [seen] if watch else []
        report(f"epoch {epoch + 1}/{epochs}, loss {losses[-1]:.4f}" + (f", watched {seen:.4f}" * bool(watch)))
        best, best_loss, worse = (now, seen, 0) if seen < best_loss else (best, best_loss, worse + 1)
        if worse == 2:
            break
    return Fitted(jax.tree.map(np.array, best), losses, watched)


def predict(function: Callable[..., Any], parameters: Parameters, x: np.ndarray, size: int = 2048) -> list[np.ndarray]:
    """In chunks, so that memory stays small."""
    run = jax.jit(function)
    chunks = []
    for first in range(0, len(x), size):
        out = run(parameters, x[first : first + size])
        chunks.append([np.asarray(each) for each in (out if isinstance(out, tuple) else (out,))])
    return [np.concatenate(each) for each in zip(*chunks, strict=True)]

"""The networks that look at pictures of a path: how they are built, fitted and written as ONNX.

Owns their two plans and the fitting; run by `python -m engine.training`. Reads lessons, returns
parameters and how the loss fell. What must stay true: pictures are drawn by the kernels that workers use, one batch
at a time; the same seed and data give the same parameters on the same machine.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from onnx import TensorProto, helper

from engine.inference.image import PICTURES
from engine.training.artefacts import model_bytes, tensor
from engine.training.lessons import Lessons

Parameters = dict[str, Any]
BATCH = 256
AXES = ("NHWC", "HWIO", "NHWC")  # several times faster on a processor than ONNX's order


class Layer(NamedTuple):
    """One convolution, square, and ReLU."""

    size: int
    stride: int
    pad: int
    filters: int


class Plan(NamedTuple):
    picture: str  # of PICTURES
    layers: tuple[Layer, ...]
    hidden: int  # units between the last convolution and the outputs; 0: none

    @property
    def flat(self) -> tuple[int, int, int]:
        """Height, width and filters of the last convolution."""
        _, _, height, width = PICTURES[self.picture].shape
        for layer in self.layers:
            height, width = ((each + 2 * layer.pad - layer.size) // layer.stride + 1 for each in (height, width))
        return height, width, self.layers[-1].filters


SMALL = Plan("image", (Layer(8, 4, 2, 24), Layer(3, 2, 1, 48)), 64)
FINE = Plan("image_fine", (Layer(4, 4, 0, 16), Layer(3, 2, 1, 32), Layer(3, 2, 1, 48)), 64)


def new_parameters(plan: Plan, seed: int, outputs: int) -> Parameters:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, np.sqrt(2.0 / np.prod(shape[:-1])), shape).astype("f4")

    out: Parameters = {}
    channels = PICTURES[plan.picture].shape[1]
    for n, layer in enumerate(plan.layers):
        out[f"k{n}"], out[f"b{n}"] = (
            normal(layer.size, layer.size, channels, layer.filters),
            np.zeros(layer.filters, "f4"),
        )
        channels = layer.filters
    width = int(np.prod(plan.flat))
    if plan.hidden:
        out["hidden_w"], out["hidden_b"] = normal(width, plan.hidden), np.zeros(plan.hidden, "f4")
        width = plan.hidden
    out["w"], out["b"] = 0.3 * normal(width, outputs), np.full(outputs, -3.0, "f4")
    return out


def network(plan: Plan, parameters: Parameters, picture: Any) -> Any:
    """picture: (n, height, width, layers) -> logits (n, outputs)."""
    x = picture
    for n, layer in enumerate(plan.layers):
        pads = [(layer.pad, layer.pad)] * 2
        steps = (layer.stride, layer.stride)
        x = jax.lax.conv_general_dilated(x, parameters[f"k{n}"], steps, pads, dimension_numbers=AXES)
        x = jax.nn.relu(x + parameters[f"b{n}"])
    x = x.reshape(x.shape[0], -1)
    if plan.hidden:
        x = jax.nn.relu(x @ parameters["hidden_w"] + parameters["hidden_b"])
    return x @ parameters["w"] + parameters["b"]


def drawn(plan: Plan, paths: np.ndarray) -> np.ndarray:
    """(n, 64) mids -> (n, height, width, layers)."""
    picture = PICTURES[plan.picture]
    out = np.zeros((len(paths), *picture.shape[1:]), "f4")
    for path, image in zip(paths, out, strict=True):
        picture.draw(path, image.reshape(picture.canvas))
    return np.ascontiguousarray(out.transpose(0, 2, 3, 1))


class Fitted(NamedTuple):
    parameters: Parameters
    loss: list[float]  # of each epoch, on what taught
    watched_loss: list[float]  # after each epoch, on what did not


def watched_loss(plan: Plan, parameters: Parameters, watched: Lessons) -> float:
    """The loss that is fitted, on lessons that teach nothing."""
    logit = logits(plan, parameters, watched.path)
    loss = np.logaddexp(0.0, np.where(watched.target > 0, -logit, logit)).sum(axis=1)
    return float((watched.weight * loss).sum() / watched.weight.sum())


def fit(
    plan: Plan,
    taught: Lessons,
    watched: Lessons,
    *,
    seed: int,
    epochs: int,
    report: Callable[[str], None],
    rate: float = 2e-3,
) -> Fitted:
    """AdamW with a rate that falls to zero, on the cross entropy of every pattern."""
    count = len(taught.path) // BATCH
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, epochs * count), weight_decay=1e-3)

    def loss(parameters: Parameters, picture: Any, y: Any, w: Any) -> Any:
        logit = network(plan, parameters, picture)
        return (w[:, None] * jax.nn.softplus(jnp.where(y > 0, -logit, logit))).sum() / w.sum()

    @jax.jit
    def update(now: Parameters, state: Any, *rows: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(now, *rows)
        changes, state = optimizer.update(gradient, state, now)
        return optax.apply_updates(now, changes), state, value

    rng = np.random.default_rng(seed)
    now: Any = jax.tree.map(jnp.asarray, new_parameters(plan, seed, taught.target.shape[1]))
    state, losses, watching = optimizer.init(now), [], []
    for epoch in range(epochs):
        order, total = rng.permutation(len(taught.path)), 0.0
        for first in range(0, count * BATCH, BATCH):
            path, target, weight = (each[order[first : first + BATCH]] for each in taught)
            now, state, value = update(now, state, drawn(plan, path), target, weight)
            total += float(value)
        losses.append(total / count)
        watching.append(watched_loss(plan, now, watched))
        report(f"epoch {epoch + 1}/{epochs}, loss {losses[-1]:.4f}, watched {watching[-1]:.4f}")
    return Fitted({name: np.array(each) for name, each in now.items()}, losses, watching)


def logits(plan: Plan, parameters: Parameters, paths: np.ndarray) -> np.ndarray:
    run = jax.jit(lambda now, picture: network(plan, now, picture))
    chunks = [paths[first : first + 2048] for first in range(0, len(paths), 2048)]
    return np.concatenate([np.asarray(run(parameters, drawn(plan, each))) for each in chunks]).astype("f8")


def onnx_bytes(plan: Plan, parameters: Mapping[str, np.ndarray]) -> bytes:
    """The same network in ONNX's order of axes, with chances in place of logits."""
    tensors, nodes, last = [], [], "image"
    for n, layer in enumerate(plan.layers):
        kernel = parameters[f"k{n}"].transpose(3, 2, 0, 1)
        tensors += [tensor(f"k{n}", kernel), tensor(f"b{n}", parameters[f"b{n}"])]
        given: dict[str, Any] = {"strides": [layer.stride] * 2, "pads": [layer.pad] * 4}
        nodes.append(helper.make_node("Conv", [last, f"k{n}", f"b{n}"], [f"c{n}"], **given))
        nodes.append(helper.make_node("Relu", [f"c{n}"], [f"r{n}"]))
        last = f"r{n}"
    nodes.append(helper.make_node("Flatten", [last], ["flat"]))
    names = ("hidden_w", "hidden_b", "w", "b") if plan.hidden else ("w", "b")
    for n, name in enumerate(names):
        values = parameters[name]
        if n == 0:
            values = values.reshape(*plan.flat, -1).transpose(2, 0, 1, 3).reshape(values.shape)
        tensors.append(tensor(name, values))
    last = "flat"
    if plan.hidden:
        nodes.append(helper.make_node("Gemm", ["flat", "hidden_w", "hidden_b"], ["hidden"]))
        nodes.append(helper.make_node("Relu", ["hidden"], ["seen"]))
        last = "seen"
    nodes.append(helper.make_node("Gemm", [last, "w", "b"], ["logit"]))
    nodes.append(helper.make_node("Sigmoid", ["logit"], ["pattern"]))
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(PICTURES[plan.picture].shape))]
    outputs = [helper.make_tensor_value_info("pattern", TensorProto.FLOAT, [1, parameters["w"].shape[1]])]
    return model_bytes(nodes, "cnn", inputs, outputs, tensors)

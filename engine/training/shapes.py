"""simple_pattern: the chance that each of seven chart patterns' rules holds at the last closed minute.

Owns its fit, calibration and card; run by `python -m engine.training`. What must stay true: it is
fitted on the training part, its chances and rates come from the calibration part, and it is judged on
the test part alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.optimize import minimize

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.ensemble import PATTERN_SHOWN, POINTS
from engine.inference.image import HEIGHT, draw
from engine.training import artefacts, cards, network
from engine.training.data import Examples
from engine.training.patterns import NAMES, label
from engine.training.price import source

EPOCHS = 8
SEED = 20260102
WEIGHT = 0.1
TARGET = 0.5  # of the window's range
COMPLETION = 16  # minutes
PRIOR = 50.0  # examples that a rate of a rare signal is worth beforehand


def images(paths: np.ndarray) -> np.ndarray:
    out = np.zeros((len(paths), 1, HEIGHT, IMAGE_MINUTES), "f4")
    for path, image in zip(paths, out, strict=True):
        draw(path, image[0])
    return out


def loss(parameters: Any, image: Any, target: Any) -> Any:
    logit = network.cnn(parameters, image)
    return jax.nn.softplus(jax.numpy.where(target > 0, -logit, logit)).mean()


def calibrate(parameters: network.Parameters, logit: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Platt's two numbers a pattern, folded into the last layer; returns the calibrated logits."""
    out = np.empty_like(logit)
    for k in range(target.shape[1]):
        sign = np.where(target[:, k] > 0, -1.0, 1.0)

        def cost(ab: np.ndarray, k: int = k, sign: np.ndarray = sign) -> float:
            return float(np.logaddexp(0.0, sign * (ab[0] * logit[:, k] + ab[1])).mean())

        a, b = minimize(cost, np.array([1.0, 0.0]), method="Nelder-Mead").x
        parameters["w"][:, k] *= a
        parameters["b"][k] = a * parameters["b"][k] + b
        out[:, k] = a * logit[:, k] + b
    return out


def ways(path: np.ndarray, mid: np.ndarray) -> np.ndarray:
    """(n, 7): +1 or -1, where each pattern points, by the same rule as an answer."""
    drift = np.where(mid >= path[:, 0], 1.0, -1.0)[:, None]
    return np.where(np.abs(POINTS) == 1, POINTS, drift * POINTS / 2)


def touched(mid: np.ndarray, height: np.ndarray, way: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Whether the target is touched in time and before the mirror stop; NaN where the closes end before either."""
    ahead = (future[:, :COMPLETION] - mid[:, None]) * way[:, None]
    hit, stop = ahead >= height[:, None], ahead <= -height[:, None]
    first_hit = np.where(hit.any(1), hit.argmax(1), COMPLETION)
    first_stop = np.where(stop.any(1), stop.argmax(1), COMPLETION)
    unknown = np.isnan(ahead).any(1) & ~hit.any(1) & ~stop.any(1)
    return np.where(unknown, np.nan, (first_hit < first_stop).astype(float))


def signals(chance: np.ndarray, way: np.ndarray) -> np.ndarray:
    """0 sell, 1 hold, 2 buy, of the likeliest shown pattern."""
    best = chance.argmax(1)
    shown = chance.max(1) > PATTERN_SHOWN
    return np.where(shown, np.where(np.take_along_axis(way, best[:, None], 1)[:, 0] > 0, 2, 0), 1)


def rates(signal: np.ndarray, label15: np.ndarray, move1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What came true after each signal, drawn towards what comes true after any."""
    known = label15 >= 0
    overall = np.bincount(label15[known], minlength=3) / known.sum()
    moved = np.isfinite(move1) & (move1 != 0.0)
    labels, rises = np.empty((3, 3)), np.empty(3)
    for s in range(3):
        chosen = label15[known & (signal == s)]
        labels[s] = (np.bincount(chosen, minlength=3) + PRIOR * overall) / (len(chosen) + PRIOR)
        after = move1[moved & (signal == s)] > 0.0
        rises[s] = (after.sum() + PRIOR * 0.5) / (len(after) + PRIOR)
    return labels, rises


def walk_rate(fitted: network.Parameters) -> np.ndarray:
    """How often each pattern is shown on random walks, where none means anything."""
    walks = np.exp(np.cumsum(np.random.default_rng(SEED).normal(0, 1e-4, (10_000, IMAGE_MINUTES)), axis=1))
    (logit,) = network.predict(network.cnn, fitted, images(walks))
    return (logit > np.log(PATTERN_SHOWN / (1 - PATTERN_SHOWN))).mean(0)


def train(examples: Examples, store: Path, report: Callable[[str], None]) -> None:
    ready = examples.depth >= IMAGE_MINUTES
    part = {name: np.flatnonzero(ready & (examples.part == name)) for name in ("train", "calibration", "test")}
    image = {name: images(examples.path[rows]) for name, rows in part.items()}
    target = {name: label(examples.path[rows]) for name, rows in part.items()}
    fitted = network.fit(
        network.cnn_parameters(SEED, len(NAMES)),
        loss,
        (image["train"], target["train"].astype("f4")),
        SEED,
        EPOCHS,
        report,
    )
    fitted = {name: np.array(each) for name, each in fitted.items()}
    rows = part["calibration"]
    logit = calibrate(fitted, network.predict(network.cnn, fitted, image["calibration"])[0], target["calibration"])
    chance = 1.0 / (1.0 + np.exp(-logit))
    path, mid = examples.path[rows], examples.mid[rows]
    way, height = ways(path, mid), TARGET * (path.max(1) - path.min(1))
    labels, rises = rates(signals(chance, way), examples.label[rows], examples.move[rows, 0])
    touch = np.empty(len(NAMES))
    for k in range(len(NAMES)):
        hit = touched(mid, height, way[:, k], examples.future[rows])
        base, shown = np.nanmean(hit), hit[(chance[:, k] > PATTERN_SHOWN) & np.isfinite(hit)]
        touch[k] = (shown.sum() + PRIOR * base) / (len(shown) + PRIOR)
    (logit,) = network.predict(network.cnn, fitted, image["test"])
    quality = judge(1.0 / (1.0 + np.exp(-logit)), target["test"], walk_rate(fitted))
    manifest = {
        "id": "simple_pattern",
        "version": "1.0",
        "kind": "cnn",
        "role": "pattern",
        "features": ["image"],
        "closed_minutes": IMAGE_MINUTES,
        "outputs": ["pattern"],
        "horizons": [],
        "weight": WEIGHT,
        "calibration": {
            "label_rates": labels.ravel(),
            "rise_rates": rises,
            "height": [TARGET] * len(NAMES),
            "chance": touch,
            "minutes": [float(COMPLETION)] * len(NAMES),
        },
        "training": {**source(examples, part["train"]), "seed": SEED},
        "quality": quality,
    }
    artefacts.write(
        store,
        artefacts.cnn_bytes(fitted, len(NAMES)),
        "model.onnx",
        manifest,
        cards.pattern(quality, touch, NAMES, COMPLETION, len(part["test"])),
    )


def judge(chance: np.ndarray, target: np.ndarray, on_walks: np.ndarray) -> dict[str, list[float]]:
    rate = target.mean(0)
    return {
        "rate": list(rate),
        "shown": list((chance > PATTERN_SHOWN).mean(0)),
        "shown_on_random_walks": list(on_walks),
        "brier": list(((chance - target) ** 2).mean(0)),
        "brier_of_rate": list(rate * (1.0 - rate)),
    }

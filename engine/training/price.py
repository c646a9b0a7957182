"""basic_lstm: how far and which way the mid goes in 1, 5, 15 and 60 minutes.

Owns its loss, calibration and card; run by `python -m engine.training`. What must stay true: it is
fitted on the training part, scaled on the calibration part, and judged on the test part alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import LSTM_MINUTES
from engine.inference.features import FEATURE_NAMES
from engine.training import artefacts, cards, network
from engine.training.data import Examples

HIDDEN = 32
EPOCHS = 6
SEED = 20260101
WEIGHT = 0.2
UNKNOWN_SPREAD = -1.0  # as the features say it
SCALES = np.linspace(0.0, 1.2, 25)


def loss(parameters: Any, rows: Any, move: Any) -> Any:
    """Absolute error (proper for a median) and cross entropy of the sign, where there was a move."""
    median, logit = network.lstm(parameters, rows)
    known, moved = jnp.isfinite(move), jnp.isfinite(move) & (move != 0.0)
    y = jnp.clip(jnp.where(known, move, 0.0), -5.0, 5.0)
    distance = jnp.where(known, jnp.abs(y - median), 0.0).sum() / known.sum()
    rise = jnp.where(moved, jax.nn.softplus(jnp.where(y > 0, -logit, logit)), 0.0).sum() / moved.sum()
    return distance + rise


def withhold_spreads(rows: np.ndarray, seed: int) -> np.ndarray:
    """A copy where half of the examples know no spread before some minute, as after a price history.

    rows: (n, minutes, features).
    """
    rng = np.random.default_rng(seed)
    out = rows.copy()
    known_from = np.where(rng.random(len(rows)) < 0.5, rng.integers(1, rows.shape[1] + 1, len(rows)), 0)
    unknown = np.arange(rows.shape[1]) < known_from[:, None]
    out[unknown, FEATURE_NAMES.index("spread")] = UNKNOWN_SPREAD
    return out


def cross_entropy(logit: np.ndarray, rise: np.ndarray) -> float:
    return float(np.logaddexp(0.0, np.where(rise, -logit, logit)).mean())


def calibrate(parameters: network.Parameters, median: np.ndarray, logit: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Shrinks both heads, horizon by horizon, to what holds on data they were not fitted on. Returns q."""
    q = np.empty(move.shape[1])
    for h in range(move.shape[1]):
        known = np.isfinite(move[:, h])
        y, m, z = move[known, h], median[known, h], logit[known, h]
        scale = SCALES[np.argmin([np.abs(y - s * m).mean() for s in SCALES])]
        moved = y != 0.0
        slope = SCALES[np.argmin([cross_entropy(s * z[moved], y[moved] > 0) for s in SCALES])]
        for name, by in (("move_w", scale), ("move_b", scale), ("rise_w", slope), ("rise_b", slope)):
            parameters[name][..., h] *= by
        q[h] = np.quantile(np.abs(y - scale * m), 0.9)
    return q


def judge(median: np.ndarray, logit: np.ndarray, move: np.ndarray, q: np.ndarray) -> dict[str, list[float]]:
    """On the test part, beside what is known without a model."""
    quality: dict[str, list[float]] = {
        name: []
        for name in ("coverage", "error_share", "brier", "brier_of_half", "right", "standard_error", "right_last_move")
    }
    for h in range(move.shape[1]):
        known = np.isfinite(move[:, h])
        y, m = move[known, h], median[known, h]
        chance = 1.0 / (1.0 + np.exp(-logit[known, h]))
        moved, rise = y != 0.0, y > 0.0
        quality["coverage"].append((np.abs(y - m) <= q[h]).mean())
        quality["error_share"].append(np.abs(y - m).mean() / np.abs(y).mean())
        quality["brier"].append(((chance - rise)[moved] ** 2).mean())
        quality["brier_of_half"].append(0.25)
        quality["right"].append(((chance > 0.5) == rise)[moved].mean())
        # Outcomes of neighbouring minutes overlap: of h minutes in a row one counts.
        quality["standard_error"].append(0.5 / np.sqrt(moved.sum() / HORIZON_MINUTES[h]))
    return quality


def train(examples: Examples, store: Path, report: Callable[[str], None]) -> None:
    ready = (examples.depth >= LSTM_MINUTES) & np.isfinite(examples.move).any(1)
    part = {name: np.flatnonzero(ready & (examples.part == name)) for name in ("train", "calibration", "test")}
    rows, move = examples.rows, examples.move.astype("f4")
    start = network.lstm_parameters(SEED, len(FEATURE_NAMES), HIDDEN, len(HORIZON_MINUTES))
    known = {name: withhold_spreads(rows[part[name]], SEED) for name in ("train", "calibration")}
    fitted = network.fit(start, loss, (known["train"], move[part["train"]]), SEED, EPOCHS, report)
    fitted = {name: np.array(each) for name, each in fitted.items()}
    median, logit = network.predict(network.lstm, fitted, known["calibration"])
    q = calibrate(fitted, median, logit, move[part["calibration"]])
    median, logit = network.predict(network.lstm, fitted, rows[part["test"]])
    quality = judge(median, logit, move[part["test"]], q)
    last = np.sign(rows[part["test"], -1, 0])
    for h in range(len(HORIZON_MINUTES)):
        y = move[part["test"], h]
        moved = np.isfinite(y) & (y != 0.0) & (last != 0.0)
        quality["right_last_move"].append((np.sign(y) == last)[moved].mean())
    seen = np.concatenate([rows[part["train"], -1], examples.sigma[part["train"], None]], axis=1)
    manifest = {
        "id": "basic_lstm",
        "version": "1.0",
        "kind": "lstm",
        "role": "price",
        "features": list(FEATURE_NAMES),
        "closed_minutes": LSTM_MINUTES,
        "outputs": ["move", "rise"],
        "horizons": list(HORIZON_MINUTES),
        "weight": WEIGHT,
        "calibration": {"q": q},
        "range": {"low": np.quantile(seen, 0.00005, axis=0), "high": np.quantile(seen, 0.99995, axis=0)},
        "training": source(examples, part["train"]),
        "quality": quality,
    }
    artefacts.write(
        store,
        artefacts.lstm_bytes(fitted, len(HORIZON_MINUTES)),
        "model.onnx",
        manifest,
        cards.price(quality, q, HIDDEN, len(FEATURE_NAMES), len(part["test"])),
    )


def source(examples: Examples, rows: np.ndarray) -> dict[str, Any]:
    """Where and when the training part lies."""
    out: dict[str, Any] = {
        "data": "data/fx_m1, the first 60 % of each file's minutes",
        "seed": SEED,
        "examples": len(rows),
    }
    for symbol in np.unique(examples.symbol):
        minutes = examples.minute[rows][examples.symbol[rows] == symbol]
        first, last = (str(np.datetime64(int(each) * 60, "s")) for each in (minutes.min(), minutes.max()))
        out[str(symbol).lower()] = f"{first}Z to {last}Z"
    return out

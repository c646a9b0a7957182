"""basic_lstm and advanced_lstm: how far and which way the mid goes in 1, 5, 15 and 60 minutes.

Owns their loss, fitting and calibration; run by `python -m engine.training`. What must stay true: a
network is fitted on the training part but for its last days, which say when to stop; its heads are
scaled and its multipliers measured on the calibration part; it is judged on the test part alone, by
what the engine answers (`engine.training.live`).
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import LSTM_MINUTES
from engine.inference.features import FEATURE_NAMES
from engine.training import artefacts, controls, left_out, live, network, price_card, price_scores
from engine.training.bootstrap import When, mean_score
from engine.training.data import EMBARGO_MINUTES, SIMULTANEOUS, Examples

UNKNOWN_SPREAD = -1.0  # as the features say it
SCALES = np.linspace(0.0, 3.0, 61)  # a network that stopped early says too little
WATCHED = 0.12  # of the training part's minutes: its last ones
FAR = 5.0  # an outcome beyond says "far" and no more
INDICATORS = np.array(
    [FEATURE_NAMES.index(name) for name in ("sma_20_gap", "ema_12_gap", "ema_26_gap", "macd", "rsi_14", "atr")]
)
UNSIGNED = ("range_15", "range_60", "volatility_ratio", "atr", "spread", "gap")
MIRROR = np.array([1.0 if name in UNSIGNED else -1.0 for name in FEATURE_NAMES], "f4")


class Plan(NamedTuple):
    id: str
    version: str
    layers: tuple[int, ...]
    epochs: int
    share: float  # of the rows that an epoch takes
    seed: int
    weight: float  # in the vote


BASIC = Plan("basic_lstm", "1.0", (24,), 6, 0.5, 20260101, 0.2)
ADVANCED = Plan("advanced_lstm", "2.1", (48, 48), 5, 0.35, 20260104, 0.2)


def loss(parameters: Any, rows: Any, move: Any) -> Any:
    """Absolute error (proper for a median) and cross entropy of the sign, where there was a move."""
    median, logit = network.lstm(parameters, rows)
    known, moved = jnp.isfinite(move), jnp.isfinite(move) & (move != 0.0)
    y = jnp.clip(jnp.where(known, move, 0.0), -FAR, FAR)
    distance = jnp.where(known, jnp.abs(y - median), 0.0).sum() / known.sum()
    rise = jnp.where(moved, jax.nn.softplus(jnp.where(y > 0, -logit, logit)), 0.0).sum() / moved.sum()
    return distance + rise


def disturb(rng: np.random.Generator, rows: np.ndarray, move: np.ndarray) -> tuple[np.ndarray, ...]:
    """Half of the examples are mirrored, because no market is known to prefer a side; spreads are withheld before some
    minute from half of them, as after a price history, and each step's indicators from one in ten.

    rows: (n, minutes, features). move: (n, horizons).
    """
    side = rng.choice(np.array([-1.0, 1.0], "f4"), len(rows))
    out = np.where(side[:, None, None] < 0.0, rows * MIRROR, rows)
    known_from = np.where(rng.random(len(rows)) < 0.5, rng.integers(1, rows.shape[1] + 1, len(rows)), 0)
    out[np.arange(rows.shape[1]) < known_from[:, None], FEATURE_NAMES.index("spread")] = UNKNOWN_SPREAD
    without = rng.random(len(rows)) < 0.1
    out[np.ix_(without, np.arange(rows.shape[1]), INDICATORS)] = 0.0
    return out, move * side[:, None]


def group_of(symbol: np.ndarray) -> np.ndarray:
    """Files of the same time share a name."""
    return np.where(np.isin(symbol, SIMULTANEOUS), SIMULTANEOUS[0], symbol)


def when_of(examples: Examples, rows: np.ndarray) -> When:
    symbol = examples.symbol[rows]
    return When(examples.minute[rows], group_of(symbol), symbol)


def ready_rows(examples: Examples, part: str) -> np.ndarray:
    ready = (examples.depth >= LSTM_MINUTES) & np.isfinite(examples.move).any(1)
    return np.flatnonzero(ready & (examples.part == part))


def last_days(examples: Examples, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that teach, and the watched ones after them, hours apart."""
    group, minute = group_of(examples.symbol[rows]), examples.minute[rows]
    cut = np.zeros(len(rows), "i8")
    for each in np.unique(group):
        cut[group == each] = np.quantile(minute[group == each], 1.0 - WATCHED)
    return rows[minute < cut - EMBARGO_MINUTES], rows[minute >= cut]


def learn(
    examples: Examples, rows: np.ndarray, plan: Plan, report: Callable[[str], None], move: np.ndarray | None = None
) -> network.Fitted:
    """Fitted on some rows; `move` in place of their labels where a control wants others."""
    y = (examples.move if move is None else move).astype("f4")
    teach, watched = last_days(examples, rows)
    watched = np.random.default_rng(plan.seed).permutation(watched)[:4000]
    start = network.lstm_parameters(plan.seed, len(FEATURE_NAMES), plan.layers, len(HORIZON_MINUTES))
    return network.fit(
        start, loss, (examples.rows[teach], y[teach]), plan.seed, plan.epochs, report,
        disturb=disturb, watch=(examples.rows[watched], y[watched]), share=plan.share,
    )  # fmt: skip


def _sure_part(gain: np.ndarray, horizon: int, when: When) -> float:
    """How much of a scale found on these rows to believe: none of it where its gain is within a standard error."""
    found = mean_score(gain, horizon, when=when, draws=400)
    return max(0.0, 1.0 - (found.standard_error / found.mean) ** 2) if found.mean > 0.0 else 0.0


def cross_entropy(logit: np.ndarray, rise: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, np.where(rise, -logit, logit))


def scale_heads(
    parameters: network.Parameters, median: np.ndarray, logit: np.ndarray, move: np.ndarray, when: When
) -> tuple[np.ndarray, np.ndarray]:
    """Scales both heads, horizon by horizon, to what held on data they were not fitted on. Returns the scales.

    What is gained over no move and over one half is drawn towards nought by its own uncertainty: a scale that
    chance alone may have made is no scale.
    """
    scales = np.zeros((2, move.shape[1]))
    for h, minutes in enumerate(HORIZON_MINUTES):
        known = np.isfinite(move[:, h])
        y, m, z = move[known, h], median[known, h], logit[known, h]
        moved = y != 0.0
        here = When(when.minute[known], when.group[known], when.symbol[known] if when.symbol is not None else None)
        there = When(here.minute[moved], here.group[moved], None if here.symbol is None else here.symbol[moved])
        s = SCALES[np.argmin([np.abs(y - s * m).mean() for s in SCALES])]
        scales[0, h] = s * _sure_part(np.abs(y) - np.abs(y - s * m), minutes, here) if s > 0.0 else 0.0
        s = SCALES[np.argmin([cross_entropy(s * z[moved], y[moved] > 0).mean() for s in SCALES])]
        gain = np.log(2.0) - cross_entropy(s * z[moved], y[moved] > 0)
        scales[1, h] = s * _sure_part(gain, minutes, there) if s > 0.0 else 0.0
    apply_scales(parameters, *scales)
    return scales[0], scales[1]


def apply_scales(parameters: network.Parameters, scale: np.ndarray, slope: np.ndarray) -> None:
    for name, by in (("move", scale), ("rise", slope)):
        for end in ("w", "b"):
            parameters[f"{name}_{end}"] *= by


def bounds(examples: Examples, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Range of each feature and of the volatility, of closed minutes and open ones."""
    sigma = examples.sigma[rows, None]
    seen = np.concatenate([np.concatenate([examples.rows[rows, k], sigma], axis=1) for k in (-2, -1)])
    return {"low": np.quantile(seen, 0.00005, axis=0), "high": np.quantile(seen, 0.99995, axis=0)}


def label_view(examples: Examples, fitted: network.Parameters, rows: np.ndarray) -> list[float]:
    """For a vote on the 15-minute label: how often it is not HOLD, and the slope from a rise's logit to that of BUY."""
    known = rows[examples.label[rows] >= 0]
    touched = known[examples.label[known] != 1]
    logit = network.predict(network.lstm, fitted, examples.rows[touched])[1][:, HORIZON_MINUTES.index(15)]
    buy = examples.label[touched] == 2
    slopes = SCALES[SCALES <= 1.0]
    return [
        len(touched) / len(known),
        float(slopes[np.argmin([cross_entropy(each * logit, buy).mean() for each in slopes])]),
    ]


def train(examples: Examples, store: Path, report: Callable[[str], None], *, plan: Plan, data: Path) -> None:
    teach, steady = ready_rows(examples, "train"), ready_rows(examples, "calibration")
    fitted, loss_by_epoch, watched_loss = learn(examples, teach, plan, report)
    median, logit = network.predict(network.lstm, fitted, examples.rows[steady])
    scale, slope = scale_heads(fitted, median, logit, examples.move[steady], when_of(examples, steady))
    report(f"heads scaled by {scale.round(2).tolist()} (median) and {slope.round(2).tolist()} (rise)")
    without = left_out.networks(examples, plan, report)
    q = left_out.multipliers(examples, without, scale)
    report(f"multipliers {q.round(3).tolist()}")
    manifest: dict[str, Any] = {
        "id": plan.id,
        "version": plan.version,
        "kind": "lstm",
        "role": "price",
        "features": list(FEATURE_NAMES),
        "closed_minutes": LSTM_MINUTES,
        "outputs": ["move", "rise"],
        "horizons": list(HORIZON_MINUTES),
        "weight": plan.weight,
        "calibration": {"q": q, "label": label_view(examples, fitted, steady)},
        "range": bounds(examples, teach),
        "training": {**source(examples, teach, plan.seed), "layers": list(plan.layers)},
    }
    artefact = artefacts.lstm_bytes(fitted, len(HORIZON_MINUTES))
    with TemporaryDirectory() as folder:
        artefacts.write(Path(folder), artefact, "model.onnx", {**manifest, "quality": {}}, "")
        said = live.answers_of_files(live.open_predictor(Path(folder)), data, report)
    for parameters in without.values():
        apply_scales(parameters, scale, slope)
    manifest["quality"] = {
        **price_scores.quality(price_scores.judge(*said, q)),
        **left_out.quality(examples, without, manifest, data, report),
        **controls.run(examples, report),
        "scale": scale,
        "slope": slope,
        "loss_by_epoch": loss_by_epoch,
        "watched_loss_by_epoch": watched_loss,
    }
    folder_of = artefacts.write(store, artefact, "model.onnx", manifest, "")
    price_card.write(folder_of)


def source(examples: Examples, rows: np.ndarray, seed: int = BASIC.seed) -> dict[str, Any]:
    """Where and when the training part lies."""
    out: dict[str, Any] = {
        "data": "data/fx_m1, the first 60 % of each file's minutes",
        "seed": seed,
        "examples": len(rows),
    }
    for symbol in np.unique(examples.symbol):
        minutes = examples.minute[rows][examples.symbol[rows] == symbol]
        first, last = (str(np.datetime64(int(each) * 60, "s")) for each in (minutes.min(), minutes.max()))
        out[str(symbol).lower()] = f"{first}Z to {last}Z"
    return out

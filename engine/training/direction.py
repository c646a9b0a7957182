"""xgboost_direction: which of two barriers is touched first within 15 minutes, or neither.

Owns its fit, calibration and card; run by `python -m engine.training`. What must stay true: it is
fitted on the training part, calibrated on the calibration part, and judged on the test part alone.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xgboost
from scipy.optimize import minimize
from scipy.special import log_softmax

from engine.inference.batch import COLUMN_NAMES
from engine.inference.features import FEATURES
from engine.training import artefacts, cards
from engine.training.data import Examples
from engine.training.price import UNKNOWN_SPREAD, source

ROUNDS = 60
SEED = 20260103
WEIGHT = 0.7
SETTINGS = {
    "objective": "multi:softprob",
    "num_class": 3,
    "max_depth": 3,
    "eta": 0.06,
    "subsample": 0.7,
    "colsample_bytree": 0.7,
    "min_child_weight": 100.0,
    "lambda": 10.0,
    "tree_method": "hist",
    "nthread": 1,
    "seed": SEED,
}


def log_loss(log_chances: np.ndarray, label: np.ndarray) -> float:
    return float(-np.take_along_axis(log_chances, label[:, None], 1).mean())


def calibrate(margin: np.ndarray, label: np.ndarray) -> tuple[float, np.ndarray]:
    """One temperature and a bias a class."""

    def cost(x: np.ndarray) -> float:
        return log_loss(log_softmax(margin * x[0] + np.array([x[1], 0.0, x[2]]), axis=1), label)

    x = minimize(cost, np.array([1.0, 0.0, 0.0]), method="Nelder-Mead").x
    return float(x[0]), np.array([x[1], 0.0, x[2]])


def judge(log_chances: np.ndarray, label: np.ndarray, rates: np.ndarray) -> dict[str, float]:
    """Skill twice: touch or none (volatility), and which side given a touch (direction)."""
    chance = np.exp(log_chances)
    touched, touch_rate = label != 1, 1.0 - rates[1]
    side = label[touched] == 2
    up = chance[touched, 2] / (chance[touched, 0] + chance[touched, 2])
    return {
        "log_loss": log_loss(log_chances, label),
        "log_loss_of_rates": log_loss(np.log(np.broadcast_to(rates, chance.shape)), label),
        "brier_of_touch": float(((1.0 - chance[:, 1] - touched) ** 2).mean()),
        "brier_of_touch_rate": float(((touch_rate - touched) ** 2).mean()),
        "brier_of_side": float(((up - side) ** 2).mean()),
        "brier_of_side_rate": 0.25,
        "side_right": float(((up > 0.5) == side).mean()),
    }


def train(examples: Examples, store: Path, report: Callable[[str], None]) -> None:
    part = {
        name: np.flatnonzero((examples.label >= 0) & (examples.part == name))
        for name in ("train", "calibration", "test")
    }
    columns = examples.columns.copy()
    # Withheld at random, so that their absence is a normal input and names no symbol.
    withheld = np.random.default_rng(SEED).random(len(columns)) < 0.5
    columns[withheld, FEATURES + 1 :] = np.nan
    no_spread = np.random.default_rng(SEED + 1).random(len(columns)) < 0.2
    columns[no_spread, COLUMN_NAMES.index("spread")] = UNKNOWN_SPREAD
    names = list(COLUMN_NAMES)
    data = {
        name: xgboost.DMatrix(columns[rows], label=examples.label[rows], feature_names=names)
        for name, rows in part.items()
    }
    booster = xgboost.train(SETTINGS, data["train"], num_boost_round=ROUNDS)
    report(f"{ROUNDS} rounds")
    label = {name: examples.label[rows] for name, rows in part.items()}
    slope, bias = calibrate(booster.predict(data["calibration"], output_margin=True), label["calibration"])
    rates = np.bincount(label["train"], minlength=3) / len(label["train"])
    margin = booster.predict(data["test"], output_margin=True)
    quality = judge(log_softmax(margin * slope + bias, axis=1), label["test"], rates)
    manifest = {
        "id": "xgboost_direction",
        "version": "3.2",
        "kind": "xgboost",
        "role": "direction",
        "features": names,
        "closed_minutes": 0,
        "outputs": ["sell", "hold", "buy"],
        "horizons": [15],
        "weight": WEIGHT,
        "calibration": {"slope": [slope], "bias": bias},
        "training": {**source(examples, part["train"]), "seed": SEED},
        "quality": quality,
    }
    artefacts.write(
        store,
        bytes(booster.save_raw("ubj")),
        "model.ubj",
        manifest,
        cards.direction(quality, rates, 3 * ROUNDS, len(names), len(part["test"])),
    )

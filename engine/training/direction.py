"""xgboost_direction: which of two barriers is touched first within 15 minutes, or neither.

Owns its fit, calibration and card; run by `python -m engine.training`. What must stay true: it is
fitted on the training part, calibrated on the calibration part, and judged on the test part alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xgboost
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from engine.inference.batch import COLUMN_NAMES
from engine.inference.features import FEATURES
from engine.training import artefacts, cards
from engine.training.bootstrap import When
from engine.training.data import EMBARGO_MINUTES, LABEL_MINUTES, Examples
from engine.training.judging import calibration_table, judge, rule_table, rules, score_table, when_of
from engine.training.price import UNKNOWN_SPREAD, source

ROUNDS = 60
FOLDS = 3  # of the training part, for calibration
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


def out_of_fold(columns: np.ndarray, examples: Examples, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows judged, their margins): each third of a file's training time by a fit to the other two, hours apart."""
    minute, judged, margins = examples.minute[rows], [], []
    edges = np.empty((len(rows), FOLDS + 1))
    for symbol in np.unique(examples.symbol[rows]):
        own = examples.symbol[rows] == symbol
        edges[own] = np.quantile(minute[own], np.linspace(0.0, 1.0, FOLDS + 1))
    for fold in range(FOLDS):
        begin, end = edges[:, fold], edges[:, fold + 1]
        inside = (minute >= begin) & (minute <= end)
        apart = (minute < begin - EMBARGO_MINUTES) | (minute > end + EMBARGO_MINUTES)
        fit = xgboost.DMatrix(columns[rows[apart]], label=examples.label[rows[apart]], feature_names=list(COLUMN_NAMES))
        booster = xgboost.train(SETTINGS, fit, num_boost_round=ROUNDS)
        asked = xgboost.DMatrix(columns[rows[inside]], feature_names=list(COLUMN_NAMES))
        judged.append(rows[inside])
        margins.append(booster.predict(asked, output_margin=True))
    return np.concatenate(judged), np.concatenate(margins)


def controls(
    data: xgboost.DMatrix, test: xgboost.DMatrix, symbol: np.ndarray, label: np.ndarray, when: When
) -> dict[str, list[float]]:
    """Fits to labels that are shuffled, or half a file away: what they gain at touch and side, with errors."""
    own = data.get_label().astype(int)
    shuffled = np.random.default_rng(SEED + 2).permutation(own)
    shifted = np.concatenate(
        [np.roll(own[symbol == each], (symbol == each).sum() // 2) for each in dict.fromkeys(symbol)]
    )
    out = {}
    for name, wrong in (("shuffled", shuffled), ("shifted", shifted)):
        data.set_label(wrong)
        booster = xgboost.train(SETTINGS, data, num_boost_round=ROUNDS)
        chances = softmax(booster.predict(test, output_margin=True), axis=1)
        rates = np.bincount(wrong, minlength=3) / len(wrong)
        judged = judge(chances, label, rates, when)
        out[name] = [*judged["touch"][2:], *judged["side"][2:]]
    data.set_label(own)
    return out


def card(
    quality: Mapping[str, Sequence[float]],
    wrong: Mapping[str, Sequence[float]],
    rates: np.ndarray,
    columns: int,
    count: int,
) -> str:
    sell, hold, buy = rates
    return cards.page(
        "xgboost_direction 3.2",
        f"""{3 * ROUNDS} trees of depth 3 over {columns} numbers. Its label is the first touch of 0.65 sigma sqrt(15)
        above or below the mid by a minute's close within 15 minutes; neither is HOLD. Fitted on the first 60 % of each
        file's minutes; calibrated on what fits to two thirds of those said of the other third, and on the next 18 %;
        four hours between the parts belong to none.""",
        f"""Measured on {count:,} minutes of the last 22 % (as many as {count // LABEL_MINUTES:,} independent ones,
        since neighbouring labels overlap), beside the training part's rates (sell {sell:.3f}, hold {hold:.3f}, buy
        {buy:.3f}); standard errors come from resampled blocks of time:""",
        score_table(quality),
        rule_table(quality),
        f"""Given a touch, the side it held for likelier was touched {100 * quality["side_right"][0]:.1f} % of the time.
        Most of what this model knows is whether anything will happen; of the side it knows very little.""",
        calibration_table(quality),
        """Controls, as differences of Brier scores from the rates' (below 0: better): fits that must know nothing of
        the side. What is left of the touch on labels half a file away is the course of the day, which half a file of
        whole days later is the same.""",
        cards.table(
            ("fitted on", "touch", "its standard error", "side", "its standard error"),
            [
                ["shuffled labels", *map(float, wrong["shuffled"])],
                ["labels half a file away", *map(float, wrong["shifted"])],
            ],
        ),
    )


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
    # One stretch of time has its own rate of touches; calibrated on all that was not fitted on, no week decides.
    held, margins = out_of_fold(columns, examples, part["train"])
    margins = np.concatenate([margins, booster.predict(data["calibration"], output_margin=True)])
    slope, bias = calibrate(margins, np.concatenate([examples.label[held], label["calibration"]]))
    rates = np.bincount(label["train"], minlength=3) / len(label["train"])
    margin = booster.predict(data["test"], output_margin=True)
    when = when_of(examples, part["test"])
    simple = rules(examples, part["train"], part["test"])
    quality = judge(softmax(margin * slope + bias, axis=1), label["test"], rates, when, simple)
    symbols = examples.symbol[part["train"]]
    wrong = controls(data["train"], data["test"], symbols, label["test"], when)
    report(f"controls: {wrong}")
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
        "quality": {**quality, **wrong},
    }
    artefacts.write(
        store,
        bytes(booster.save_raw("ubj")),
        "model.ubj",
        manifest,
        card(quality, wrong, rates, len(names), len(part["test"])),
    )

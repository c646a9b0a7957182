"""simple_pattern and cnn_patterns: the chance that each of seven chart patterns' rules holds at the last closed minute.

Owns how they are fitted, calibrated and written; run by `python -m engine.training`. Reads `data/fx_h1` and
the minutes. What must stay true: they are taught by made-up walks, never by a minute; their chances and
rates come from the first 78 % of the minutes, and they are judged on the last part, on hours and on
simulated markets.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.ensemble import PATTERN_SHOWN
from engine.training import artefacts, lessons, pattern_card, pictures, shown
from engine.training.data import Examples
from engine.training.lessons import Lessons
from engine.training.patterns import label
from engine.training.price import source
from engine.training.touch import OVERLAP, fit_touch, outlook

HOURS = Path(__file__).parent.parent.parent / "data" / "fx_h1"
WALKS = 4_000_000
WATCHED = 400_000
WALKS_JUDGE = 50_000
CONTROL = 10_000  # windows that teach a control with shuffled labels
CONTROL_STEP = 8  # of the minutes that calibrate it
CONTROL_SEEDS = 4
WEIGHT = {"simple_pattern": 0.1, "cnn_patterns": 0.1}
SEED = 20260102
SEED_WATCHED = SEED + 1000
SEED_MARKET = 20260107
PRIOR_PLATT = np.array([0.03, 0.1])  # standard deviations of what minutes change in the walks' own slope and shift
PRIOR = 50.0  # examples that a rate of a rare signal is worth beforehand


class Kind(NamedTuple):
    """One model."""

    id: str
    version: str
    plan: pictures.Plan
    epochs: int


SIMPLE = Kind("simple_pattern", "1.0", pictures.SMALL, 3)
CNN = Kind("cnn_patterns", "1.8", pictures.FINE, 3)


def platt(logit: np.ndarray, target: np.ndarray, weight: np.ndarray, near: np.ndarray | None) -> np.ndarray:
    """Slope and shift of one pattern's logits that lose least; drawn towards those of `near`, where there are some."""
    sign = np.where(target > 0, -1.0, 1.0)

    def cost(ab: np.ndarray) -> float:
        loss = float((weight * np.logaddexp(0.0, sign * (ab[0] * logit + ab[1]))).sum())
        return loss + (0.5 * float((((ab - near) / PRIOR_PLATT) ** 2).sum()) if near is not None else 0.0)

    start = np.array([1.0, -2.0]) if near is None else near
    return minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4}).x


def calibrate(
    plan: pictures.Plan, parameters: pictures.Parameters, walks: Lessons, path: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Platt's two numbers a pattern, folded into the last layer; returns what the minutes' chances become.

    What walks need, of which there are many, corrected by the minutes, in which a pattern stands a few dozen times.
    """
    of_walks, logit = pictures.logits(plan, parameters, walks.path), pictures.logits(plan, parameters, path)
    minutes, chance = np.full(len(path), 1.0 / OVERLAP), np.empty_like(logit)
    for k in range(target.shape[1]):
        near = platt(of_walks[:, k], walks.target[:, k], walks.walks, None)
        a, b = platt(logit[:, k], target[:, k], minutes, near)
        parameters["w"][:, k] *= a
        parameters["b"][k] = a * parameters["b"][k] + b
        chance[:, k] = 1.0 / (1.0 + np.exp(-a * logit[:, k] - b))
    return chance


def chances_of(plan: pictures.Plan, parameters: pictures.Parameters) -> shown.Chances:
    return lambda path: 1.0 / (1.0 + np.exp(-pictures.logits(plan, parameters, path)))


def signals(chance: np.ndarray, way: np.ndarray) -> np.ndarray:
    """0 sell, 1 hold, 2 buy, of the likeliest shown pattern."""
    best = chance.argmax(1)
    seen = chance.max(1) > PATTERN_SHOWN
    return np.where(seen, np.where(np.take_along_axis(way, best[:, None], 1)[:, 0] > 0, 2, 0), 1)


def rates(signal: np.ndarray, label15: np.ndarray, move1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What came true after each signal, drawn towards what comes true after any."""
    known = label15 >= 0
    overall = np.bincount(label15[known], minlength=3) / known.sum()
    moved = np.isfinite(move1) & (move1 != 0.0)
    labels, rises = np.empty((3, 3)), np.empty(3)
    for s in range(3):
        chosen = label15[known & (signal == s)]
        labels[s] = (np.bincount(chosen, minlength=3) / OVERLAP + PRIOR * overall) / (len(chosen) / OVERLAP + PRIOR)
        after = move1[moved & (signal == s)] > 0.0
        rises[s] = (after.sum() + PRIOR * 0.5) / (len(after) + PRIOR)
    return labels, rises


def shuffled(kind: Kind, taught: Lessons, path: np.ndarray, target: np.ndarray, seed: int) -> pictures.Parameters:
    """The same way with labels of other windows, in teaching and in calibrating alike."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(taught.path))[:CONTROL]
    order = rng.permutation(some)
    mixed = Lessons(taught.path[some], taught.target[order], taught.weight[order])
    fitted = pictures.fit(kind.plan, mixed, mixed, seed=seed, epochs=1, report=lambda line: None).parameters
    calibrate(kind.plan, fitted, mixed, path, rng.permutation(target))
    return fitted


def control(
    kind: Kind, taught: Lessons, path: np.ndarray, target: np.ndarray, given: shown.Judged, last: np.ndarray
) -> dict[str, Any]:
    """Brier score less the rate's of what was taught nothing; better than nothing is what leaks.

    What learned nothing still points some way, another with each seed: the error holds how far seeds lie apart.
    """
    base, means, errors = target.mean(0), [], []
    for seed in range(SEED, SEED + CONTROL_SEEDS):
        fitted = shuffled(kind, taught, path[::CONTROL_STEP], target[::CONTROL_STEP], seed)
        blind = given._replace(chance=chances_of(kind.plan, fitted)(last))
        found = [shown.against_rate(blind, k, base[k]) for k in range(len(base))]
        means.append([each.mean for each in found])
        errors.append([each.standard_error for each in found])
    spread = np.hypot(np.mean(errors, axis=0), np.std(means, axis=0, ddof=1))
    return {"shuffled_brier_difference": np.mean(means, axis=0), "shuffled_standard_error": spread}


def beside(prefix: str, quality: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{key}": values for key, values in quality.items()}


def train(kind: Kind, examples: Examples, store: Path, report: Callable[[str], None]) -> None:
    taught, watched = lessons.of_walks(WALKS, SEED), lessons.of_walks(WATCHED, SEED_WATCHED)
    report(f"{len(taught.path):,} windows to learn from, {int(taught.target.any(1).sum()):,} with a pattern")
    fitted = pictures.fit(kind.plan, taught, watched, seed=SEED, epochs=kind.epochs, report=report)

    ready = examples.depth >= IMAGE_MINUTES
    rows = np.flatnonzero(ready & np.isin(examples.part, ("train", "calibration")))
    last = np.flatnonzero(ready & (examples.part == "test"))
    path, target = examples.path[rows], label(examples.path[rows])
    chance = calibrate(kind.plan, fitted.parameters, watched, path, target)
    chances, base = chances_of(kind.plan, fitted.parameters), target.mean(0)
    seen = outlook(examples, rows)
    touch = fit_touch(seen, chance > PATTERN_SHOWN)
    labels, rises = rates(signals(chance, seen.way), examples.label[rows], examples.move[rows, 0])

    report("calibrated; judging")
    given = shown.on_minutes(chances, examples, last)
    on_walks = chances(lessons.random_walks(WALKS_JUDGE, SEED - 2)) > PATTERN_SHOWN
    quality = {
        "loss_by_epoch": fitted.loss,
        "watched_loss_by_epoch": fitted.watched_loss,
        **shown.scores(given, base),
        "shown_on_random_walks": on_walks.mean(0),
        "any_shown_on_random_walks": [on_walks.any(1).mean()],
        "touch": shown.touches(given.chance, outlook(examples, last), touch, given.when),
    }
    hours = shown.on_hours(chances, lessons.hours(HOURS, examples))
    quality |= beside("hours", shown.scores(hours, base, shown.HOURS_CORRELATION))
    for name in shown.LAWS:
        quality |= beside(name, shown.simulated(chances, touch, name, shown.SIMULATED_MINUTES, SEED_MARKET))
    quality |= control(kind, taught, path, target, given, examples.path[last])
    about = f"{WALKS:,} made-up walks; calibrated on data/fx_m1, the first 78 % of each file's minutes"
    training = {**source(examples, rows), "data": about, "seed": SEED, "windows": len(taught.path)}
    manifest = {
        "id": kind.id,
        "version": kind.version,
        "kind": "cnn",
        "role": "pattern",
        "features": [kind.plan.picture],
        "closed_minutes": IMAGE_MINUTES,
        "outputs": ["pattern"],
        "horizons": [],
        "weight": WEIGHT[kind.id],
        "calibration": {
            "label_rates": labels.ravel(),
            "rise_rates": rises,
            "touch_bias": touch.bias,
            "touch_slope": [touch.slope],
        },
        "training": training,
        "quality": quality,
    }
    data = pictures.onnx_bytes(kind.plan, fitted.parameters)
    counts = pattern_card.Counts(len(given.chance), len(hours.chance), len(rows), len(data))
    card = pattern_card.pattern(f"{kind.id} {kind.version}", kind.plan.picture, quality, counts)
    artefacts.write(store, data, "model.onnx", manifest, card)

"""simple_pattern and cnn_patterns: the chance that each of seven chart patterns' rules holds at the last closed minute.

Owns what they are taught, their calibration and their cards; run by `python -m engine.training`. What
must stay true: they are fitted on the training part and on made-up walks, their chances and rates come
from the calibration part and from other walks, and they are judged on the test part alone.

Patterns are rare, so most of what teaches them are walks: shapes are free of scale, and a rule holds on
a walk for the same reason as on a market. Of many walks all with a pattern are kept and some without,
weighted nearly as often as they come.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.optimize import minimize

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.ensemble import PATTERN_SHOWN
from engine.inference.geometry import walk_odds
from engine.training import artefacts, bootstrap, cards, pictures, reliability
from engine.training.data import SIMULTANEOUS, Examples
from engine.training.patterns import NAMES, label, shapes
from engine.training.price import source
from engine.training.scores import brier

WALKS = 2_000_000
WALKS_CALIBRATION = 20_000
WALKS_JUDGE = 50_000
CHUNK = 50_000
REAL_WITHOUT = 0.5  # share of the training part's windows without a pattern that teach: neighbours are alike
WITHOUT = 0.05  # share of the walks without a pattern that teach
WEIGHT_WITH = 0.5  # of a walk with a pattern, beside one without
WEIGHT = {"simple_pattern": 0.1, "cnn_patterns": 0.1}
SEED = 20260102
PRIOR = 50.0  # examples that a rate of a rare signal is worth beforehand
PRIOR_BIAS = 0.3  # standard deviation of what a pattern's own shapes may add to all shapes' log odds
CLUSTER = 24  # minutes of a label that comes in as long runs as patterns do: their counts vary 6 to 10 times as much
STRETCH = 120  # minutes in which patterns stand or fall together
OVERLAP = 8.0  # neighbouring minutes that show about the same shape, and count as one


class Kind(NamedTuple):
    """One model."""

    id: str
    version: str
    plan: pictures.Plan
    epochs: int


SIMPLE = Kind("simple_pattern", "1.0", pictures.SMALL, 4)
CNN = Kind("cnn_patterns", "1.8", pictures.FINE, 5)


def walks(count: int, seed: int) -> np.ndarray:
    """(count, 64) mids: steps with heavy tails and changing volatility, on ticks, with empty minutes."""
    rng = np.random.default_rng(seed)
    step = rng.standard_normal((count, IMAGE_MINUTES))
    step /= np.sqrt(rng.chisquare(5.0, step.shape) / 5.0) ** (rng.random((count, 1)) < 0.5)
    swing = np.cumsum(rng.normal(0.0, 0.15, step.shape), axis=1) * (rng.random((count, 1)) < 0.5)
    step *= np.exp(swing) * (rng.random(step.shape) >= rng.choice([0.0, 0.1, 0.2], (count, 1)))
    path = np.cumsum(step, axis=1)
    ticks = rng.choice([0.0, 2.0, 5.0], (count, 1))  # of a step's deviation, a tick's inverse; 0: none
    path = np.where(ticks > 0.0, np.round(path * ticks) / np.maximum(ticks, 1.0), path)
    return np.exp(1e-4 * path)


def random_walks(count: int, seed: int) -> np.ndarray:
    """(count, 64) mids of the plain kind, on which the shown patterns are counted."""
    return np.exp(1e-4 * np.cumsum(np.random.default_rng(seed).standard_normal((count, IMAGE_MINUTES)), axis=1))


def lessons(examples: Examples, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paths, labels and weights: the training part and walks."""
    rng = np.random.default_rng(seed)
    path = examples.path[(examples.depth >= IMAGE_MINUTES) & (examples.part == "train")]
    target = label(path)
    kept = target.any(axis=1) | (rng.random(len(path)) < REAL_WITHOUT)
    paths, targets, weights = [path[kept]], [target[kept]], [np.ones(int(kept.sum()))]
    for n in range(WALKS // CHUNK):
        path = walks(CHUNK, seed + 1 + n)
        target = label(path)
        has = target.any(axis=1)
        kept = has | (rng.random(CHUNK) < WITHOUT)
        paths.append(path[kept])
        targets.append(target[kept])
        weights.append(np.where(has[kept], WEIGHT_WITH, 1.0))
    return np.concatenate(paths), np.concatenate(targets), np.concatenate(weights).astype("f4")


def _chance(logit: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logit))


def calibrate(parameters: pictures.Parameters, logit: np.ndarray, target: np.ndarray) -> None:
    """Platt's two numbers a pattern, folded into the last layer."""
    for k in range(target.shape[1]):
        sign = np.where(target[:, k] > 0, -1.0, 1.0)

        def cost(ab: np.ndarray, k: int = k, sign: np.ndarray = sign) -> float:
            return float(np.logaddexp(0.0, sign * (ab[0] * logit[:, k] + ab[1])).mean())

        a, b = minimize(cost, np.array([1.0, -0.5]), method="Nelder-Mead").x
        parameters["w"][:, k] *= a
        parameters["b"][k] = a * parameters["b"][k] + b


def touched(mid: np.ndarray, height: np.ndarray, span: np.ndarray, way: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Whether a close touches the target in time and before the mirror stop; NaN where the closes end before either.

    All (n,), heights in price and spans in minutes; future: (n, 60) closes.
    """
    reach = future.shape[1]
    late = np.arange(1, reach + 1) > span[:, None]
    ahead = np.where(late, 0.0, (future - mid[:, None]) * way[:, None])
    hit, stop = ahead >= height[:, None], ahead <= -height[:, None]
    first_hit = np.where(hit.any(1), hit.argmax(1), reach)
    first_stop = np.where(stop.any(1), stop.argmax(1), reach)
    unknown = np.isnan(ahead).any(1) & ~hit.any(1) & ~stop.any(1)
    return np.where(unknown, np.nan, (first_hit < first_stop).astype(float))


class Touch(NamedTuple):
    """Log odds that a target is touched: bias + slope x those of a random walk."""

    slope: float
    bias: np.ndarray  # (7,)

    def chance(self, odds: np.ndarray, kind: int) -> np.ndarray:
        return _chance(self.bias[kind] + self.slope * odds)


class Outlook(NamedTuple):
    """What each pattern of each window points to, and what came of it."""

    way: np.ndarray  # (n, 7)
    odds: np.ndarray  # (n, 7), log odds that a random walk touches the target
    hit: np.ndarray  # (n, 7), NaN: unknown


@njit
def _odds(height, span, mid, sigma):
    out = np.empty(height.shape)
    for n in range(len(mid)):
        for k in range(height.shape[1]):
            out[n, k] = walk_odds(height[n, k], span[n, k], mid[n], sigma[n])
    return out


def outlook(path: np.ndarray, mid: np.ndarray, sigma: np.ndarray, future: np.ndarray) -> Outlook:
    found = shapes(path)
    way, height, span = found[:, :, 0], found[:, :, 1], found[:, :, 2]
    hit = [touched(mid, height[:, k], span[:, k], way[:, k], future) for k in range(len(NAMES))]
    return Outlook(way, _odds(height, span, mid, sigma), np.stack(hit, axis=1))


def fit_touch(seen: Outlook, shown: np.ndarray) -> Touch:
    """The slope from all windows' shapes; each pattern's bias drawn towards theirs where few were shown."""
    known = np.isfinite(seen.hit)
    x, sign = seen.odds[known], np.where(seen.hit[known] > 0, -1.0, 1.0)
    start = np.array([0.0, 1.0])
    bias, slope = minimize(lambda ab: float(np.logaddexp(0.0, sign * (ab[0] + ab[1] * x)).mean()), start).x
    out = np.empty(len(NAMES))
    for k in range(len(NAMES)):
        rows = known[:, k] & shown[:, k]
        own = bias + slope * seen.odds[rows, k]
        side = np.where(seen.hit[rows, k] > 0, -1.0, 1.0)

        def cost(add: np.ndarray, own: np.ndarray = own, side: np.ndarray = side) -> float:
            return float(np.logaddexp(0.0, side * (own + add[0])).sum() / OVERLAP + 0.5 * (add[0] / PRIOR_BIAS) ** 2)

        out[k] = bias + minimize(cost, np.zeros(1)).x[0]
    return Touch(float(slope), out)


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
        labels[s] = (np.bincount(chosen, minlength=3) / OVERLAP + PRIOR * overall) / (len(chosen) / OVERLAP + PRIOR)
        after = move1[moved & (signal == s)] > 0.0
        rises[s] = (after.sum() + PRIOR * 0.5) / (len(after) + PRIOR)
    return labels, rises


def when_of(examples: Examples, rows: np.ndarray) -> bootstrap.When:
    symbol = examples.symbol[rows]
    group = np.where(np.isin(symbol, SIMULTANEOUS), SIMULTANEOUS[0], symbol)
    return bootstrap.When(examples.minute[rows], group, symbol)


def judge(
    chance: np.ndarray, target: np.ndarray, base: np.ndarray, when: bootstrap.When, on_walks: np.ndarray
) -> dict[str, Any]:
    """Each pattern on the test part, beside its rate in the training part."""
    out: dict[str, Any] = {
        "rate": list(target.mean(0)),
        "shown": list((chance > PATTERN_SHOWN).mean(0)),
        "shown_on_random_walks": list((on_walks > PATTERN_SHOWN).mean(0)),
        "any_shown": [(chance > PATTERN_SHOWN).any(1).mean()],
        "any_shown_on_random_walks": [(on_walks > PATTERN_SHOWN).any(1).mean()],
    }
    names = ("brier", "brier_of_rate", "brier_difference", "standard_error", "calibration_error", "calibration_band")
    for name in (*names, "right_when_shown"):
        out[name] = []
    for k in range(len(NAMES)):
        ours, theirs = brier(chance[:, k], target[:, k]), brier(np.full(len(chance), base[k]), target[:, k])
        better = bootstrap.difference(ours, theirs, IMAGE_MINUTES, when=when)
        honest = reliability.calibration(chance[:, k], target[:, k] > 0, CLUSTER, when)
        shown = target[chance[:, k] > PATTERN_SHOWN, k]
        values = (ours.mean(), theirs.mean(), better.mean, better.standard_error, honest.error, honest.band)
        for name, value in zip(names, values, strict=True):
            out[name].append(float(value))
        out["right_when_shown"].append(float(shown.mean()) if len(shown) else 0.0)
    return out


def judge_touch(chance: np.ndarray, seen: Outlook, touch: Touch, when: bootstrap.When) -> dict[str, list[float]]:
    """Of all shown patterns of the test part: what was said of their targets, and what came of them."""
    rows, kinds = np.nonzero((chance > PATTERN_SHOWN) & np.isfinite(seen.hit))
    said = np.array([touch.chance(seen.odds[n, k], int(k)) for n, k in zip(rows, kinds, strict=True)])
    hit = seen.hit[rows, kinds]
    return {
        "touch_rows": [float(len(rows))],
        "touch_said": [float(said.mean())],
        "touch_found": [float(hit.mean())],
        "touch_standard_error": [standard_error(said - hit, when.group[rows], when.minute[rows])],
    }


def standard_error(values: np.ndarray, group: np.ndarray, minute: np.ndarray) -> float:
    """Of their mean; those of one group and two hours stand or fall together.

    >>> values, minute = np.array([1.0, 1.0, -1.0, -1.0]), np.array([0, 1, 500, 501])
    >>> [round(standard_error(values, np.zeros(4), minute * apart), 3) for apart in (1, 200)]
    [0.707, 0.5]
    """
    place = np.unique(
        np.stack([np.unique(group, return_inverse=True)[1], minute // STRETCH]), axis=1, return_inverse=True
    )
    sums = np.bincount(place[1].ravel(), values - values.mean())
    return float(np.sqrt((sums**2).sum()) / len(values))


def train(kind: Kind, examples: Examples, store: Path, report: Callable[[str], None]) -> None:
    paths, target, weight = lessons(examples, SEED)
    report(f"{len(paths):,} windows to learn from, {int(target.any(1).sum()):,} with a pattern")
    fitted = pictures.fit(kind.plan, paths, target, weight, seed=SEED, epochs=kind.epochs, report=report)
    ready = examples.depth >= IMAGE_MINUTES
    part = {name: np.flatnonzero(ready & (examples.part == name)) for name in ("train", "calibration", "test")}
    said = partial(pictures.logits, kind.plan, fitted)
    rows = part["calibration"]
    others = walks(WALKS_CALIBRATION, SEED - 1)
    both = np.concatenate([examples.path[rows], others])
    calibrate(fitted, said(both), label(both))
    chance = _chance(said(examples.path[rows]))
    seen = outlook(*(each[rows] for each in (examples.path, examples.mid, examples.sigma, examples.future)))
    touch = fit_touch(seen, chance > PATTERN_SHOWN)
    labels, rises = rates(signals(chance, seen.way), examples.label[rows], examples.move[rows, 0])
    rows = part["test"]
    when, base = when_of(examples, rows), label(examples.path[part["train"]]).mean(0)
    chance, on_walks = _chance(said(examples.path[rows])), _chance(said(random_walks(WALKS_JUDGE, SEED - 2)))
    quality = judge(chance, label(examples.path[rows]), base, when, on_walks)
    seen = outlook(*(each[rows] for each in (examples.path, examples.mid, examples.sigma, examples.future)))
    quality |= judge_touch(chance, seen, touch, when)
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
        "training": {**source(examples, part["train"]), "seed": SEED, "walks": WALKS},
        "quality": quality,
    }
    data = pictures.onnx_bytes(kind.plan, fitted)
    card = cards.pattern(f"{kind.id} {kind.version}", kind.plan.picture, quality, NAMES, len(rows), len(data))
    artefacts.write(store, data, "model.onnx", manifest, card)

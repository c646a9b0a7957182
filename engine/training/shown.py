"""How the pattern models are judged: on minutes and hours that they never saw, and on markets whose law is known.

Owns those numbers; run by `python -m engine.training` and by tests. Reads chances and what the rules say;
returns tables for manifests and cards. What must stay true: calibration is judged by the band of all
seven patterns at once, drawn with as long runs as patterns come in; nothing is chosen by what is found here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from engine.inference.batch import IMAGE_MINUTES
from engine.inference.ensemble import PATTERN_SHOWN
from engine.training import bootstrap, reliability
from engine.training.data import Examples, drawn, labelled, walk
from engine.training.judging import when_of
from engine.training.lessons import HOUR, Hours
from engine.training.patterns import NAMES, label
from engine.training.scores import brier
from engine.training.simulate import COARSE, FINE, draw
from engine.training.touch import Outlook, Touch, outlook

LAWS = {"fine": FINE, "coarse": COARSE}
SIMULATED_MINUTES = 40_000
# Minutes that an outcome of the band's draws lasts, for each pattern: so long that patterns of 22,000 minutes vary in
# number as much as outcomes do. As multiples of what independent minutes would vary, 240 simulated markets with a fifth
# of the minutes missing gave 11.5, 12.5, 10.1, 4.7, 4.7, 4.0, 8.6, and blocks of 256 minutes (four windows) of the
# minutes that calibrate 9.1, 10.0, 10.2, 5.9, 6.1, 5.7, 6.4. These lie in the middle.
RUNS = (28, 30, 28, 16, 16, 15, 22)
HOURS_CORRELATION = 0.2  # between symbols at the same hour; it explains how much more all of them vary than each
STRETCH = 120  # minutes in which patterns stand or fall together

Chances = Callable[[np.ndarray], np.ndarray]  # (n, 64) mids -> (n, 7)


class Judged(NamedTuple):
    """Chances beside what the rules say, and where the rows stand in time."""

    chance: np.ndarray  # (n, 7)
    target: np.ndarray  # (n, 7)
    when: bootstrap.When


def calibrated(given: Judged, correlation: float = 0.0) -> reliability.Family:
    return reliability.family(given.chance, given.target > 0, RUNS, given.when, correlation=correlation)


def scores(given: Judged, base: np.ndarray, correlation: float = 0.0) -> dict[str, Any]:
    """Each pattern beside its rate in the minutes that calibrated."""
    chance, target = given.chance, given.target
    found = calibrated(given, correlation)
    shown = chance > PATTERN_SHOWN
    better = [against_rate(given, k, base[k]) for k in range(len(NAMES))]
    return {
        "rate": target.mean(0),
        "shown": shown.mean(0),
        "right_when_shown": [float(target[shown[:, k], k].mean()) if shown[:, k].any() else 0.0 for k in range(7)],
        "any_shown": [shown.any(1).mean()],
        "brier": [brier(chance[:, k], target[:, k]).mean() for k in range(len(NAMES))],
        "brier_of_rate": [brier(np.full(len(chance), base[k]), target[:, k]).mean() for k in range(len(NAMES))],
        "brier_difference": [each.mean for each in better],
        "standard_error": [each.standard_error for each in better],
        "calibration_error": found.error,
        "calibration_band": found.band,
        "family_band": found.together,
    }


def against_rate(given: Judged, k: int, rate: float) -> bootstrap.Estimate:
    """Of one pattern, the Brier score less the rate's."""
    ours, theirs = (brier(each, given.target[:, k]) for each in (given.chance[:, k], np.full(len(given.chance), rate)))
    return bootstrap.difference(ours, theirs, IMAGE_MINUTES, when=given.when)


def on_minutes(chances: Chances, examples: Examples, rows: np.ndarray) -> Judged:
    path = examples.path[rows]
    return Judged(chances(path), label(path), when_of(examples, rows))


def on_hours(chances: Chances, hours: Hours) -> Judged:
    """Hours count as minutes do where runs are meant."""
    when = bootstrap.When(hours.minute // HOUR, np.zeros(len(hours.minute), "i8"), hours.symbol)
    return Judged(chances(hours.path), label(hours.path), when)


def touches(chance: np.ndarray, seen: Outlook, touch: Touch, when: bootstrap.When) -> list[float]:
    """Of all shown patterns: how many, what was said of their targets, what came of them, its standard error."""
    rows, kinds = np.nonzero((chance > PATTERN_SHOWN) & np.isfinite(seen.hit))
    said = np.array([touch.chance(seen.odds[n, k], int(k)) for n, k in zip(rows, kinds, strict=True)])
    hit = seen.hit[rows, kinds]
    error = standard_error(said - hit, when.group[rows], when.minute[rows])
    return [float(len(rows)), float(said.mean()), float(hit.mean()), error]


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


def market(name: str, minutes: int, seed: int) -> Examples:
    """Simulated minutes as the engine would see them."""
    bars = draw(LAWS[name], minutes, seed).bars(name)
    part = np.full(len(bars.minute), "")
    seen = drawn(bars, part)
    return labelled(bars, walk(bars, np.full((len(bars.minute), 1), np.nan), seen), seen, part)


def simulated(chances: Chances, touch: Touch, name: str, minutes: int, seed: int) -> dict[str, Any]:
    """On a market of jumps and changing volatility, with ticks, bounce and a fifth of its minutes missing."""
    examples = market(name, minutes, seed)
    rows = np.flatnonzero(examples.depth >= IMAGE_MINUTES)
    given = on_minutes(chances, examples, rows)
    found = calibrated(given)
    return {
        "rate": given.target.mean(0),
        "said": given.chance.mean(0),
        "any_shown": [(given.chance > PATTERN_SHOWN).any(1).mean()],
        "calibration_error": found.error,
        "calibration_band": found.band,
        "family_band": found.together,
        "touch": touches(given.chance, outlook(examples, rows), touch, given.when),
    }

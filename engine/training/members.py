"""What the members say of each bundled minute, heard through the engine itself.

Owns the walk; run by `python -m engine.training` for the ensemble and the vote. Reads price files and the
model store; returns arrays. What must stay true: the numbers come from the live predictor, versions,
fallbacks and masks included; nothing of the training part is returned, since the members have seen it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine import limits
from engine.inference.batch import EXPIRED, PREDICT
from engine.inference.predictor import Predictor
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from engine.training.data import SIMULTANEOUS, Bars, correlations, drawn, fill_slots, parts_of, read_bars
from fastpath import layout

BARS = 7  # in a microbatch: two slots each, no more steps than a window has to spare
RING = 16


class Said(NamedTuple):
    """One row a minute of the calibration and test parts, in the order of files and minutes."""

    symbol: np.ndarray
    minute: np.ndarray
    part: np.ndarray
    who: np.ndarray  # (n, roles and the ensemble)
    version: np.ndarray
    move: np.ndarray
    rise: np.ndarray
    pattern: np.ndarray
    direction: np.ndarray
    trend: np.ndarray
    pattern_signal: np.ndarray
    signal: np.ndarray  # of whoever decided
    confidence: np.ndarray


def open_predictor(store: Path) -> Predictor:
    versions = np.zeros(limits.VERSIONS_MAX, layout.version_row_dtype)
    plans = np.zeros(layout.plans_max, layout.plan_row_dtype)
    manifests = read_store(store)
    fill_versions(manifests, versions, np.zeros(limits.FEATURE_NAMES_MAX, f"S{limits.FEATURE_NAME_BYTES}"))
    fill_plans(manifests, plans)
    predictor = Predictor(store, versions, plans, np.zeros(1, layout.child_row_dtype), RING)
    predictor.load()
    return predictor


def listen(predictor: Predictor, folder: Path, tier: int, report: Callable[[str], None]) -> Said:
    """Every file's minutes in turn; those of the training part fill the windows and ask nobody."""
    every = [read_bars(path) for path in sorted(folder.glob("*.csv.gz"))]
    together = [bars for bars in every if bars.symbol in SIMULTANEOUS]
    heard = []
    for bars in every:
        group = together if bars.symbol in SIMULTANEOUS else [bars]
        others = [each for each in group if each is not bars]
        scores = correlations(bars, others) if others else np.full((len(bars.minute), 1), np.nan)
        part = parts_of(bars.minute, np.concatenate([each.minute for each in group]))
        heard.append(_walk(predictor, bars, scores, part, tier))
        report(f"{bars.symbol} heard")
    return Said(*(np.concatenate(columns) for columns in zip(*heard, strict=True)))


def _walk(predictor: Predictor, bars: Bars, scores: np.ndarray, part: np.ndarray, tier: int) -> Said:
    slots, answers = np.zeros(RING, layout.request_slot_dtype), np.zeros(RING, layout.answer_slot_dtype)
    windows = np.zeros((1, layout.window), layout.window_entry_dtype)
    slots["generation"], slots["indicators"], slots["tier"] = 1, np.nan, tier
    seen = drawn(bars, np.full(len(bars.minute), ""))
    step, depth = layout.history_max, 0
    rows: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(bars.minute), BARS):
        count = min(BARS, len(bars.minute) - first)
        step, depth = fill_slots(bars, scores, seen, first, slots[: 2 * count], step, depth)
        asked = np.isin(part[first : first + count], ("calibration", "test"))
        verdicts = np.full(2 * count, EXPIRED, "u1")  # one vector a minute is asked, the other only enters
        verdicts[1::2][asked] = PREDICT
        predictor.predict(slots, 0, 2 * count, verdicts, windows, answers, 0, 0)
        if asked.any():
            at = 1 + 2 * np.flatnonzero(asked)
            output, batch = predictor._output, predictor._batch
            rows.append((
                bars.minute[first : first + count][asked], part[first : first + count][asked],
                *(getattr(output, name)[at].copy() for name in
                  ("who", "version", "move", "rise", "pattern", "direction")),
                batch.entry["trend"][at].copy(),
                *(answers[name][at].copy() for name in ("pattern_signal", "ensemble_signal", "ensemble_confidence")),
            ))  # fmt: skip
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return Said(np.full(len(columns[0]), bars.symbol), *columns)

"""The bundled minutes as the engine would see them: slots in, features and labels out.

Owns the reading of price files, their split by time, and the labels; run by `python -m engine.training`.
Reads `data/fx_m1`. What must stay true: features come from the live kernels; a label uses closes after
its minute alone; between two parts lie hours that belong to none, longer than the farthest label.
"""

import csv
import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import PREDICT, Batch, entry_dtype, new_batch, request_dtype
from engine.inference.windows import BOUNDS, enter
from fastpath import layout

SIMULTANEOUS = ("EURUSD", "NZDUSD", "XAUUSD")
HOLE_MINUTES = 5
CORRELATION_MINUTES = 60
LABEL_MINUTES = 15
BARRIER = 0.65  # sigma sqrt(15)
EMBARGO_MINUTES = 240
SHARES = {"train": (0.0, 0.6), "calibration": (0.6, 0.78), "test": (0.78, 1.0)}
CHUNK = 128


class Bars(NamedTuple):
    symbol: str
    minute: np.ndarray
    bid: np.ndarray
    ask: np.ndarray

    @property
    def mid(self) -> np.ndarray:
        return (self.bid + self.ask) / 2.0


class Examples(NamedTuple):
    """One row a minute with a quote; labels are NaN or -1 where the closes they need are not there."""

    symbol: np.ndarray
    minute: np.ndarray
    mid: np.ndarray
    sigma: np.ndarray
    rows: np.ndarray
    path: np.ndarray
    columns: np.ndarray
    depth: np.ndarray
    move: np.ndarray  # (n, horizons), in sigma sqrt(h)
    label: np.ndarray  # 0 sell, 1 hold, 2 buy
    future: np.ndarray  # (n, 60) mids of the minutes after, the last one repeated through empty minutes
    part: np.ndarray


def read_bars(path: Path) -> Bars:
    with gzip.open(path, "rt", newline="") as file:
        rows = [
            (int(row["ts_ms"]) // 60_000, float(row["bid_close"]), float(row["ask_close"]))
            for row in csv.DictReader(file)
        ]
    minute, bid, ask = (np.array(column) for column in zip(*rows, strict=True))
    return Bars(path.name.split(".")[0], minute.astype("i8"), bid, ask)


def correlations(bars: Bars, others: list[Bars]) -> np.ndarray:
    """(n, others): of one-minute returns over the last 60 minutes; NaN where fewer than 30 were there."""
    out = np.full((len(bars.minute), len(others)), np.nan)
    first = bars.minute[0]
    size = int(bars.minute[-1] - first) + 1

    def returns(each: Bars) -> np.ndarray:
        inside = (each.minute >= first) & (each.minute < first + size)
        log_mid = np.full(size, np.nan)
        log_mid[each.minute[inside] - first] = np.log(each.mid[inside])
        return np.diff(log_mid, prepend=np.nan)

    own = returns(bars)
    for k, other in enumerate(others):
        theirs = returns(other)
        both = np.isfinite(own) & np.isfinite(theirs)
        x, y = np.where(both, own, 0.0), np.where(both, theirs, 0.0)
        sums = [_trailing(each) for each in (both.astype(float), x, y, x * x, y * y, x * y)]
        n, sx, sy, sxx, syy, sxy = sums
        n1 = np.maximum(n, 1)
        scatter = np.sqrt(np.maximum((sxx - sx * sx / n1) * (syy - sy * sy / n1), 1e-30))
        score = np.where(n >= 30, (sxy - sx * sy / n1) / scatter, np.nan)
        out[:, k] = np.clip(score, -1.0, 1.0)[bars.minute - first]
    return out


def _trailing(values: np.ndarray) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(total))
    return total[end] - total[np.maximum(end - CORRELATION_MINUTES, 0)]


def fill_slots(bars: Bars, scores: np.ndarray, first: int, slots: np.ndarray, step: int, depth: int) -> tuple[int, int]:
    """The bars as slots, one vector at the end of each, with the steps that ingress would decide."""
    for n in range(len(slots)):
        at = first + n
        slot = slots[n]
        slot["skipped"] = 0
        if at > 0:
            gap = int(bars.minute[at] - bars.minute[at - 1]) - 1
            skipped = gap if gap <= HOLE_MINUTES else 1
            slot["skipped"] = skipped
            step += 1 + skipped
            depth = min(depth + 1 + skipped, layout.history_max)
        slot["step"], slot["depth"], slot["minute"] = step, depth, bars.minute[at]
        slot["mid"] = (bars.bid[at] + bars.ask[at]) / 2.0
        spread = bars.ask[at] - bars.bid[at]
        slot["spread"] = spread if spread > 0.0 else np.nan
        known = np.isfinite(scores[at])
        slot["correlation_count"] = known.sum()
        slot["correlations"][: known.sum()] = scores[at][known]
    return step, depth


def walk(bars: Bars, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Every bar through the live kernels."""
    count = len(bars.minute)
    window = np.zeros((1, layout.window), entry_dtype)
    slots = np.zeros(CHUNK, request_dtype)
    slots["generation"], slots["opens"], slots["indicators"], slots["tier"] = 1, 1, np.nan, 3
    verdicts = np.full(CHUNK, PREDICT, "u1")
    cross, bounds = np.ones(4, "u1"), np.zeros((4, BOUNDS, 2))
    batch: Batch = new_batch(CHUNK)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("rows", "path", "columns", "depth", "sigma", "mid")}
    step, depth = layout.history_max, 0
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        step, depth = fill_slots(bars, scores, first, slots[:size], step, depth)
        enter(slots, CHUNK - 1, 0, size, verdicts, window, cross, bounds, batch)
        for name in ("rows", "path", "columns", "depth"):
            parts[name].append(getattr(batch, name)[:size].copy())
        for name in ("sigma", "mid"):
            parts[name].append(batch.entry[name][:size].copy())
    return {name: np.concatenate(each) for name, each in parts.items()}


def futures(bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    """Closes of the 60 minutes after each bar, and which of them had a quote. A hole over 5 minutes ends them (NaN)."""
    count, reach = len(bars.minute), max(HORIZON_MINUTES)
    first = bars.minute[0]
    size = int(bars.minute[-1] - first) + 1 + reach
    close, quoted = np.full(size, np.nan), np.zeros(size, bool)
    close[bars.minute - first], quoted[bars.minute - first] = bars.mid, True
    age = 0
    for n in range(1, size):
        age = 0 if quoted[n] else age + 1
        if not quoted[n] and age <= HOLE_MINUTES:
            close[n] = close[n - 1]
    after = (bars.minute - first)[:, None] + np.arange(1, reach + 1)
    assert after.shape == (count, reach)
    return close[after], quoted[after]


def labels(mid: np.ndarray, sigma: np.ndarray, future: np.ndarray) -> np.ndarray:
    """First touch of +-0.65 sigma sqrt(15) by a close within 15 minutes: 2 up, 0 down, 1 neither; -1 unknown."""
    barrier = BARRIER * sigma * math.sqrt(LABEL_MINUTES) * 1e-4
    walk = np.log(future[:, :LABEL_MINUTES] / mid[:, None])
    up, down = walk >= barrier[:, None], walk <= -barrier[:, None]
    never = LABEL_MINUTES
    first_up = np.where(up.any(1), up.argmax(1), never)
    first_down = np.where(down.any(1), down.argmax(1), never)
    out = np.where(first_up < first_down, 2, np.where(first_down < first_up, 0, 1))
    unknown = np.isnan(walk).any(1) & (out == 1)
    return np.where(unknown, -1, out)


def parts_of(minute: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Name of each minute's part, '' within an embargo; the parts are shares of the group's minutes with a quote."""
    every = np.unique(group)
    out = np.full(len(minute), "", "U12")
    for name, (low, high) in SHARES.items():
        begin = every[int(low * len(every))] + (EMBARGO_MINUTES if low else 0)
        end = every[int(high * len(every))] if high < 1.0 else every[-1] + 1
        out[(minute >= begin) & (minute < end)] = name
    return out


def load(folder: Path) -> Examples:
    """All files; the simultaneous ones are split at the same instants."""
    every = [read_bars(path) for path in sorted(folder.glob("*.csv.gz"))]
    together = [bars for bars in every if bars.symbol in SIMULTANEOUS]
    collected: list[Examples] = []
    for bars in every:
        group = together if bars in together else [bars]
        others = [each for each in group if each is not bars]
        seen = walk(bars, correlations(bars, others) if others else np.full((len(bars.minute), 1), np.nan))
        future, quoted = futures(bars)
        at = np.array(HORIZON_MINUTES) - 1
        move = (
            1e4
            * np.log(future[:, at] / seen["mid"][:, None])
            / (seen["sigma"][:, None] * np.sqrt(np.array(HORIZON_MINUTES)))
        )
        move[~quoted[:, at]] = np.nan
        collected.append(
            Examples(
                symbol=np.full(len(bars.minute), bars.symbol),
                minute=bars.minute,
                move=move,
                label=labels(seen["mid"], seen["sigma"], future),
                future=future,
                part=parts_of(bars.minute, np.concatenate([each.minute for each in group])),
                **seen,
            )
        )
    return Examples(*(np.concatenate(columns) for columns in zip(*collected, strict=True)))

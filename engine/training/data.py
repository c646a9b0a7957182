"""The bundled minutes as the engine would see them: slots in, features and labels out.

Owns the reading of price files, their split by time, and the labels; run by `python -m engine.training`.
Reads `data/fx_m1`. What must stay true: features come from the live kernels; a label uses closes after
its minute alone; between two parts lie hours that belong to none, longer than the farthest label.

The open minute is learned as it looks live: an example of the training part sees one mid of its bar, drawn
from open, high, low and close, at a share of the minute that fits; the closed minutes keep their closes.
Examples of later parts stand at the close, where live multipliers are judged too. A high is a high
because of what came after it within the minute: measured from it, every label would begin with a
fall, which is no skill. So labels of extremes begin at their minute's close; those of opens at the open.
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
MINUTE_NS = 60_000_000_000
LAST_NS = MINUTE_NS - 1_000_000  # of a minute, where its close stands
FIRST_NS = 2_000_000_000  # by then an open has been quoted
OPEN, HIGH, LOW, CLOSE = range(4)
SEED = 20260105


class Bars(NamedTuple):
    symbol: str
    minute: np.ndarray
    bid: np.ndarray
    ask: np.ndarray
    quarters: np.ndarray | None = None  # (n, 4) mids: open, high, low, close

    @property
    def mid(self) -> np.ndarray:
        return (self.bid + self.ask) / 2.0


class Examples(NamedTuple):
    """One row a minute with a quote; labels are NaN or -1 where the closes they need are not there."""

    symbol: np.ndarray
    minute: np.ndarray
    mid: np.ndarray  # that the labels are measured from
    sigma: np.ndarray
    rows: np.ndarray
    path: np.ndarray
    columns: np.ndarray
    depth: np.ndarray
    move: np.ndarray  # (n, horizons), in sigma sqrt(h)
    label: np.ndarray  # 0 sell, 1 hold, 2 buy
    future: np.ndarray  # (n, 60) mids of the minutes after, the last one repeated through empty minutes
    part: np.ndarray
    quarter: np.ndarray  # which of its bar's mids the open minute had


class Drawn(NamedTuple):
    """What each bar's open minute shows."""

    quarter: np.ndarray  # OPEN, HIGH, LOW or CLOSE
    mid: np.ndarray
    passed_ns: np.ndarray  # of the minute


def read_bars(path: Path) -> Bars:
    sides = [[f"{side}_{name}" for name in ("open", "high", "low", "close")] for side in ("bid", "ask")]
    with gzip.open(path, "rt", newline="") as file:
        rows = [
            (int(row["ts_ms"]) // 60_000, *(float(row[name]) for side in sides for name in side))
            for row in csv.DictReader(file)
        ]
    table = np.array(rows)
    bid, ask = table[:, 1:5], table[:, 5:9]
    return Bars(path.name.split(".")[0], table[:, 0].astype("i8"), bid[:, CLOSE], ask[:, CLOSE], (bid + ask) / 2.0)


def drawn(bars: Bars, part: np.ndarray, seed: int = SEED) -> Drawn:
    """One mid of each bar of the training part; the others show their close."""
    rng = np.random.default_rng([seed, int(bars.minute[0])])
    quarter = np.full(len(bars.minute), CLOSE)
    if bars.quarters is None:
        return Drawn(quarter, bars.mid, np.full(len(quarter), LAST_NS))
    learned = part == "train"
    quarter[learned] = rng.integers(OPEN, CLOSE + 1, learned.sum())
    anywhere = rng.integers(FIRST_NS, LAST_NS, len(quarter))
    at_open = rng.integers(0, FIRST_NS, len(quarter))
    passed_ns = np.where(quarter == OPEN, at_open, np.where(quarter == CLOSE, LAST_NS, anywhere))
    mid = bars.quarters[np.arange(len(quarter)), quarter]
    return Drawn(quarter, np.where(quarter == CLOSE, bars.mid, mid), passed_ns)


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


def fill_slots(
    bars: Bars, scores: np.ndarray, seen: Drawn, first: int, slots: np.ndarray, step: int, depth: int
) -> tuple[int, int]:
    """The bars as slots, two vectors each, what was drawn and the close, with the steps that ingress would decide."""
    for n in range(0, len(slots), 2):
        at = first + n // 2
        skipped = 0
        if at > 0:
            gap = int(bars.minute[at] - bars.minute[at - 1]) - 1
            skipped = gap if gap <= HOLE_MINUTES else 1
            step += 1 + skipped
            depth = min(depth + 1 + skipped, layout.history_max)
        both, minute = slots[n : n + 2], bars.minute[at]
        both["skipped"], both["opens"] = (skipped, 0), (1, 0)
        both["step"], both["depth"], both["minute"] = step, depth, minute
        both["event_ns"] = minute * MINUTE_NS + np.array([seen.passed_ns[at], LAST_NS])
        both["mid"] = seen.mid[at], bars.mid[at]
        spread = bars.ask[at] - bars.bid[at]
        both["spread"] = spread if spread > 0.0 else np.nan
        known = np.isfinite(scores[at])
        both["correlation_count"] = known.sum()
        both["correlations"][:, : known.sum()] = scores[at][known]
    return step, depth


def walk(bars: Bars, scores: np.ndarray, seen: Drawn | None = None) -> dict[str, np.ndarray]:
    """Every bar through the live kernels; what models see when the open minute shows `seen`, or else its close."""
    count = len(bars.minute)
    shown = seen if seen is not None else drawn(bars, np.full(count, ""))
    window = np.zeros((1, layout.window), entry_dtype)
    slots = np.zeros(CHUNK, request_dtype)
    slots["generation"], slots["indicators"], slots["tier"] = 1, np.nan, 3
    verdicts = np.full(CHUNK, PREDICT, "u1")
    cross, bounds = np.ones(4, "u1"), np.zeros((4, BOUNDS, 2))
    batch: Batch = new_batch(CHUNK)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("rows", "path", "columns", "depth", "sigma", "mid")}
    step, depth = layout.history_max, 0
    for first in range(0, count, CHUNK // 2):
        size = 2 * min(CHUNK // 2, count - first)
        step, depth = fill_slots(bars, scores, shown, first, slots[:size], step, depth)
        enter(slots, CHUNK - 1, 0, size, verdicts, window, cross, bounds, batch.records)
        for name in ("rows", "path", "columns", "depth"):
            parts[name].append(getattr(batch, name)[:size:2].copy())
        for name in ("sigma", "mid"):
            parts[name].append(batch.entry[name][:size:2].copy())
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


def labelled(bars: Bars, seen: dict[str, np.ndarray], shown: Drawn, part: np.ndarray) -> Examples:
    """Labels of each row: of an open from the open on, of everything else from its minute's close on."""
    future, quoted = futures(bars)
    opened = shown.quarter == OPEN
    # The minute's own close is the first after its open, and where it ends the open's h-th minute ends as well.
    future[opened] = np.column_stack([bars.mid[opened], future[opened, :-1]])
    quoted[opened] = np.column_stack([np.ones(opened.sum(), bool), quoted[opened, :-1]])
    mid = np.where(opened, shown.mid, bars.mid)
    at = np.array(HORIZON_MINUTES) - 1
    move = 1e4 * np.log(future[:, at] / mid[:, None]) / (seen["sigma"][:, None] * np.sqrt(np.array(HORIZON_MINUTES)))
    move[~quoted[:, at]] = np.nan
    return Examples(
        symbol=np.full(len(bars.minute), bars.symbol),
        minute=bars.minute,
        move=move,
        label=labels(mid, seen["sigma"], future),
        future=future,
        part=part,
        quarter=shown.quarter,
        **{**seen, "mid": mid},
    )


def load(folder: Path) -> Examples:
    """All files; the simultaneous ones are split at the same instants."""
    every = [read_bars(path) for path in sorted(folder.glob("*.csv.gz"))]
    together = [bars for bars in every if bars.symbol in SIMULTANEOUS]
    collected: list[Examples] = []
    for bars in every:
        group = together if bars.symbol in SIMULTANEOUS else [bars]
        others = [each for each in group if each is not bars]
        scores = correlations(bars, others) if others else np.full((len(bars.minute), 1), np.nan)
        part = parts_of(bars.minute, np.concatenate([each.minute for each in group]))
        shown = drawn(bars, part)
        collected.append(labelled(bars, walk(bars, scores, shown), shown, part))
    return Examples(*(np.concatenate(columns) for columns in zip(*collected, strict=True)))

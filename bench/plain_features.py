"""A key's minutes in NumPy: what a service written without kernels, rings or slots would keep.

Owns one (company, stream, symbol)'s window; runs in the plain service. The formulas are those of
`engine.inference.features`, which the tests hold it to; the way is the obvious one: arrays of closed
minutes, what holds for a whole minute computed when it opens, the rest for each vector. What must
stay true: the models see the same numbers here and in the engine, to float32 rounding.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.inference.geometry import scale, smoothed

Array = npt.NDArray[np.float64]

KEPT = 240  # closed minutes
LSTM_MINUTES = 49
IMAGE_MINUTES, IMAGE_HEIGHT = 64, 64
MINUTE_NS = 60_000_000_000
HOLE_MINUTES = 5
BOUND = 12.0


class Inputs(NamedTuple):
    """What the models of one vector are given."""

    mid: float
    sigma: float
    trend: float
    rows: npt.NDArray[np.float32]  # (1, 50, 16)
    path: Array  # (64,) closed mids
    columns: Array  # (20,)


@cache
def _decay(count: int, share: float) -> Array:
    """Weights of an exponential mean over `count` values, oldest first, that began with the oldest."""
    weights: Array = share * np.power(1.0 - share, np.arange(count)[::-1])
    weights[0] = (1.0 - share) ** (count - 1)
    return weights


@cache
def _ages(count: int) -> Array:
    weights: Array = 2.0 ** (-np.arange(count - 1, -1, -1) / 60.0)
    return weights


def _wilder(values: Array) -> float:
    """Mean of the first 14, then each new one has a fourteenth."""
    if len(values) <= 14:
        return float(values.mean()) if len(values) else 0.0
    return float(_decay(len(values) - 13, 1.0 / 14.0) @ np.concatenate([[values[:14].mean()], values[14:]]))


def _bounded(value: float) -> float:
    return min(max(value, -BOUND), BOUND)


class Window:
    """One key's closed minutes and the open one."""

    def __init__(self) -> None:
        self.minute = -1
        self.mids = self.moves = self.spans = self.minutes = np.zeros(0)
        self.masked = np.zeros(0, bool)
        self.rows = np.zeros((LSTM_MINUTES, 16), np.float32)
        self._open_mid = self._open_move = 0.0
        self._open_span = 0
        self._open_row = np.zeros(16, np.float32)

    def see(self, vector: FeatureVector) -> Inputs:
        """The vector into the window, the models' inputs out of it."""
        quote, minute = vector.price_features, vector.timestamp_ns // MINUTE_NS
        mid, spread = (quote.bid + quote.ask) / 2.0, quote.ask - quote.bid
        if self.minute < 0:
            self._fill(minute, np.array(vector.price_history.mid_prices))
            self._begin(minute)
        elif minute > self.minute:
            self._close(masked=False)
            self._pass(minute)
            self._begin(minute)
        self._observe(mid, spread if spread > 0.0 else math.nan, masked=False)
        now = self._open_row.copy()  # of the open minute only a share has passed
        now[15] = math.log1p(max(self._open_span, 1) - 1 + (vector.timestamp_ns / MINUTE_NS - minute))
        rows = np.concatenate([self.rows, now[None]])[None]
        scores = np.array(vector.cross_asset.correlation_scores)
        extra = (scores.mean(), scores.max(), scores.min()) if len(scores) else (np.nan,) * 3
        columns = np.concatenate([now, [self.trend], extra])
        return Inputs(mid, self.sigma, self.trend, rows, self.mids[-IMAGE_MINUTES:], columns)

    def _fill(self, minute: int, history: Array) -> None:
        """Only the minutes that a model sees need their features."""
        for n, mid in enumerate(history):
            self.minute = minute - len(history) + n
            self._open_mid, self._open_span = mid, 1 if n else 0
            self._open_move = 1e4 * math.log(mid / history[n - 1]) if n else 0.0
            if n >= len(history) - LSTM_MINUTES:
                self._begin(self.minute)
                self._observe(mid, math.nan, masked=False)
            self._close(masked=False)

    def _pass(self, minute: int) -> None:
        """Empty minutes repeat the mid; a hole is one of them."""
        empty = minute - self.minute - 1
        steps = empty if empty <= HOLE_MINUTES else 1
        for n in range(steps):
            self._begin(minute - steps + n)
            self._observe(float(self.mids[-1]), math.nan, masked=True)
            self._close(masked=True)

    def _close(self, masked: bool) -> None:
        self.mids = np.append(self.mids, self._open_mid)[-KEPT:]
        self.moves = np.append(self.moves, self._open_move)[-KEPT:]
        self.spans = np.append(self.spans, self._open_span)[-KEPT:]
        self.minutes = np.append(self.minutes, self.minute)[-KEPT:]
        self.masked = np.append(self.masked, masked)[-KEPT:]
        self.rows = np.concatenate([self.rows[1:], self._open_row[None]])

    def _begin(self, minute: int) -> None:
        """What holds for a whole minute, from the closed ones before it."""
        self.minute = minute
        seen = np.flatnonzero(~self.masked)
        self._open_span = int(minute - self.minutes[seen[-1]]) if len(seen) else 0
        self.sigma, self._sigma_15 = self._sigma(KEPT), self._sigma(15)
        self._indicators = self._of_closed()
        self.trend = self._theil_sen()
        self._extremes = [
            (float(self.mids[-n:].min()), float(self.mids[-n:].max())) if len(self.mids) else (0.0, 0.0)
            for n in (15, 60)
        ]

    def _sigma(self, newest: int) -> float:
        moves, spans = self.moves[-newest:], self.spans[-newest:]
        usable = ~self.masked[-newest:] & (spans >= 1) & (spans <= HOLE_MINUTES)
        weights = _ages(len(moves))[usable]
        total = 5.0 * 2.0 * 2.0 + float((weights * moves[usable] ** 2 / spans[usable]).sum())
        return max(math.sqrt(total / (5.0 + float(weights.sum()))), 0.05)

    def _of_closed(self) -> tuple[float, ...]:
        """sma_20, ema_12, ema_26, macd, rsi_14, atr."""
        mids = self.mids
        if not len(mids):
            return (math.nan,) * 6
        fast, slow = float(_decay(len(mids), 2.0 / 13.0) @ mids), float(_decay(len(mids), 2.0 / 27.0) @ mids)
        changes = np.diff(mids)
        gain, loss = _wilder(np.maximum(changes, 0.0)), _wilder(np.maximum(-changes, 0.0))
        rsi = 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0
        return float(mids[-20:].mean()), fast, slow, fast - slow, rsi, gain + loss

    def _theil_sen(self) -> float:
        points = min(len(self.mids), 20)
        keep = ~self.masked[-points:] if points else self.masked
        logs, minutes = np.log(self.mids[-points:][keep]), self.minutes[-points:][keep]
        if points < 3 or len(logs) < 2:
            return 0.0
        older, newer = np.triu_indices(len(logs), 1)
        slopes = 1e4 * (logs[newer] - logs[older]) / (minutes[newer] - minutes[older])
        middle = len(slopes) // 2
        return float(np.partition(slopes, middle)[middle]) * math.sqrt(points) / (1.1 * self.sigma)

    def _moved(self, mid: float, minutes: int) -> float:
        back = min(minutes, len(self.mids))
        return _bounded(1e4 * math.log(mid / self.mids[-back]) / (self.sigma * math.sqrt(back))) if back else 0.0

    def _observe(self, mid: float, spread: float, masked: bool) -> None:
        """The open minute's features with the mid that it has now."""
        sigma, row = self.sigma, np.zeros(16, np.float32)
        self._open_row = row
        self._open_mid = mid
        self._open_move = 1e4 * math.log(mid / self.mids[-1]) if len(self.mids) else 0.0
        span = max(self._open_span, 1)
        row[0] = _bounded(self._open_move / (sigma * math.sqrt(span)))
        row[1], row[2], row[3] = self._moved(mid, 5), self._moved(mid, 15), self._moved(mid, 60)
        (low, high), (low_60, high_60) = self._extremes
        if high > low:
            row[4] = _bounded((2.0 * mid - low - high) / (high - low))
            row[5] = _bounded(1e4 * math.log(high / low) / (sigma * math.sqrt(15)))
        if high_60 > low_60:
            row[6] = _bounded(1e4 * math.log(high_60 / low_60) / (sigma * math.sqrt(60)))
        row[7] = math.log(self._sigma_15 / sigma)
        sma, fast, slow, macd, rsi, atr = self._indicators
        for column, value, minutes in ((8, sma, 20.0), (9, fast, 12.0), (10, slow, 26.0)):
            row[column] = _bounded(1e4 * math.log(mid / value) / (sigma * math.sqrt(minutes))) if value > 0.0 else 0.0
        if len(self.mids):
            row[11] = _bounded(1e4 * macd / (mid * sigma * math.sqrt(26.0)))
            row[12] = min(max(rsi / 50.0 - 1.0, -1.0), 1.0)
            row[13] = _bounded(math.log(max(1e4 * atr / (mid * sigma), 0.01)))
        row[14] = _bounded(math.log1p(1e4 * spread / (mid * sigma))) if spread > 0.0 else -1.0
        row[15] = -1.0 if masked else math.log1p(span)


def image_of(path: Array) -> npt.NDArray[np.float32]:
    """(1, 2, 64, 64): the line through the closes, and the area under their smoothed path, row 0 at the top."""
    level, smooth = np.empty(IMAGE_MINUTES), np.empty(IMAGE_MINUTES)
    scale(path, level)
    smoothed(level, smooth)
    edged = np.pad(level, 1, mode="edge")
    beside = np.stack([(edged[:-2] + level) / 2.0, level, (level + edged[2:]) / 2.0])
    bottom, top = beside.min(axis=0) * (IMAGE_HEIGHT - 1), beside.max(axis=0) * (IMAGE_HEIGHT - 1) + 1.0
    return np.stack([_lit(bottom, top), _lit(np.zeros(IMAGE_MINUTES), smooth * IMAGE_HEIGHT)])[None].astype(np.float32)


def _lit(bottom: Array, top: Array) -> Array:
    """How much of each point of each column lies between two heights."""
    point = np.arange(IMAGE_HEIGHT)[:, None]
    return np.clip(np.minimum(top, point + 1.0) - np.maximum(bottom, point), 0.0, None)[::-1]

"""Price bars from CSV files as the feature vectors that a producer would send.

Owns the reading of bars and what is computed from them. Runs in a producer's process (`feed`, the
demo, tests, benchmarks); reads CSV, also gzipped; sends nothing. What must stay true: a vector knows
nothing that was not known at its event time, one millisecond before its bar's end; prices are given
as they stand in the file, crossed ones too.
"""

import csv
import gzip
import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.client import indicators as closed
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.names import is_symbol
from engine.errors import TickpathError

QUOTES = "ts_ms,bid_open,bid_high,bid_low,bid_close,ask_open,ask_high,ask_low,ask_close"
MIDS = "ts_ms,open,high,low,close,tick_volume"
LAYOUTS = {QUOTES: (4, 8), MIDS: (4, 4)}  # columns of bid and ask at the close

HISTORY = 240
FIRST_BAR = HISTORY + 1  # the first whose price history is full
MINUTE_MS = 60_000
CORRELATION_MINUTES = 60


class BarsError(TickpathError):
    """A file of bars cannot be understood. The message names file and line."""


@dataclass(frozen=True)
class Bars:
    """One symbol's bars, oldest first; closes only."""

    path: str
    symbol: str
    bar_ms: int
    end_ms: npt.NDArray[np.int64]
    bid: npt.NDArray[np.float64]
    ask: npt.NDArray[np.float64]
    mid: npt.NDArray[np.float64]
    minute: npt.NDArray[np.int64]  # Unix minute in which each bar's last millisecond lies

    def mids(self, first: int, last: int) -> npt.NDArray[np.float64]:
        """One mid for each Unix minute of [first, last): its last, or where it has none the one before.

        Minutes before the first bar are left out.
        """
        rows = np.searchsorted(self.minute, np.arange(first, last), side="right") - 1
        return self.mid[rows[rows >= 0]]


def load(path: str) -> Bars:
    """Reads a whole file; its name up to the first dot is the symbol, its smallest step the bars' length."""
    symbol = Path(path).name.partition(".")[0]
    if not is_symbol(symbol):
        raise BarsError(f"{path}: {symbol!r} is no symbol; name the file after one, as in EURUSD.csv.gz")
    rows = list(_rows(path))
    if len(rows) < 2:
        raise BarsError(f"{path}: has {len(rows)} bars; expected two at least, to know how long a bar is")
    start, bid, ask = (np.array(column) for column in zip(*rows, strict=True))
    bar_ms = int(np.diff(start).min())
    end = start.astype(np.int64) + bar_ms
    return Bars(path, symbol, bar_ms, end, bid, ask, (bid + ask) / 2, (end - 1) // MINUTE_MS)


def _rows(path: str) -> Iterator[tuple[int, float, float]]:
    opener = gzip.open if path.endswith(".gz") else open
    before = -1
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as text:
            lines = csv.reader(text)
            header = ",".join(next(lines, []))
            if header not in LAYOUTS:
                raise BarsError(f"{path}, line 1: found {header[:100]!r}; expected {' or '.join(map(repr, LAYOUTS))}")
            bid, ask = LAYOUTS[header]
            for row in lines:
                bar = _bar(row, header.count(",") + 1, bid, ask, f"{path}, line {lines.line_num}")
                if bar[0] <= before:
                    raise BarsError(f"{path}, line {lines.line_num}: time {bar[0]} follows {before}; expected rising")
                before = bar[0]
                yield bar
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BarsError(f"{path}: cannot be read: {error}; expected CSV, plain or gzipped as the name says") from error


def _bar(row: list[str], columns: int, bid: int, ask: int, where: str) -> tuple[int, float, float]:
    if len(row) != columns:
        raise BarsError(f"{where}: found {len(row)} columns; expected {columns}")
    try:
        bar = int(row[0]), float(row[bid]), float(row[ask])
    except ValueError as error:
        raise BarsError(f"{where}: {error}; expected numbers") from error
    if not (0 <= bar[0] < 1 << 53 and 0 < bar[1] < math.inf and 0 < bar[2] < math.inf):
        raise BarsError(f"{where}: found time {row[0]}, close {row[bid]}, {row[ask]}; expected finite and above zero")
    return bar


def vectors(
    bars: Bars,
    first_bar: int = FIRST_BAR,
    indicators: bool = False,
    universe: Sequence[Bars | None] = (),
) -> Iterator[FeatureVector]:
    """A vector for each bar from the `first_bar`-th on (1: from the start of the file).

    The first carries `price_history`: up to 240 mids, one a minute, the last one the close of the
    minute before. `indicators` adds those of the closed minutes before each vector's. `universe`
    adds `cross_asset`: the correlation with each of it, in its order (None: a symbol without bars).
    """
    for row in range(first_bar - 1, len(bars.mid)):
        minute = int(bars.minute[row])
        bid, ask, mid = float(bars.bid[row]), float(bars.ask[row]), float(bars.mid[row])
        vector = FeatureVector(symbol=bars.symbol, timestamp_ns=(int(bars.end_ms[row]) - 1) * 1_000_000)
        prices = vector.price_features
        prices.bid, prices.ask, prices.spread, prices.mid_price = bid, ask, ask - bid, mid
        if row == first_bar - 1:
            vector.price_history.mid_prices.extend(bars.mids(minute - HISTORY, minute).tolist())
        if indicators:
            closed.fill(vector.technical_indicators, bars.mids(minute - HISTORY, minute).tolist())
        for other in universe:
            vector.cross_asset.correlation_scores.append(correlation(bars, other, minute))
        yield vector


def correlation(one: Bars, other: Bars | None, minute: int) -> float:
    """Of one-minute log returns over the 60 closed minutes before `minute`.

    0.0 where it is not known: bars that do not reach back that far or have ended, or a price that
    did not move.
    """
    if other is None or int(other.minute[-1]) < minute - 1:
        return 0.0
    series = [bars.mids(minute - CORRELATION_MINUTES - 1, minute) for bars in (one, other)]
    if min(map(len, series)) <= CORRELATION_MINUTES:
        return 0.0
    a, b = (np.diff(np.log(mids)) for mids in series)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return min(1.0, max(-1.0, float(a @ b) / scale)) if scale > 0 else 0.0


def interleave(
    files: Sequence[Bars],
    first_bar: int = FIRST_BAR,
    indicators: bool = False,
    universe: Sequence[str] | None = None,
) -> Iterator[FeatureVector]:
    """The vectors of all files by event time; at equal times in the order of the files.

    `universe` names the symbols of `cross_asset` in their order; None leaves it out.
    """
    by_symbol = {bars.symbol: bars for bars in files}
    if len(by_symbol) < len(files):
        twice = sorted({bars.path for bars in files if by_symbol[bars.symbol] is not bars})
        raise BarsError(f"{', '.join(twice)}: another file has the same symbol; give one file a symbol")
    others = [by_symbol.get(symbol) for symbol in universe or ()]
    each = [vectors(bars, first_bar, indicators, others) for bars in files]
    return heapq.merge(*each, key=lambda vector: vector.timestamp_ns)

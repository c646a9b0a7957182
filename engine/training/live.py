"""What the engine itself answers over a part of the data: its kernels, its models, its moving intervals.

Owns the walk of bars through a loaded predictor; run by `python -m engine.training` and by tests. Reads a
model store and bars; `engine.training.price_scores` says what the answers were worth. What must stay true:
answers come from the worker's own code, one vector a minute at its close; multipliers follow outcomes as
they do live, from the manifest's on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine import limits
from engine.contract.names import HORIZON_MINUTES, Kind
from engine.inference.features import FEATURE_NAMES, MASK
from engine.inference.microbatch import cut
from engine.inference.predictor import Predictor
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from engine.training.bootstrap import When
from engine.training.data import SIMULTANEOUS, Bars, drawn, fill_slots, futures, parts_of, read_bars
from fastpath import layout

WARM = 1500  # minutes before the part, so that windows are full and multipliers have settled
CHUNK = 512
BUY = 3
ENTERPRISE = 3
MOVE, GAP = FEATURE_NAMES.index("move_1"), FEATURE_NAMES.index("sma_20_gap")


class Said(NamedTuple):
    """One row a minute; (n, horizons) where it says so. Prices but for `sigma`, which is in bp."""

    symbol: np.ndarray
    minute: np.ndarray
    mid: np.ndarray
    sigma: np.ndarray
    price: np.ndarray  # (n, horizons)
    lower: np.ndarray  # (n, horizons)
    upper: np.ndarray  # (n, horizons)
    rise: np.ndarray  # (n, horizons) chance, given a move
    log_q: np.ndarray  # (n, horizons) what outcomes had added to the multipliers
    last_move: np.ndarray
    gap: np.ndarray  # above (+) or below a mean of 20 minutes
    outcome: np.ndarray  # (n, horizons) closes h minutes later; NaN where there was no quote

    @property
    def when(self) -> When:
        return When(
            self.minute, np.where(np.isin(self.symbol, SIMULTANEOUS), SIMULTANEOUS[0], self.symbol), self.symbol
        )


def open_predictor(store: Path, max_batch: int = 16) -> Predictor:
    """A worker's predictor without a worker."""
    versions = np.zeros(limits.VERSIONS_MAX, layout.version_row_dtype)
    names = np.zeros(limits.FEATURE_NAMES_MAX, f"S{limits.FEATURE_NAME_BYTES}")
    plans = np.zeros(layout.plans_max, layout.plan_row_dtype)
    manifests = read_store(store)
    fill_versions(manifests, versions, names)
    fill_plans(manifests, plans)
    child = np.zeros(1, layout.child_row_dtype)
    child["seat"] = 1
    predictor = Predictor(store, versions, plans, child, max_batch)
    predictor.load()
    return predictor


def answers_of(predictor: Predictor, bars: Bars) -> Said:
    """Every bar's close as a vector of one enterprise key, in order."""
    count = len(bars.minute)
    nothing, shown = np.full((count, 1), np.nan), drawn(bars, np.full(count, ""))
    window = np.zeros((1, layout.window), layout.window_entry_dtype)
    both, slots = np.zeros(2 * CHUNK, layout.request_slot_dtype), np.zeros(CHUNK, layout.request_slot_dtype)
    answers = np.zeros(CHUNK, layout.answer_slot_dtype)
    both["kind"], both["generation"], both["indicators"], both["tier"] = Kind.VECTOR, 1, np.nan, ENTERPRISE
    keys, steps, step, depth = np.zeros(16, "u4"), np.zeros(16, "i8"), layout.history_max, 0
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("entry", "answer")}
    for first in range(0, count, CHUNK):
        size = min(CHUNK, count - first)
        step, depth = fill_slots(bars, nothing, shown, first, both[: 2 * size], step, depth)
        slots[:size] = both[: 2 * size : 2]  # what is drawn of these bars is their close
        at = 0
        while at < size:
            taken = cut(slots, at, min(size - at, 16), limits.STEPS_SPARE, keys, steps)
            predictor.predict(slots, at, taken, np.ones(taken, "u1"), window, answers, at, 0)
            found["entry"].append(window[0][slots["step"][at : at + taken] & MASK].copy())
            at += taken
        found["answer"].append(answers[:size].copy())
    entry, answer = np.concatenate(found["entry"]), np.concatenate(found["answer"])
    confidence = answer["horizon_confidence"]
    future, quoted = futures(bars)
    at_horizon = np.array(HORIZON_MINUTES) - 1
    return Said(
        symbol=np.full(count, bars.symbol),
        minute=bars.minute,
        mid=bars.mid,
        sigma=entry["sigma"],
        price=answer["price"],
        lower=answer["lower"],
        upper=answer["upper"],
        rise=np.where(answer["horizon_direction"] == BUY, confidence, 1.0 - confidence),
        log_q=entry["log_q"],
        last_move=entry["row"][:, MOVE],
        gap=entry["row"][:, GAP],
        outcome=np.where(quoted[:, at_horizon], future[:, at_horizon], np.nan),
    )


def joined(every: Sequence[Said]) -> Said:
    return Said(*(np.concatenate(columns) for columns in zip(*every, strict=True)))


def chosen(said: Said, rows: np.ndarray) -> Said:
    return Said(*(each[rows] for each in said))


def answers_of_files(predictor: Predictor, folder: Path, report: Callable[[str], None]) -> tuple[Said, Said]:
    """The last part of each file, and for the baselines the first (without answers: they are fitted on outcomes)."""
    every = [read_bars(path) for path in sorted(folder.glob("*.csv.gz"))]
    late, early = [], []
    for bars in every:
        group = [each for each in every if each.symbol in SIMULTANEOUS] if bars.symbol in SIMULTANEOUS else [bars]
        part = parts_of(bars.minute, np.concatenate([each.minute for each in group]))
        begin = max(int(np.argmax(part == "test")) - WARM, 0)
        said = answers_of(predictor, cut_bars(bars, begin, len(bars.minute)))
        late.append(chosen(said, np.flatnonzero(part[begin:] == "test")))
        early.append(plain(bars, np.flatnonzero(part == "train")))
        report(f"{bars.symbol}: {len(late[-1].minute):,} answers")
    return joined(late), joined(early)


def cut_bars(bars: Bars, begin: int, end: int) -> Bars:
    quarters = None if bars.quarters is None else bars.quarters[begin:end]
    return Bars(bars.symbol, bars.minute[begin:end], bars.bid[begin:end], bars.ask[begin:end], quarters)


def plain(bars: Bars, rows: np.ndarray) -> Said:
    """What the baselines are fitted on: last moves, gaps and outcomes."""
    mid, nothing = bars.mid, np.full((len(rows), len(HORIZON_MINUTES)), np.nan)
    mean = np.convolve(mid, np.ones(20) / 20.0)[: len(mid)]
    future, quoted = futures(bars)
    at = np.array(HORIZON_MINUTES) - 1
    return Said(
        np.full(len(rows), bars.symbol), bars.minute[rows], mid[rows], np.full(len(rows), np.nan), *(nothing,) * 5,
        np.diff(mid, prepend=mid[0])[rows], (mid - mean)[rows],
        np.where(quoted[:, at], future[:, at], np.nan)[rows],
    )  # fmt: skip

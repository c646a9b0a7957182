"""Which rows may teach, calibrate and judge: parts of time, symbols in turn, and the distance between them.

Owns index arithmetic and nothing else; run by `python -m engine.training` and by tests. Reads minutes
and names. What must stay true: no label that belongs to a part uses a minute of another one; files of
the same time are cut at the same instants, because what one symbol did tells about the others; between
two parts lie hours that belong to none.

References
----------
Lopez de Prado, Advances in Financial Machine Learning, 2018, chapter 7: purging and embargo.
Bergmeir and Benitez, On the use of cross-validation for time series predictor evaluation, 2012.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

EMBARGO_MINUTES = 240  # as far as a window of minutes looks back
DAY_MINUTES = 1440


class Part(NamedTuple):
    """Instants from `begin` up to but not `end`, in Unix minutes."""

    name: str
    begin: int
    end: int


class Fold(NamedTuple):
    """Row numbers that fit and that judge, and what was left out of fitting."""

    name: str
    fit: np.ndarray
    judge: np.ndarray


def groups_by_time(minutes: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Name of the group of each file: files whose spans of time overlap share one, called by its first file.

    >>> spans = {"EURUSD": [0, 9], "GBPUSD": [50, 60], "NZDUSD": [5, 20], "XAUUSD": [18, 30]}
    >>> groups_by_time({name: np.array(each) for name, each in spans.items()})
    {'EURUSD': 'EURUSD', 'NZDUSD': 'EURUSD', 'XAUUSD': 'EURUSD', 'GBPUSD': 'GBPUSD'}
    """
    out: dict[str, str] = {}
    current, reached = "", -math.inf
    for name in sorted(minutes, key=lambda each: (int(minutes[each].min()), each)):
        if minutes[name].min() > reached:
            current = name
        reached = max(reached, float(minutes[name].max()))
        out[name] = current
    return out


def parts_by_time(minute: np.ndarray, shares: Mapping[str, float], embargo: int = EMBARGO_MINUTES) -> list[Part]:
    """One part after the other, each with its share of the instants that have a row, `embargo` minutes apart.

    minute: of all files of one group together. The embargo is taken from the later part's begin.

    >>> parts_by_time(np.arange(1000), {"train": 0.6, "calibration": 0.2, "test": 0.2}, embargo=50)
    [Part(name='train', begin=0, end=600), Part(name='calibration', begin=650, end=800), \
Part(name='test', begin=850, end=1000)]
    """
    if not shares or min(shares.values()) <= 0.0 or not math.isclose(sum(shares.values()), 1.0):
        raise ValueError(f"shares: expected positive numbers that add up to 1, found {dict(shares)}; correct them")
    instants = np.unique(minute)
    cuts = np.round(np.cumsum([0.0, *shares.values()]) * len(instants)).astype(int)
    parts = []
    for name, low, high in zip(shares, cuts[:-1], cuts[1:], strict=True):
        first = int(instants[low]) if low < len(instants) else int(instants[-1]) + 1
        end = int(instants[high]) if high < len(instants) else int(instants[-1]) + 1
        begin = first + (embargo if low else 0)
        if begin >= end:
            raise ValueError(
                f"part {name}: expected more than the embargo of {embargo} minutes, found {end - first} "
                f"from minute {first} on; give it a larger share or more data"
            )
        parts.append(Part(name, begin, end))
    return parts


def members(minute: np.ndarray, reach: int, part: Part) -> np.ndarray:
    """Row numbers whose own minute and whole label, `reach` minutes ahead, lie in the part.

    >>> members(np.arange(10), 3, Part("train", 2, 8)).tolist()
    [2, 3, 4]
    """
    minute = np.asarray(minute)
    return np.flatnonzero((minute >= part.begin) & (minute + reach < part.end))


def assign(
    minute: np.ndarray, group: np.ndarray, reach: int, shares: Mapping[str, float], embargo: int = EMBARGO_MINUTES
) -> np.ndarray:
    """(n,) name of each row's part, '' where a row belongs to none. Each group is cut at instants of its own.

    >>> assign(np.arange(8), np.array(["A"] * 8), 1, {"train": 0.5, "test": 0.5}, embargo=1).tolist()
    ['train', 'train', 'train', '', '', 'test', 'test', '']
    """
    out = np.full(len(minute), "", f"U{max(map(len, shares))}")
    for each in np.unique(group):
        rows = np.flatnonzero(group == each)
        for part in parts_by_time(minute[rows], shares, embargo):
            out[rows[members(minute[rows], reach, part)]] = part.name
    return out


def apart(minute: np.ndarray, reach: int, judged: Part, embargo: int = EMBARGO_MINUTES) -> np.ndarray:
    """Which rows may be fitted on while `judged` is judged, earlier or later ones.

    Purged: rows whose label reaches into the part, and rows within the part's labels. Embargoed: rows less than
    `embargo` minutes before it or after the last of its labels ended, because what happens lasts.

    >>> apart(np.arange(12), 2, Part("third", 4, 8), embargo=1).tolist()
    [True, False, False, False, False, False, False, False, False, True, True, True]
    """
    minute = np.asarray(minute)
    before = minute + reach + embargo < judged.begin
    after = minute >= judged.end + embargo
    return before | after


def time_folds(
    minute: np.ndarray, group: np.ndarray, reach: int, count: int, embargo: int = EMBARGO_MINUTES
) -> Iterator[Fold]:
    """Each group's time in `count` pieces; fold k judges on every group's k-th piece and fits on the rest, purged.

    Rows of other groups than the judged ones are never near it in time, and are purged from their own piece all
    the same, so that a fold leaves out one piece of everything. Outputs for the judged rows of all folds together
    are out-of-fold for every row but those at the edges, whose labels would cross.
    """
    if count < 2:
        raise ValueError(f"folds: expected at least 2, found {count}; give a larger number")
    pieces = {
        each: parts_by_time(minute[group == each], {str(k): 1.0 / count for k in range(count)}, embargo=0)
        for each in np.unique(group)
    }
    for k in range(count):
        fit, judge = np.zeros(len(minute), bool), np.zeros(len(minute), bool)
        for each, parts in pieces.items():
            rows = np.flatnonzero(group == each)
            fit[rows] = apart(minute[rows], reach, parts[k], embargo)
            judge[rows[members(minute[rows], reach, parts[k])]] = True
        yield Fold(str(k), np.flatnonzero(fit), np.flatnonzero(judge))


def symbol_folds(
    symbol: np.ndarray, part: np.ndarray, fit_parts: Sequence[str] = ("train",), judge_parts: Sequence[str] = ("test",)
) -> Iterator[Fold]:
    """Each symbol left out in turn: fitted on the others' earlier parts, judged on its own later ones.

    part: as `assign` gives it, so what is judged is new in time too, and no simultaneous file tells of its instants.

    >>> symbols, parts = np.array(["A", "A", "B", "B"]), np.array(["train", "test", "train", "test"])
    >>> [(fold.name, fold.fit.tolist(), fold.judge.tolist()) for fold in symbol_folds(symbols, parts)]
    [('A', [2], [1]), ('B', [0], [3])]
    """
    both = set(fit_parts) & set(judge_parts)
    if both:
        raise ValueError(f"parts: expected each to fit or to judge, found {sorted(both)} in both; take it out of one")
    fits, judges = np.isin(part, fit_parts), np.isin(part, judge_parts)
    for name in np.unique(symbol):
        own = symbol == name
        yield Fold(str(name), np.flatnonzero(fits & ~own), np.flatnonzero(judges & own))


def outside(
    minute: np.ndarray, spans: Sequence[tuple[int, int]], reach: int, margin: int = 2 * DAY_MINUTES
) -> np.ndarray:
    """Rows that keep so many minutes from every span, labels included: hours beside the minutes that are judged.

    spans: first and last minute of each. The margin is larger than what two clocks may differ by.

    >>> outside(np.array([0, 40, 75, 130, 200]), [(100, 120)], reach=10, margin=20).tolist()
    [True, True, False, False, True]
    """
    minute = np.asarray(minute)
    free = np.ones(len(minute), bool)
    for first, last in spans:
        free &= (minute + reach < first - margin) | (minute > last + margin)
    return free

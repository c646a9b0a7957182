"""Networks that never saw a symbol: the multipliers that intervals begin with, and the largest test there is.

Owns both uses of the five networks that are each fitted without one symbol; run by `python -m
engine.training`. What must stay true: a network is asked about the symbol that it was not fitted on and about
no other; what it answers, it answers through the engine, as the model itself does.

Every minute of a symbol is new to its network, the minutes of the training part as well. Three files are of the
same weeks: for those the network saw the others at the same minutes, so only the two files that are alone in
their year are new in time too. The heads' scales and the multipliers are the model's own, found on the
calibration part of all five, which is eight and four numbers that all symbols share.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.training import artefacts, live, network, price
from engine.training.data import SIMULTANEOUS, Examples, read_bars
from engine.training.price_scores import Judged, judge

if TYPE_CHECKING:
    from engine.training.price import Plan


def networks(examples: Examples, plan: "Plan", report: Callable[[str], None]) -> dict[str, network.Parameters]:
    """One a symbol, fitted without it, on less than the model itself."""
    quick = plan._replace(epochs=2, share=plan.share / 2.0)
    teach = price.ready_rows(examples, "train")
    out = {}
    for symbol in np.unique(examples.symbol):
        rows = teach[examples.symbol[teach] != symbol]
        out[str(symbol)] = price.learn(examples, rows, quick, partial(_about, report, f"without {symbol}: ")).parameters
    return out


def conformal_q(distance: np.ndarray) -> float:
    """The multiplier that covers 90 % of what comes next, if it is like these: their ceil(0.9 (n + 1))-th.

    >>> conformal_q(np.arange(1.0, 100.0))
    90.0
    """
    ordered = np.sort(distance[np.isfinite(distance)])
    return float(ordered[min(int(np.ceil(0.9 * (len(ordered) + 1))), len(ordered)) - 1])


def multipliers(examples: Examples, fitted: Mapping[str, network.Parameters], scale: np.ndarray) -> np.ndarray:
    """From each symbol's calibration part, as its network predicts it: one a horizon."""
    steady = price.ready_rows(examples, "calibration")
    distances = []
    for symbol, parameters in fitted.items():
        own = steady[examples.symbol[steady] == symbol]
        median, _ = network.predict(network.lstm, parameters, examples.rows[own])
        distances.append(np.abs(examples.move[own] - scale * median))
    found = np.concatenate(distances)
    return np.array([conformal_q(found[:, h]) for h in range(found.shape[1])])


def answers(
    examples: Examples, fitted: Mapping[str, network.Parameters], manifest: Mapping[str, Any], data: Path,
    report: Callable[[str], None],
) -> tuple[live.Said, live.Said]:  # fmt: skip
    """Each symbol's minutes but the first, by the network without it; and the training part, for the baselines."""
    said, early = [], []
    for symbol, parameters in fitted.items():
        bars = read_bars(data / f"{symbol}.csv.gz")
        with TemporaryDirectory() as folder:
            artefact = artefacts.lstm_bytes(parameters, len(HORIZON_MINUTES))
            artefacts.write(Path(folder), artefact, "model.onnx", {**manifest, "quality": {}}, "")
            whole = live.answers_of(live.open_predictor(Path(folder)), bars)
        said.append(live.chosen(whole, np.arange(live.WARM, len(bars.minute))))
        early.append(live.plain(bars, np.flatnonzero(examples.part[examples.symbol == symbol] == "train")))
        report(f"without {symbol}: {len(said[-1].minute):,} answers about it")
    return live.joined(said), live.joined(early)


def line(each: Judged) -> dict[str, float]:
    excess = each.excess["climatology"]
    return {
        "rows": each.rows,
        "coverage": each.moving.share,
        "excess": excess.mean,
        "excess_standard_error": excess.standard_error,
        "said": each.said,
        "right": each.right.mean,
        "right_standard_error": each.right.standard_error,
        "confidence_error": each.confident.error,
        "confidence_band": each.confident.band,
    }


def quality(
    examples: Examples, fitted: Mapping[str, network.Parameters], manifest: Mapping[str, Any], data: Path,
    report: Callable[[str], None],
) -> dict[str, list[float]]:  # fmt: skip
    """For the manifest: of all five symbols, and of the two that are alone in their year."""
    said, early = answers(examples, fitted, manifest, data, report)
    alone = ~np.isin(said.symbol, SIMULTANEOUS)
    q = np.asarray(manifest["calibration"]["q"])
    out: dict[str, list[float]] = {}
    for name, rows in (("unseen", np.arange(len(alone))), ("unseen_alone", np.flatnonzero(alone))):
        lines = [line(each) for each in judge(live.chosen(said, rows), early, q)]
        out |= {f"{name}_{key}": [each[key] for each in lines] for key in lines[0]}
    return out


def _about(report: Callable[[str], None], what: str, line: str) -> None:
    report(what + line)

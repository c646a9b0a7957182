"""What the engine's price answers were worth, horizon by horizon.

Owns the scores of `engine.training.live`'s answers and their names in manifests; run by `python -m
engine.training` and by tests. Reads answers with their outcomes. What must stay true: every score stands beside
what is known without a model, with a standard error from blocks of time in which simultaneous symbols
stay together; what is judged of chances is what the engine publishes: a side, and how sure it is of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.training import scores
from engine.training.bootstrap import Estimate, difference, mean_score
from engine.training.data import SIMULTANEOUS
from engine.training.live import Said, chosen
from engine.training.reliability import Calibration, calibration, confidence_calibration
from engine.training.scores import Coverage, Widths, coverage, coverage_by, widths

ROOTS = np.sqrt(np.array(HORIZON_MINUTES))
DAY_MINUTES = 1440
HOURS = 3  # of a day that are judged together
DAY_ROWS = 600  # a day with fewer of them is not shown


class Judged(NamedTuple):
    """One horizon."""

    minutes: int
    rows: int
    moving: Coverage  # of the answers' intervals
    fixed: float  # share that the manifest's multipliers alone would have covered
    width: Widths
    coverage_by: dict[str, dict[str, Coverage]]  # symbol, hour of the day, day of the part
    width_by: dict[str, dict[str, float]]  # the same; medians, in bp of the mid
    error: Estimate  # absolute error less that of no move, in sigma sqrt(h)
    error_share: float
    rise_share: float  # of rises among moves
    brier: float
    baselines: dict[str, float]  # Brier scores
    excess: dict[str, Estimate]  # of the Brier score over each baseline's
    right: Estimate  # share of signs, where there was a move and the model had an opinion
    said: float  # mean confidence, where there was a move
    confident: Calibration  # of the published confidence
    rising: Calibration  # of the chance of a rise, which no answer says


def likeness(early: Said) -> float:
    """Mean correlation of the simultaneous symbols' one-minute moves, two by two."""
    names = [name for name in SIMULTANEOUS if (early.symbol == name).any()]
    found = []
    for n, name in enumerate(names):
        for other in names[:n]:
            a, b = early.symbol == name, early.symbol == other
            _, left, right = np.intersect1d(early.minute[a], early.minute[b], return_indices=True)
            moves = (early.last_move / early.mid)[a][left], (early.last_move / early.mid)[b][right]
            found.append(float(np.corrcoef(*moves)[0, 1]))
    return max(float(np.mean(found)), 0.0) if found else 0.0


def groups_of(said: Said) -> dict[str, np.ndarray]:
    """Names by which coverage and width are told apart."""
    first = {name: said.minute[said.symbol == name].min() for name in np.unique(said.symbol)}
    day = (said.minute - np.array([first[name] for name in said.symbol])) // DAY_MINUTES
    hour = said.minute % DAY_MINUTES // 60 // HOURS * HOURS
    return {"symbol": said.symbol, "hour": hour.astype(str), "day": day.astype(str)}


def judge_horizon(said: Said, early: Said, h: int, q: float) -> Judged:
    """What was said for the h-th horizon, beside baselines fitted on `early`."""
    minutes = HORIZON_MINUTES[h]
    known = np.flatnonzero(np.isfinite(said.outcome[:, h]) & np.isfinite(said.price[:, h]))
    here = chosen(said, known)
    outcome, scale = here.outcome[:, h], here.mid * here.sigma * ROOTS[h] * 1e-4
    inside = (here.lower[:, h] <= outcome) & (outcome <= here.upper[:, h])
    # Straight intervals around the same price: what the engine's would be without following outcomes.
    fixed = np.abs(outcome - here.price[:, h]) <= q * scale
    wide = 1e4 * (here.upper[:, h] - here.lower[:, h]) / here.mid
    groups = groups_of(here)
    error, still = np.abs(outcome - here.price[:, h]) / scale, np.abs(outcome - here.mid) / scale
    moved = np.flatnonzero(outcome != here.mid)
    there, rise = chosen(here, moved), outcome[moved] > here.mid[moved]
    chance, alike = there.rise[:, h], likeness(early)
    own, plain = scores.brier(chance, rise), known_without(early, there, h)
    spoke = np.flatnonzero(chance != 0.5)
    right = ((chance > 0.5) == rise).astype("f8")[spoke] if len(spoke) else np.full(2, 0.5)
    return Judged(
        minutes,
        len(known),
        coverage(inside, minutes),
        float(fixed.mean()),
        widths(*(each / here.mid for each in (here.lower[:, h], here.upper[:, h], outcome, here.mid, scale))),
        {name: coverage_by(inside, group, minutes) for name, group in groups.items()},
        {
            name: {str(each): float(np.median(wide[group == each])) for each in np.unique(group)}
            for name, group in groups.items()
        },
        difference(error, still, minutes, when=here.when),
        float(error.mean() / still.mean()),
        float(rise.mean()),
        float(own.mean()),
        {name: float(scores.brier(each, rise).mean()) for name, each in plain.items()},
        {
            name: difference(own, scores.brier(each, rise), minutes, when=there.when)
            for name, each in plain.items()
        },
        mean_score(right, minutes, when=chosen(there, spoke).when if len(spoke) else None),
        float(np.maximum(chance, 1.0 - chance).mean()),
        confidence_calibration(chance, rise, minutes, there.when, correlation=alike),
        calibration(chance, rise, minutes, there.when, correlation=alike),
    )  # fmt: skip


def known_without(early: Said, there: Said, h: int) -> Mapping[str, np.ndarray]:
    """Chances of a rise that need no model."""
    seen = np.isfinite(early.outcome[:, h]) & (early.outcome[:, h] != early.mid)
    known_rise = early.outcome[seen, h] > early.mid[seen]
    return scores.baselines(early.last_move[seen], early.gap[seen], known_rise, there.last_move, there.gap).named()


def judge(said: Said, early: Said, q: np.ndarray) -> list[Judged]:
    return [judge_horizon(said, early, h, float(q[h])) for h in range(len(HORIZON_MINUTES))]


# -- for manifests ---------------------------------------------------------------------------------


def calibrated(name: str, found: Calibration) -> dict[str, Any]:
    """A calibration error with its band, and its diagram."""
    chance, share, _, low, high = found.diagram
    diagram = {f"{name}_said": chance, f"{name}_happened": share, f"{name}_low": low, f"{name}_high": high}
    return {f"{name}_error": found.error, f"{name}_band": found.band, f"{name}_p": found.p_value, **diagram}


def line(each: Judged) -> dict[str, Any]:
    """One horizon's numbers by the names that manifests have for them."""
    out: dict[str, Any] = {
        "rows": each.rows,
        "independent_rows": each.moving.independent_rows,
        "independent_moves": each.excess["climatology"].independent_rows,
        "coverage": each.moving.share,
        "coverage_fixed": each.fixed,
        "width": each.width.median * 1e4,
        "width_ratio": each.width.ratio,
        "error_share": each.error_share,
        "error_difference": each.error.mean,
        "error_standard_error": each.error.standard_error,
        "rise_share": each.rise_share,
        "brier": each.brier,
        **{f"brier_of_{name.replace(' ', '_')}": score for name, score in each.baselines.items()},
        "right": each.right.mean if each.right.rows > 2 else 0.5,
        "right_standard_error": each.right.standard_error,
        "said": each.said,
    }
    for name, found in each.excess.items():
        short = f"over_{name.replace(' ', '_')}"
        out |= {short: found.mean, f"{short}_standard_error": found.standard_error}
        out |= {f"{short}_low": found.low, f"{short}_high": found.high}
    return out | calibrated("confidence", each.confident) | calibrated("rise", each.rising)


def quality(judged: Sequence[Judged]) -> dict[str, Any]:
    """For the manifest: one number a horizon, or a list of them."""
    lines = [line(each) for each in judged]
    out: dict[str, Any] = {name: [each[name] for each in lines] for name in lines[0]}
    for name in ("symbol", "hour", "day"):
        shares, wide = [each.coverage_by[name] for each in judged], [each.width_by[name] for each in judged]
        enough = [{key for key, one in of.items() if name != "day" or one.rows >= DAY_ROWS} for of in shares]
        keys = sorted(set.intersection(*enough), key=lambda key: (len(key), key))
        out[f"{name}s"] = keys if name == "symbol" else [int(key) for key in keys]
        out[f"coverage_by_{name}"] = [[of[key].share for key in keys] for of in shares]
        out[f"allowance_by_{name}"] = [[of[key].allowance for key in keys] for of in shares]
        out[f"width_by_{name}"] = [[of[key] for key in keys] for of in wide]
    return out

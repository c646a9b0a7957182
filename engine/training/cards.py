"""Model cards: what each bundled model is, and what it was measured to be worth, for people.

Owns their words; run by `python -m engine.training`. What must stay true: every number comes from the
test part, and stands beside what is known without the model.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from engine.contract.names import HORIZON_MINUTES

WIDTH = 120


def _page(title: str, *blocks: str) -> str:
    """Paragraphs are wrapped, tables stay as they are."""
    whole = [block if block.startswith("|") else textwrap.fill(" ".join(block.split()), WIDTH) for block in blocks]
    return "\n\n".join([f"# {title}", *whole]) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [[f"{each:.4f}" if isinstance(each, float) else str(each) for each in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *cells])


def price(quality: Mapping[str, Sequence[float]], q: np.ndarray, hidden: int, features: int, count: int) -> str:
    columns = ("error_share", "brier", "brier_of_half", "right", "standard_error", "right_last_move", "coverage")
    rows = [
        [minutes, *(float(quality[name][h]) for name in columns), float(q[h])]
        for h, minutes in enumerate(HORIZON_MINUTES)
    ]
    head = (
        "horizon (min)", "error over that of no move", "Brier score of a rise", "of always 0.5", "sign right",
        "its standard error", "sign of the last minute right", "coverage of the 90 % interval", "multiplier",
    )  # fmt: skip
    return _page(
        "basic_lstm 1.0",
        f"""One LSTM layer of {hidden} units over 49 closed minutes and the open one, {features} features a minute, all
        horizons in one pass. Made by `python -m engine.training` from `data/fx_m1`: fitted on the first 60 % of each
        file's minutes, its heads scaled and its interval multipliers measured on the next 18 %, and judged on the last
        22 %; four hours between the parts belong to none.""",
        f"""Measured on {count:,} minutes of the last part, with fixed multipliers (the engine moves them by each key's
        outcomes):""",
        _table(head, rows),
        """There is little skill here, as markets lead one to expect: an error just below 1 is better than no move by
        that little, one above 1 is worse. What can be relied on is the width of the intervals. The standard errors
        count one of h neighbouring minutes, because their outcomes overlap; three of the five symbols are of the same
        two weeks and move together, so the true ones are larger. What exceeds them at the short horizons was there in
        these weeks, before any cost, and is no promise.""",
    )


def pattern(
    quality: Mapping[str, Sequence[float]], touch: np.ndarray, names: Sequence[str], minutes: int, count: int
) -> str:
    columns = ("rate", "shown", "shown_on_random_walks", "brier", "brier_of_rate")
    rows = [[name, *(float(quality[each][k]) for each in columns), float(touch[k])] for k, name in enumerate(names)]
    head = (
        "pattern", "rule holds", "shown (above 0.3)", "shown on random walks", "Brier score", "of the rate alone",
        "target touched first",
    )  # fmt: skip
    return _page(
        "simple_pattern 1.0",
        """Two convolutions over a picture, 16 points high, of the last 64 closed mids, lowest at the bottom, highest at
        the top. It learns to see what published rules say (`engine/training/patterns.py` gives each rule and its
        source); its probability is the calibrated chance that the rule holds now, and says nothing about what the
        price will do.""",
        f"Measured on {count:,} minutes that were used for neither fitting nor calibration:",
        _table(head, rows),
        f"""Patterns are shown on random walks about as often as on real minutes: a shown pattern describes the past
        hour and forecasts nothing. The target lies half the window's range away, {minutes} minutes are given for it,
        and its chance is the share measured on the calibration part, drawn towards that of all windows where few
        were shown. Small shapes within the hour (head and shoulders, triangles) are mostly too fine for this
        model, and it then says so by a low probability.""",
    )


def direction(quality: Mapping[str, float], rates: np.ndarray, trees: int, columns: int, count: int) -> str:
    rows = [
        ("log loss of sell, hold, buy", quality["log_loss"], quality["log_loss_of_rates"]),
        ("Brier score: any touch or none (volatility)", quality["brier_of_touch"], quality["brier_of_touch_rate"]),
        ("Brier score: which side, given a touch (direction)", quality["brier_of_side"], quality["brier_of_side_rate"]),
    ]
    sell, hold, buy = rates
    return _page(
        "xgboost_direction 3.2",
        f"""{trees} trees of depth 3 over {columns} numbers. Its label is the first touch of 0.65 sigma sqrt(15)
        above or below the mid by a minute's close within 15 minutes; neither is HOLD. Fitted on the first 60 % of each
        file's minutes, calibrated on the next 18 %; four hours between the parts belong to none.""",
        f"""Measured on {count:,} minutes of the last 22 %, beside the training part's rates (sell {sell:.3f}, hold
        {hold:.3f}, buy {buy:.3f}):""",
        _table(("", "model", "rates alone"), rows),
        f"""Given a touch, the side it held for likelier was touched {100 * quality["side_right"]:.1f} % of the time.
        Most of what this model knows is whether anything will happen; of the side it knows very little. The labels of
        neighbouring minutes overlap, so these are fewer independent cases than minutes.""",
    )

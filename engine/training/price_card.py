"""Cards of the price models: what they are, and what their answers were measured to be worth.

Owns the words, tables and plots; run by `python -m engine.training`, after the manifest was written. Reads the
manifest alone, so that a card, the report and the manifest never say different numbers. What must stay true:
every number comes from data that the network was not fitted on and from the engine's own answers, and
stands beside what is known without a model.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.training import plots
from engine.training.cards import page as written
from engine.training.cards import table

Quality = Mapping[str, Any]
HORIZON = "horizon (min)"
# Of `python -m engine.training.simulated`, seed 20260106.
KNOWN_LAW = """On markets of known law (`python -m engine.training.simulated`: three of 9,000 minutes each, GARCH with
    jumps, ticks of 0.1 and 1 pip, flickering quotes, a fifth of the minutes missing; and a random walk) the small
    network taught on them is right to two standard errors in all 36 respects: coverage (0.888 to 0.904), Brier score
    (no worse than climatology's, no better than the truth's) and calibration of the confidence, on three markets at
    four horizons. It says one half there at nearly every horizon, and does not find the flicker, by which whoever
    knows the price behind the quotes gains 0.002 and 0.009 of the Brier score at 1 minute. Where moves carry over
    (a fifth of the last one) it finds that at 1 minute: 0.530 said on average, 0.535 true. The bundled
    versions were taught by real weeks and carry their reversals along: on those markets their intervals still
    cover 90 % (0.8979 to 0.8999 up to 15 minutes, 0.890 to 0.904 at 60), but their confidence, 0.526 to 0.532 at 1
    minute, comes true about half of the time (0.500 to 0.506)."""
BASELINES = {
    "random_walk": "of one half", "climatology": "of climatology",
    "last_direction": "of the last direction", "mean_reversion": "of mean reversion",
}  # fmt: skip


def rows_of(horizons: Sequence[int], *columns: Sequence[str]) -> list[list[object]]:
    return [[minutes, *cells] for minutes, *cells in zip(horizons, *columns, strict=True)]


def shown(values: Sequence[float], form: str = ".4f") -> list[str]:
    return [f"{each:{form}}" for each in values]


def with_errors(quality: Quality, name: str, form: str = ".4f") -> list[str]:
    errors = quality[f"{name}_standard_error"]
    return [f"{each:{form}} ± {error:{form.lstrip('+')}}" for each, error in zip(quality[name], errors, strict=True)]


def coverage_table(quality: Quality, horizons: Sequence[int], q: Sequence[float]) -> str:
    head = (
        HORIZON, "rows", "rows / horizon", "coverage", "by symbol", "allowance for one symbol",
        "with fixed multipliers", "median width over plain", "multiplier at the beginning",
    )  # fmt: skip
    by_symbol = [f"{min(each):.3f} to {max(each):.3f}" for each in quality["coverage_by_symbol"]]
    allowed = [f"{max(each):.3f}" for each in quality["allowance_by_symbol"]]
    columns = (
        shown(quality["rows"], ",d"), shown(quality["independent_rows"], ",.0f"), shown(quality["coverage"]), by_symbol,
        allowed, shown(quality["coverage_fixed"]), shown(quality["width_ratio"], ".3f"), shown(q),
    )  # fmt: skip
    return table(head, rows_of(horizons, *columns))


def score_table(quality: Quality, horizons: Sequence[int]) -> str:
    """Brier scores of a rise, where there was a move, beside those that need no model."""
    head = (HORIZON, "Brier score of a rise", *BASELINES.values(), "difference to climatology", "its 95 % band")
    low, high = quality["over_climatology_low"], quality["over_climatology_high"]
    columns = [shown(quality["brier"], ".5f"), *(shown(quality[f"brier_of_{name}"], ".5f") for name in BASELINES)]
    columns.append(shown(quality["over_climatology"], "+.5f"))
    columns.append([f"{a:+.5f} to {b:+.5f}" for a, b in zip(low, high, strict=True)])
    return table(head, rows_of(horizons, *columns))


def calibration_table(quality: Quality, horizons: Sequence[int]) -> str:
    head = (
        HORIZON, "confidence, mean", "direction right", "calibration error of the confidence", "its null band",
        "prices rose", "calibration error of the chance of a rise", "its null band",
    )  # fmt: skip
    columns = (
        shown(quality["said"]), with_errors(quality, "right"),
        shown(quality["confidence_error"]), [f"to {each:.4f}" for each in quality["confidence_band"]],
        shown(quality["rise_share"]),
        shown(quality["rise_error"]), [f"to {each:.4f}" for each in quality["rise_band"]],
    )  # fmt: skip
    return table(head, rows_of(horizons, *columns))


def move_table(quality: Quality, horizons: Sequence[int]) -> str:
    head = (HORIZON, "error over that of no move", "difference, its standard error", "direction right")
    columns = (shown(quality["error_share"]), errors_of_moves(quality), with_errors(quality, "right"))
    return table(head, rows_of(horizons, *columns))


def errors_of_moves(quality: Quality) -> list[str]:
    both = zip(quality["error_difference"], quality["error_standard_error"], strict=True)
    return [f"{each:+.5f} ± {error:.5f}" for each, error in both]


def control_table(quality: Quality, horizons: Sequence[int]) -> str:
    head = (
        HORIZON, "shuffled labels: right", "Brier score over one half",
        "inputs five hours old: right", "Brier score over one half",
    )  # fmt: skip
    columns = [
        with_errors(quality, f"{name}_{score}", form)
        for name in ("shuffled", "lagged")
        for score, form in (("right", ".4f"), ("excess", "+.5f"))
    ]
    return table(head, rows_of(horizons, *columns))


def unseen_table(quality: Quality, horizons: Sequence[int]) -> str:
    head = (
        "symbols", HORIZON, "rows", "Brier score less climatology's", "confidence, mean", "direction right",
        "calibration error of the confidence", "its null band", "coverage",
    )  # fmt: skip
    rows = []
    for name, title in (("unseen", "all five"), ("unseen_alone", "GBPUSD, USDJPY")):
        columns = (
            shown(quality[f"{name}_rows"], ",d"), with_errors(quality, f"{name}_excess", "+.5f"),
            shown(quality[f"{name}_said"]), with_errors(quality, f"{name}_right"),
            shown(quality[f"{name}_confidence_error"]),
            [f"to {each:.4f}" for each in quality[f"{name}_confidence_band"]], shown(quality[f"{name}_coverage"]),
        )  # fmt: skip
        rows += [[title, *each] for each in rows_of(horizons, *columns)]
    return table(head, rows)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in values)


def outside(quality: Quality, name: str, horizons: Sequence[int]) -> str:
    """In words, where an error lies beyond its null band."""
    both = zip(horizons, quality[f"{name}_error"], quality[f"{name}_band"], strict=True)
    found = [str(minutes) for minutes, error, band in both if error > band]
    return f"beyond its null band at {', '.join(found)} minutes" if found else "within its null band at every horizon"


def by_hours(quality: Quality) -> str:
    """In words, how coverage at the shortest horizon goes with the day."""
    shares, first = quality["coverage_by_hour"][0], quality["hours"]
    low, high = shares.index(min(shares)), shares.index(max(shares))
    return f"""Over the day it is not even: at 1 minute from {shares[low]:.3f} in the three hours from {first[low]} on
        to {shares[high]:.3f} in those from {first[high]} on, as the estimate of volatility looks back over hours."""


def unsure(quality: Quality, horizons: Sequence[int]) -> str:
    """In words, where the unseen symbols' directions were right more often than was said."""
    both = zip(
        horizons, quality["unseen_said"], quality["unseen_right"], quality["unseen_right_standard_error"], strict=True
    )
    more = [(minutes, right - said > 2.0 * error) for minutes, said, right, error in both]
    found = [str(minutes) for minutes, each in more if each]
    return f" Directions were right more often than said at {', '.join(found)} minutes." if found else ""


def beyond_chance(quality: Quality, horizons: Sequence[int]) -> str:
    """In words, where a control differs from chance: right signs either way, Brier scores by being better."""
    found = []
    for name, title in (("shuffled", "shuffled labels"), ("lagged", "old inputs")):
        for h, minutes in enumerate(horizons):
            right, error = quality[f"{name}_right"][h], quality[f"{name}_right_standard_error"][h]
            excess, its = quality[f"{name}_excess"][h], quality[f"{name}_excess_standard_error"][h]
            if abs(right - 0.5) > 2.0 * error:
                side = "more than chance" if right > 0.5 else "fewer than chance, so nothing leaks there"
                found.append(f"{right:.4f} right with {title} at {minutes} minutes ({side})")
            if excess < -2.0 * its:
                found.append(f"the Brier score with {title} at {minutes} minutes, which is better")
    if not found:
        return "All of them lie within two standard errors of chance, and no Brier score is better than one half's."
    return f"""Beyond two standard errors of chance: {", ".join(found)}; all others are within. Of eight such shares,
        chance alone puts one or more beyond in three of ten cases."""


def page(manifest: Mapping[str, Any]) -> str:
    quality, horizons, training = manifest["quality"], manifest["horizons"], manifest["training"]
    layers, slope = training["layers"], quality["slope"]
    size = " and ".join(str(each) for each in layers)
    sure, rising = outside(quality, "confidence", horizons), outside(quality, "rise", horizons)
    silent = [str(minutes) for minutes, s in zip(horizons, slope, strict=True) if s == 0.0]
    kind = "One LSTM layer" if len(layers) == 1 else f"{len(layers)} LSTM layers, one on the other,"
    return written(
        f"{manifest['id']} {manifest['version']}",
        f"""{kind} of {size} units over 49 closed minutes and the open one, 16 features a minute, all horizons in one
        pass. Made by `python -m engine.training` from `data/fx_m1`: fitted on {training["examples"]:,} minutes of the
        first 60 % of each file (all but the last days, which said when to stop), its heads scaled on the next 18 %,
        judged on the last 22 %; four hours between the parts belong to none. The open minute showed one mid of its bar:
        the open, high, low or close. Half of the examples were mirrored; spreads and indicators were withheld at
        random. The loss is the absolute error of the median and the cross entropy of the sign. `models/report.md` has
        more: symbols, hours, diagrams, losses by epoch.""",
        f"""Each head is scaled to fit the calibration part, and that scale drawn towards nought as far as chance
        alone may explain its gain there. (A first, harsher rule, with scales of at most 1.2, left chances too
        near to one half on the last part. It was loosened, to at most 3, after that had been seen: so chances,
        errors and signs on the last part are not those of a part that nobody looked at.) Scales:
        {_numbers(quality["scale"])} for the medians of 1, 5, 15 and 60 minutes, {_numbers(slope)} for the chances of a
        rise."""
        + (f" A scale of nought means that it says one half: at {', '.join(silent)} minutes." if silent else ""),
        f"""Intervals, as the engine answered them minute by minute (the multipliers begin where five networks, each
        fitted without one symbol, put the 90 % quantile of that symbol's calibration part, and then follow the key's
        own outcomes). Plain: mid ± q σ √h with the one q that covers as much in hindsight. The allowance is two
        binomial standard errors of rows / horizon outcomes. {by_hours(quality)} ![coverage by day](coverage.svg)""",
        coverage_table(quality, horizons, manifest["calibration"]["q"]),
        "Chances, where there was a move, beside what needs no model; bands are of blocks of time:",
        score_table(quality, horizons),
        f"""What the engine publishes is a direction and how sure it is of it: `confidence`, the chance that the
        direction is right, given that the price moves. Its calibration error is {sure}:
        what 95 of 100 forecasters whose chances are true would stay below, with the overlap of neighbouring labels and
        with the simultaneous symbols as alike as they were in training. Beside it, as a diagnostic, the chance of a
        rise, which no answer contains: its error is {rising}. In the last part prices rose more often
        than they fell, as the table says, and in training they did not; a model that is fitted on mirrored examples
        never says such a thing, nor its opposite on days of falling prices. (Judging the confidence was chosen after
        the chance of a rise had been judged, and found beyond its band, on this same part.)
        ![reliability of the confidence](reliability.svg)""",
        calibration_table(quality, horizons),
        "Medians, beside a price that stays:",
        move_table(quality, horizons),
        f"""Runs that must find nothing: the small network fitted on labels shuffled among the minutes, and on inputs
        five hours older than the labels, means of eight seeds. Each row of the last part is judged together with its
        mirror image (features and move turned), because a network that learned nothing may say one side always
        and be right as often as prices went there; over both it is right exactly half of the time. (First they were
        judged on the rows alone, which had found 0.478 right at 5 minutes for shuffled labels: prices fell in 0.478 of
        those moves.) The standard errors hold the time's, from blocks of it, and the seeds' scatter.
        {beyond_chance(quality, horizons)}""",
        control_table(quality, horizons),
        f"""A larger test: the five networks that were each fitted without one symbol (two short epochs, less than the
        model itself), asked through the engine about that symbol's minutes of all parts but the first 1,500. EURUSD,
        NZDUSD and XAUUSD are of the same weeks, so for those three the network saw the other two at the same minutes;
        GBPUSD and USDJPY are alone in their year, and new in time as well. The heads' scales and first multipliers are
        the model's own, from the calibration part that all five share. The calibration error of the confidence is
        {outside(quality, "unseen_confidence", horizons)} for all five,
        {outside(quality, "unseen_alone_confidence", horizons)} for the two.{unsure(quality, horizons)}""",
        unseen_table(quality, horizons),
        """There is little skill here, as markets lead one to expect: an error just below 1 is better than no move by
        that little. Bands and standard errors are of blocks of time in which simultaneous symbols stay together. What
        exceeds them at the short horizons was there in these weeks, before any cost, and is no promise: mids of one
        venue flicker, and a flicker that comes back is a forecast that nobody can trade. What can be relied on is the
        width of the intervals.""",
        KNOWN_LAW,
        """Labels of examples that show a minute's high or low begin at the minute's close: a high is one because of the
        fall after it, and measured from the high that fall would be a skill that exists in the drawing alone.""",
    )


def drawings(manifest: Mapping[str, Any]) -> dict[str, str]:
    """File name to SVG."""
    quality, horizons = manifest["quality"], manifest["horizons"]
    words = plots.Words(f"{manifest['id']}: coverage of 90 % intervals", "day of the last part", "share inside")
    lines = [
        plots.Line(f"{minutes} min", quality["days"], shares)
        for minutes, shares in zip(horizons, quality["coverage_by_day"], strict=True)
    ]
    dots = [
        plots.Points(f"{minutes} min", quality["confidence_said"][h], quality["confidence_happened"][h])
        for h, minutes in enumerate(horizons)
        if len(quality["confidence_said"][h]) > 1
    ]
    out = {"coverage.svg": plots.line_chart(words, lines, marks=[plots.Mark(0.9, "90 %")])}
    if dots:
        words = plots.Words(f"{manifest['id']}: chance that the direction is right", "chance said", "share right")
        out["reliability.svg"] = plots.diagonal_chart(words, dots)
    return out


def write(folder: Path) -> None:
    """Card and plots beside a manifest."""
    manifest = tomllib.loads((folder / "model.toml").read_text())
    (folder / "card.md").write_text(page(manifest))
    for name, text in drawings(manifest).items():
        (folder / name).write_text(text)

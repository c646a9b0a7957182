"""Cards of the pattern models: what they are, and how honest their chances were found to be.

Owns the words; run by `python -m engine.training`. What must stay true: every number was measured on what the
model never saw; calibration is judged by the band of all seven patterns at once, and what lies outside is named.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.training.cards import page, table
from engine.training.patterns import NAMES

PICTURES = {
    "image": "a picture, 16 points high, of the last 64 closed mids, lowest at the bottom, highest at the top",
    "image_fine": """two layers of 64 by 64 points: the line through the last 64 closed mids, and the area under
        their smoothed path, lowest mid at the bottom, highest at the top. The rules look for turning points of the
        smoothed path and compare their heights; a column of the area adds up to such a height, and the line shows the
        jumps that smoothing hides""",
}
MARKETS = {"fine": "ticks of 0.1 pip", "coarse": "ticks of 1 pip"}


class Counts(NamedTuple):
    last: int  # minutes that judged
    hours: int  # hours that judged
    calibrating: int  # minutes that calibrated
    size: int  # bytes of the artefact


def outside(quality: Mapping[str, Any], prefix: str = "", band: str = "family_band") -> str:
    """Names of the patterns beyond a band.

    >>> error, limit = [0.1, 0.3, 0.1, 0.1, 0.1, 0.1, 0.4], [0.2] * 7
    >>> outside({"calibration_error": error, "family_band": limit})
    'double_top, wedge'
    """
    pairs = zip(NAMES, quality[f"{prefix}calibration_error"], quality[f"{prefix}{band}"], strict=True)
    return ", ".join(name for name, error, limit in pairs if error > limit) or "none"


def _shown(quality: Mapping[str, Any]) -> str:
    columns = ("rate", "shown", "shown_on_random_walks", "right_when_shown", "brier", "brier_of_rate")
    head = (
        "pattern", "rule holds", "shown (above 0.3)", "shown on random walks", "rule holds when shown", "Brier score",
        "of the rate alone",
    )  # fmt: skip
    return table(head, [[each, *(float(quality[name][k]) for name in columns)] for k, each in enumerate(NAMES)])


def _judged(quality: Mapping[str, Any], prefix: str = "") -> str:
    columns = ("brier_difference", "standard_error", "calibration_error", "calibration_band", "family_band")
    head = (
        "pattern", "Brier score less the rate's", "its standard error", "calibration error", "band of one pattern",
        "band of all seven",
    )  # fmt: skip
    rows = [[each, *(f"{quality[prefix + name][k]:.5f}" for name in columns)] for k, each in enumerate(NAMES)]
    return table(head, rows)


def _markets(quality: Mapping[str, Any]) -> str:
    head = (
        "simulated market", "rules hold, all together", "said", "any shown", "largest error, of its band of all seven",
        "outside", "targets: shown", "said to be touched", "touched", "standard error",
    )  # fmt: skip
    rows = []
    for name, words in MARKETS.items():
        share = np.array(quality[f"{name}_calibration_error"]) / np.array(quality[f"{name}_family_band"])
        count, *touch = quality[f"{name}_touch"]
        sums = (float(np.sum(quality[f"{name}_{each}"])) for each in ("rate", "said", "any_shown"))
        rows.append([words, *sums, f"{share.max():.2f}", outside(quality, f"{name}_"), f"{count:,.0f}", *touch])
    return table(head, rows)


def _sum(quality: Mapping[str, Any], key: str) -> float:
    """Percent of windows; two patterns at once are rare."""
    return 100.0 * float(np.sum(quality[key]))


def _losses(quality: Mapping[str, Any]) -> str:
    def line(values: Sequence[float]) -> str:
        return ", ".join(f"{each:.4f}" for each in values)

    return f"""Cross entropy by epoch: {line(quality["loss_by_epoch"])} on what is taught,
        {line(quality["watched_loss_by_epoch"])} on other walks, chosen and weighted in the same way."""


def pattern(name: str, picture: str, quality: Mapping[str, Any], counts: Counts) -> str:
    count, said, found, error = quality["touch"]
    blind = zip(quality["shuffled_brier_difference"], quality["shuffled_standard_error"], strict=True)
    leaks = sum(difference < -2.0 * own for difference, own in blind)
    any_shown, on_walks, on_hours = (
        100 * float(quality[key][0]) for key in ("any_shown", "any_shown_on_random_walks", "hours_any_shown")
    )
    return page(
        name,
        f"""Convolutions over {PICTURES[picture]}; {counts.size / 1024:.0f} KiB in all. It learns to see what published
        rules say (`engine/training/patterns.py` gives each rule, its source, and what was made stricter); its
        probability is the calibrated chance that the rule holds now, and says nothing about what the price will do.""",
        f"""Shapes are free of scale, so nothing real teaches it: four million made-up walks do, of many volatilities,
        ticks, flickers and holes. Two numbers a pattern calibrate it: what walks need that did not teach, corrected by
        {counts.calibrating:,} minutes, the first 78 % of each file. Judged once on the last 22 %; four hours between
        the parts belong to none.""",
        f"Measured on {counts.last:,} minutes of the last part, and on 50,000 windows of random walks:",
        _shown(quality),
        f"""Any pattern at all is shown in {any_shown:.2f} % of these minutes and in {on_walks:.2f} % of the random
        walks: about as often where patterns mean nothing. A shown pattern describes the past hour and forecasts
        nothing.""",
        """Beside the rate of the calibrating minutes, with standard errors of blocks of two hours. A calibration error
        is never nil: 95 of 100 perfectly calibrated models stay below the first band with one pattern, and below the
        second with all seven, which are judged at once. Both are drawn with outcomes that last for 15 to 30 minutes,
        such that their number varies as much as each pattern's does in blocks of the calibrating minutes and on
        simulated markets (5 to 11 times as much as that of independent minutes):""",
        _judged(quality),
        f"""Outside of the band of all seven: {outside(quality)}. Outside of its own band:
        {outside(quality, band="calibration_band")}.""",
        f"""On {counts.hours:,} windows of hours of ten symbols, 2012 to 2019 (`data/fx_h1`, every eighth, none within
        two days of the minutes), which neither taught nor calibrated it. Its chances are those of minutes; on hours
        any of the rules holds in {_sum(quality, "hours_rate"):.2f} % of windows instead of
        {_sum(quality, "rate"):.2f} %, and any pattern is shown in {on_hours:.2f} %:""",
        _judged(quality, "hours_"),
        f"Outside of the band of all seven on these hours: {outside(quality, 'hours_')}.",
        """On simulated markets of 40,000 minutes, with jumps, changing volatility, bid-ask bounce and a fifth of the
        minutes missing:""",
        _markets(quality),
        f"""Taught and calibrated by shuffled labels, with four seeds, it must know nothing: its Brier score on the last
        part is better than the rate's by more than two standard errors with {leaks} of 7 patterns (all together
        {sum(quality["shuffled_brier_difference"]):+.6f}, where the labels' own way finds
        {sum(quality["brier_difference"]):+.6f}).""",
        _losses(quality),
        f"""Targets and completion times are the found shape's own: its height (of a flag or pennant, its pole) from the
        present mid, within as many minutes as it took to form. `confidence`, the chance that a minute's close touches
        the target in that time and before the mirror stop, is that of a random walk of the present volatility,
        corrected by what the calibrating minutes showed of all shapes and of each pattern. Of {count:,.0f} patterns
        shown in the last part it said {said:.3f} on average and {found:.3f} came true (standard error {error:.3f};
        patterns of the same two hours count as one).""",
    )

"""Model cards: what each bundled model is, and what it was measured to be worth, for people.

Owns their words; run by `python -m engine.training`. What must stay true: every number comes from the
test part, and stands beside what is known without the model.
"""

import textwrap
from collections.abc import Mapping, Sequence

WIDTH = 120


def page(title: str, *blocks: str) -> str:
    """Paragraphs are wrapped, tables stay as they are."""
    whole = [block if block.startswith("|") else textwrap.fill(" ".join(block.split()), WIDTH) for block in blocks]
    return "\n\n".join([f"# {title}", *whole]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [[f"{each:.4f}" if isinstance(each, float) else str(each) for each in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *cells])


PICTURES = {
    "image": "a picture, 16 points high, of the last 64 closed mids, lowest at the bottom, highest at the top",
    "image_fine": """two layers of 64 by 64 points: the line through the last 64 closed mids, and the area under
        their smoothed path, lowest mid at the bottom, highest at the top. The rules look for turning points of the
        smoothed path and compare their heights; a column of the area adds up to such a height, and the line shows the
        jumps that smoothing hides""",
}


def pattern(
    name: str, picture: str, quality: Mapping[str, Sequence[float]], names: Sequence[str], count: int, size: int
) -> str:
    columns = ("rate", "shown", "shown_on_random_walks", "right_when_shown", "brier", "brier_of_rate")
    errors = ("brier_difference", "standard_error", "calibration_error", "calibration_band")
    rows = [[each, *(float(quality[column][k]) for column in columns)] for k, each in enumerate(names)]
    judged = [[each, *(f"{float(quality[column][k]):.5f}" for column in errors)] for k, each in enumerate(names)]
    head = (
        "pattern", "rule holds", "shown (above 0.3)", "shown on random walks", "rule holds when shown", "Brier score",
        "of the rate alone",
    )  # fmt: skip
    head_judged = ("pattern", "Brier score less the rate's", "its standard error", "calibration error", "null band")
    within = zip(names, quality["calibration_error"], quality["calibration_band"], strict=True)
    outside = [each for each, error, band in within if error > band]
    one = {key: float(values[0]) for key, values in quality.items() if len(values) == 1}
    return page(
        name,
        f"""Convolutions over {PICTURES[picture]}; {size / 1024:.0f} KiB in all. It learns to see what published rules
        say (`engine/training/patterns.py` gives each rule, its source, and what was made stricter); its probability is
        the calibrated chance that the rule holds now, and says nothing about what the price will do.""",
        """Taught by the first 60 % of each file's minutes and by two million made-up walks (shapes are free of scale),
        calibrated on the next 18 % and on other walks, judged on the last 22 %; four hours between the parts belong to
        none.""",
        f"Measured on {count:,} minutes of the last part, and on 50,000 windows of random walks:",
        table(head, rows),
        f"""Any pattern at all is shown in {100 * one["any_shown"]:.2f} % of these minutes and in
        {100 * one["any_shown_on_random_walks"]:.2f} % of the random walks: about as often where patterns mean nothing.
        A shown pattern describes the past hour and forecasts nothing.""",
        f"""Beside the rate of the training part, with standard errors of blocks of two hours; the calibration error
        beside the one below which 95 of 100 perfectly calibrated models stay, given that a pattern holds for
        several minutes running, so that counts vary 6 to 10 times as much as those of independent minutes (as if there
        were some {count // 8:,} of those):""",
        table(head_judged, judged),
        f"""Outside of its band: {", ".join(outside) or "none"}. The calibration part holds some ten independent
        cases of each pattern, and how often one comes changes from week to week by more than that tells.""",
        f"""Targets and completion times are the found shape's own: its height (of a flag or pennant, its pole) from the
        present mid, within as many minutes as it took to form. `confidence`, the chance that a minute's close touches
        the target in that time and before the mirror stop, is that of a random walk of the present
        volatility, corrected by what the calibration part showed of all shapes and of each pattern. Of
        {one["touch_rows"]:,.0f} patterns shown in the last part it said {one["touch_said"]:.3f} on average and
        {one["touch_found"]:.3f} came true (standard error {one["touch_standard_error"]:.3f}; patterns of the same two
        hours count as one).""",
    )

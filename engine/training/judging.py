"""How chances of SELL, HOLD and BUY on the 15-minute label are judged: the same for every model that gives them.

Owns the scores that stand in manifests and cards; run by `python -m engine.training`. What must stay true:
skill is told twice, touch or none (that is volatility) and BUY against SELL given a touch (that is
direction), each beside the training part's rates and with a standard error from blocks of time.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.inference.batch import COLUMN_NAMES
from engine.training.bootstrap import Estimate, When, difference
from engine.training.cards import table
from engine.training.data import LABEL_MINUTES, SIMULTANEOUS, Examples
from engine.training.members import Said
from engine.training.reliability import calibration
from engine.training.scores import baselines, brier, log_loss

# In the training part touches of simultaneous symbols correlate by 0.09 to 0.15, as they do where normal moves
# correlate by about this much.
CORRELATION = 0.2


def when_of(examples: Examples | Said, rows: np.ndarray) -> When:
    """The 2014 files are one stretch of time."""
    symbol = examples.symbol[rows]
    return When(examples.minute[rows], np.where(np.isin(symbol, SIMULTANEOUS), SIMULTANEOUS[0], symbol), symbol)


def _some(when: When, chosen: np.ndarray) -> When:
    assert when.symbol is not None
    return When(when.minute[chosen], when.group[chosen], when.symbol[chosen])


def rules(examples: Examples, teach: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Chances of BUY, given a touch, that need no model, for the rows `asked`; fitted on the touches of `teach`."""
    touched = teach[examples.label[teach] != 1]
    move, gap = (examples.columns[:, COLUMN_NAMES.index(name)] for name in ("move_1", "sma_20_gap"))
    up = examples.label[touched] == 2
    found = baselines(move[touched], gap[touched], up, move[asked], gap[asked])
    return {name: getattr(found, name) for name in RULES}


def judge(
    chances: np.ndarray,
    label: np.ndarray,
    rates: np.ndarray,
    when: When,
    simple: Mapping[str, np.ndarray] | None = None,
) -> dict[str, list[float]]:
    """For each score: the model's, the rates', their difference, its standard error.

    chances: (n, 3) of sell, hold, buy. label: (n,) 0, 1, 2. rates: (3,) of the training part. simple: (n,) a rule.
    """
    chances = np.clip(chances, 1e-6, 1.0)
    chances /= chances.sum(axis=1, keepdims=True)
    known = np.broadcast_to(rates, chances.shape)
    touched = label != 1
    up = chances[touched, 2] / (chances[touched, 0] + chances[touched, 2])
    rate_up = np.full(len(up), rates[2] / (rates[0] + rates[2]))
    side, of_side = label[touched] == 2, _some(when, touched)

    def line(model: np.ndarray, reference: np.ndarray, given: When) -> list[float]:
        found: Estimate = difference(model, reference, LABEL_MINUTES, when=given)
        return [float(model.mean()), float(reference.mean()), found.mean, found.standard_error]

    signal = chances.argmax(1)
    quality = {
        "rows": [len(label), len(label) / LABEL_MINUTES],
        "touched_rows": [len(up), len(up) / LABEL_MINUTES],
        "log_loss": line(log_loss(chances, label), log_loss(known, label), when),
        "touch": line(brier(1.0 - chances[:, 1], touched), brier(1.0 - known[:, 1], touched), when),
        "side": line(brier(up, side), brier(rate_up, side), of_side),
        "side_right": [float(((up > 0.5) == side).mean())],
        "signal_right": [float((signal == label).mean())],
        "confidence": [float(chances.max(1).mean())],
    }
    for name, chance in (simple or {}).items():
        quality[f"side_beside_{name}"] = line(brier(up, side), brier(chance[touched], side), of_side)
    for name, chance, happened, given in (
        ("touch_calibration", 1.0 - chances[:, 1], touched, when),
        ("side_calibration", up, side, of_side),
        ("confidence_calibration", chances.max(1), signal == label, when),
    ):
        found = calibration(chance, happened, LABEL_MINUTES, given, correlation=CORRELATION)
        quality[name] = [found.error, found.band]
    return quality


TITLES = {
    "log_loss": "log loss of sell, hold, buy",
    "touch": "Brier score: any touch or none (volatility)",
    "side": "Brier score: which side, given a touch (direction)",
}
RULES = {
    "random_walk": "one half",
    "last_direction": "the last minute's move goes on",
    "mean_reversion": "the gap to a mean of 20 minutes closes",
}
CALIBRATED = {
    "touch_calibration": "chance of a touch",
    "side_calibration": "chance of BUY, given a touch",
    "confidence_calibration": "chance that the signal is right",
}


def score_table(quality: Mapping[str, Sequence[float]]) -> str:
    rows = [[title, *(float(each) for each in quality[name])] for name, title in TITLES.items()]
    return table(("", "model", "rates alone", "difference (below 0: better)", "its standard error"), rows)


def rule_table(quality: Mapping[str, Sequence[float]]) -> str:
    rows = [[title, *(float(each) for each in quality[f"side_beside_{name}"])] for name, title in RULES.items()]
    head = ("Brier score: which side, given a touch, beside", "model", "the rule", "difference", "its standard error")
    return table(head, rows)


def calibration_table(quality: Mapping[str, Sequence[float]]) -> str:
    rows = [[title, *(float(each) for each in quality[name])] for name, title in CALIBRATED.items()]
    return table(("", "calibration error", "95 of 100 perfect forecasters stay below"), rows)

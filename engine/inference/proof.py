"""What a loaded version has to show before it answers: usable numbers for a plain input, and its golden rows.

Owns the plain input and the words for numbers that cannot be used; run by workers, at load and where a
model fails, by `check` and by training, which writes golden rows. Reads a model, writes nothing but
arrays of its own. What must stay true: whoever asks gets the same verdict, since `check` is believed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ModelError
from engine.inference import batch as arrays
from engine.inference import golden
from engine.inference.batch import COLUMN_NAMES, DIRECTION, MODEL, PREDICT, ROLES, Batch, Output, request_dtype
from engine.inference.windows import BOUNDS, enter
from engine.registry.manifest import Manifest
from fastpath import layout


class Wanted(NamedTuple):
    """Of one output."""

    tensor: str  # as the graph names it
    expected: str
    holds: Callable[[np.ndarray], bool]


def _are_chances(values: np.ndarray) -> bool:
    return bool(((values >= 0.0) & (values <= 1.0)).all())


def _sum_to_one(values: np.ndarray) -> bool:
    return _are_chances(values) and abs(values.sum() - 1.0) <= arrays.SHARES_TOLERANCE


SIDES = Wanted("direction", "three chances that sum to 1", _sum_to_one)
WANTED = {
    "move": Wanted("move", "four finite numbers", lambda values: bool(np.isfinite(values).all())),
    "rise": Wanted("rise", "four chances from 0 to 1", _are_chances),
    "pattern": Wanted("pattern", "seven chances from 0 to 1", _are_chances),
    "direction": SIDES,
    "final": SIDES,
}


def plain_input() -> tuple[Batch, Output]:
    """The end of a quiet hour, in a window that is full: correlations not known, the company's own numbers nil."""
    batch, output = arrays.new_batch(1), arrays.Output(1)
    slots, windows = np.zeros(1, request_dtype), np.zeros((1, layout.window), arrays.entry_dtype)
    slot = slots[0]
    slot["mid"], slot["spread"], slot["indicators"], slot["extra_count"] = 1.0, np.nan, np.nan, layout.extra_max
    slot["generation"], slot["opens"], slot["minute"], slot["tier"] = 1, 1, 1000, golden.ENTERPRISE
    slot["step"] = slot["depth"] = slot["history_count"] = layout.history_max
    slot["history"] = 1.0 + 1e-4 * np.sin(np.arange(layout.history_max))
    bounds = np.zeros((layout.plans_max, BOUNDS, 2))
    enter(slots, 0, 0, 1, np.array([PREDICT], "u1"), windows, np.zeros(layout.plans_max, "u1"), bounds, batch.records)
    # An ensemble hears three members that know nothing.
    output.who[0, :ROLES], output.rise[0], output.direction[0] = MODEL, 0.5, 1.0 / 3.0
    return batch, output


def not_known(manifest: Manifest, batch: Batch, slot: int) -> list[str]:
    """Which of a direction model's inputs are NaN."""
    if manifest.role.value - 1 != DIRECTION:
        return []
    names = (*COLUMN_NAMES, *manifest.extra)
    values = dict(zip(names, (*batch.columns[slot], *batch.extra[slot]), strict=False))
    return [name for name in manifest.features if np.isnan(values[name])]


def fault(model: Any, batch: Batch, output: Output, slot: int = 0) -> str:
    """What cannot be used of the answer in a slot, and what to do; empty where all of it can."""
    if model.sound([slot], output):
        return ""
    for name in golden.OUTPUTS[model.role]:
        wanted, values = WANTED[name], getattr(output, name)[slot]
        if not wanted.holds(values):
            found = f"{wanted.tensor}: expected {wanted.expected}, found {values.round(6).tolist()}"
            break
    else:
        found = "expected finite numbers, found others among its SHAP values"
    nil = not_known(model.manifest, batch, slot)
    if nil:
        return f"{found}, where {', '.join(nil)} = NaN; make the model take NaN (an imputer), or correct its output"
    return f"{found}; correct its output"


def prove(model: Any) -> None:
    """ModelError where an opened version cannot be used."""
    manifest: Manifest = model.manifest
    batch, output = plain_input()
    try:
        model.run([0], batch, output, np.ones(layout.plans_max, "u1"))
        if found := fault(model, batch, output):
            raise ModelError(f"{manifest.path}: {found}")
        if manifest.golden:
            golden.check(model)
    except ModelError:
        raise
    except Exception as error:  # a library's: the model cannot be run at all
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelError(
            f"{manifest.path}: expected an answer to a plain input, found {what}; save it again"
        ) from error

"""The arrays of one microbatch: what the kernels hand to the models, and the models to the ensemble.

Owns their shapes; each worker allocates one set at its start and fills it again for each microbatch.
What must stay true: row i of every array belongs to slot i of the microbatch, whatever the others are.
"""

from typing import Any, NamedTuple

import numpy as np

from engine import limits
from engine.inference.features import FEATURE_NAMES, FEATURES, TREND_MINUTES
from engine.inference.jit import kernel, kernel_dtype
from fastpath import layout

LSTM_MINUTES = limits.ROWS_MAX - 1  # closed ones; the open one comes after them
IMAGE_MINUTES = 64
ROLES = 3  # price, pattern, direction: the members
PRICE, PATTERN, DIRECTION, ENSEMBLE = range(ROLES + 1)  # the ensemble reads what the members said

PASS, PREDICT, EXPIRED = range(3)  # what the loop decided about a slot
# Who answered a role: none yet (warming), the wanted model, another one, the baseline.
MASKED, MODEL, SUBSTITUTE, NOBODY = range(4)

COLUMN_NAMES = (*FEATURE_NAMES, "trend", "correlation_mean", "correlation_max", "correlation_min")
COLUMNS = len(COLUMN_NAMES)
SHARES_TOLERANCE = 1e-3  # of the sum of a few float32 chances
PAIRS_MAX = TREND_MINUTES * (TREND_MINUTES - 1) // 2

request_dtype = kernel_dtype(layout.request_slot_dtype)
answer_dtype = kernel_dtype(layout.answer_slot_dtype)
entry_dtype = kernel_dtype(layout.window_entry_dtype)


class Batch(NamedTuple):
    """What is known of each slot before any model runs."""

    predicts: np.ndarray  # 1: the models are to answer
    key: np.ndarray  # row of the windows; -1: an outside slot, whose window is its own
    generation: np.ndarray  # of that row
    plan: np.ndarray  # row of the plan table; a tier's own is its number
    step: np.ndarray  # of its minute; of an outside slot, the step that its minute would have had
    depth: np.ndarray  # closed steps before it that can be read
    opened: np.ndarray  # 1: this slot began its step's entry
    flags: np.ndarray
    entry: np.ndarray  # its minute as this slot left it, before any later one
    rows: np.ndarray  # (slots, minutes, features): the closed minutes, then the open one
    closing: np.ndarray  # (slots, features): the open minute as the next one will see it, if no vector comes between
    path: np.ndarray  # (slots, minutes): closed mids, oldest first
    columns: np.ndarray  # (slots, columns): for trees
    extra: np.ndarray  # (slots, extra): the company's own numbers; NaN where there are none
    pairs: np.ndarray  # scratch of the trend


class Output(NamedTuple):
    """What the models said."""

    version: np.ndarray  # (slots, roles and the ensemble): row of the version table
    who: np.ndarray  # (slots, roles and the ensemble): MASKED, MODEL, SUBSTITUTE or NOBODY
    move: np.ndarray  # (slots, horizons): median, in sigma sqrt(h)
    rise: np.ndarray  # (slots, horizons): chance of a rise, given a move
    pattern: np.ndarray  # (slots, patterns): chance that its rule holds
    direction: np.ndarray  # (slots, 3): sell, hold, buy
    shap: np.ndarray  # (slots, features and the bias)
    final: np.ndarray  # (slots, 3): sell, hold, buy, by an ensemble model


def new_batch(slots: int) -> Batch:
    return Batch(
        predicts=np.zeros(slots, "u1"),
        key=np.full(slots, -1, "i8"),
        generation=np.zeros(slots, "u4"),
        plan=np.zeros(slots, "u1"),
        step=np.zeros(slots, "i8"),
        depth=np.zeros(slots, "i8"),
        opened=np.zeros(slots, "u1"),
        flags=np.zeros(slots, "u4"),
        entry=np.zeros(slots, entry_dtype),
        rows=np.zeros((slots, LSTM_MINUTES + 1, FEATURES), "f4"),
        closing=np.zeros((slots, FEATURES), "f4"),
        path=np.zeros((slots, IMAGE_MINUTES)),
        columns=np.zeros((slots, COLUMNS), "f4"),
        extra=np.full((slots, layout.extra_max), np.nan, "f4"),
        pairs=np.zeros(PAIRS_MAX),
    )


def new_output(slots: int) -> Output:
    return Output(
        version=np.zeros((slots, ROLES + 1), "i4"),
        who=np.zeros((slots, ROLES + 1), "u1"),
        move=np.zeros((slots, layout.horizons)),
        rise=np.zeros((slots, layout.horizons)),
        pattern=np.zeros((slots, layout.patterns_max)),
        direction=np.zeros((slots, 3)),
        shap=np.zeros((slots, layout.shap_max), "f4"),
        final=np.zeros((slots, 3)),
    )


@kernel
def are_finite(values):
    """Whether a model's row of numbers can be used."""
    for n in range(len(values)):
        if not np.isfinite(values[n]):
            return False
    return True


@kernel
def are_chances(values):
    """Whether each number of a row is a probability; NaN is none."""
    for n in range(len(values)):
        if not 0.0 <= values[n] <= 1.0:
            return False
    return True


@kernel
def are_shares(values):
    """Whether a row's numbers are probabilities of which one must hold."""
    return are_chances(values) and abs(np.sum(values) - 1.0) <= SHARES_TOLERANCE


def as_kernel_sees(array: np.ndarray, dtype: np.dtype) -> Any:
    """The same memory, with text as bytes."""
    return array.view(dtype)

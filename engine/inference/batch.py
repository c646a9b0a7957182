"""The records of one microbatch: what the kernels hand to the models, and the models to the ensemble.

Owns their layout; each worker allocates one set at its start and fills it again for each microbatch.
What must stay true: record i belongs to slot i of the microbatch, whatever the others are.
"""

from typing import Any, ClassVar

import numpy as np

from engine import limits
from engine.inference.features import FEATURE_NAMES, FEATURES, TREND_MINUTES
from engine.inference.jit import kernel_dtype
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


class Records:
    """Records in one piece of memory, and each of their fields as an array of its own.

    A kernel takes `records`, because an array costs it a part of a microsecond and a cache line or two; who asks
    about one field takes that. What belongs to one slot lies together, because a microbatch of one is the usual one.
    """

    dtype: ClassVar[np.dtype]

    def __init__(self, count: int) -> None:
        self.records = np.zeros(count, self.dtype)
        for name in self.dtype.names or ():
            setattr(self, name, self.records[name])

    def __getattr__(self, name: str) -> np.ndarray:
        raise AttributeError(f"{type(self).__name__} has no {name!r}")


def record(*fields: tuple) -> np.dtype:
    return np.dtype(list(fields), align=True)


class Batch(Records):
    """What is known of each slot before any model runs."""

    dtype = record(
        ("predicts", "u1"),  # 1: the models are to answer
        ("plan", "u1"),  # row of the plan table; a tier's own is its number
        ("opened", "u1"),  # 1: this slot began its step's entry
        ("generation", "u4"),  # of the row of the windows
        ("flags", "u4"),
        ("key", "i8"),  # row of the windows; -1: an outside slot, whose window is its own
        ("step", "i8"),  # of its minute; of an outside slot, the step that its minute would have had
        ("depth", "i8"),  # closed steps before it that can be read
        ("entry", entry_dtype),  # its minute as this slot left it, before any later one
        ("columns", "f4", COLUMNS),  # for trees
        ("extra", "f4", layout.extra_max),  # the company's own numbers; NaN where there are none
        ("path", "f8", IMAGE_MINUTES),  # closed mids, oldest first
        ("closing", "f4", FEATURES),  # the open minute as the next one will see it, if no vector comes between
        ("rows", "f4", (LSTM_MINUTES + 1, FEATURES)),  # the closed minutes, then the open one
    )


class Output(Records):
    """What the models said."""

    dtype = record(
        ("version", "i4", ROLES + 1),  # by role, the ensemble the last: row of the version table
        ("who", "u1", ROLES + 1),  # MASKED, MODEL, SUBSTITUTE or NOBODY
        ("move", "f8", layout.horizons),  # median, in sigma sqrt(h)
        ("rise", "f8", layout.horizons),  # chance of a rise, given a move
        ("pattern", "f8", layout.patterns_max),  # chance that its rule holds
        ("direction", "f8", 3),  # sell, hold, buy
        ("final", "f8", 3),  # sell, hold, buy, by an ensemble model
        ("shap", "f4", layout.shap_max),  # features and the bias
    )


def new_batch(slots: int) -> Batch:
    batch = Batch(slots)
    batch.key[:], batch.extra[:] = -1, np.nan
    return batch


def new_output(slots: int) -> Output:
    return Output(slots)


def as_kernel_sees(array: np.ndarray, dtype: np.dtype) -> Any:
    """The same memory, with text as bytes."""
    return array.view(dtype)

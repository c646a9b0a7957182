"""The records of one microbatch: what the kernels hand to the models, and the models to the ensemble.

Owns their layout; each worker allocates one set at its start and fills it again for each microbatch.
What must stay true: record i belongs to slot i of the microbatch, whatever the others are.
"""

from typing import Annotated, ClassVar, get_origin, get_type_hints

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


class Table:
    """Records in one piece of memory, and each of their fields as an array of its own, as the class declares them.

    A kernel takes `records`, because each array costs it a part of a microsecond and some cache lines; who asks about
    one field takes that. What belongs to one slot lies together, because a microbatch of one is the usual one.
    """

    dtype: ClassVar[np.dtype]

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        fields = [(name, *hint.__metadata__) for name, hint in hints.items() if get_origin(hint) is Annotated]
        cls.dtype = np.dtype(fields, align=True)

    def __init__(self, count: int) -> None:
        self.records = np.zeros(count, self.dtype)
        for name in self.dtype.names or ():
            setattr(self, name, self.records[name])


class Batch(Table):
    """What is known of each slot before any model runs."""

    predicts: Annotated[np.ndarray, "u1"]  # 1: the models are to answer
    plan: Annotated[np.ndarray, "u1"]  # row of the plan table; a tier's own is its number
    opened: Annotated[np.ndarray, "u1"]  # 1: this slot began its step's entry
    generation: Annotated[np.ndarray, "u4"]  # of the row of the windows
    flags: Annotated[np.ndarray, "u4"]
    key: Annotated[np.ndarray, "i8"]  # row of the windows; -1: an outside slot, whose window is its own
    step: Annotated[np.ndarray, "i8"]  # of its minute; of an outside slot, the step that its minute would have had
    depth: Annotated[np.ndarray, "i8"]  # closed steps before it that can be read
    entry: Annotated[np.ndarray, entry_dtype]  # its minute as this slot left it, before any later one
    columns: Annotated[np.ndarray, "f4", COLUMNS]  # for trees
    extra: Annotated[np.ndarray, "f4", layout.extra_max]  # the company's own numbers; NaN where there are none
    path: Annotated[np.ndarray, "f8", IMAGE_MINUTES]  # closed mids, oldest first
    closing: Annotated[np.ndarray, "f4", FEATURES]  # the open minute as the next will see it, if no other vector comes
    rows: Annotated[np.ndarray, "f4", (LSTM_MINUTES + 1, FEATURES)]  # the closed minutes, then the open one


class Output(Table):
    """What the models said."""

    version: Annotated[np.ndarray, "i4", ROLES + 1]  # by role, the ensemble the last: row of the version table
    who: Annotated[np.ndarray, "u1", ROLES + 1]  # MASKED, MODEL, SUBSTITUTE or NOBODY
    move: Annotated[np.ndarray, "f8", layout.horizons]  # median, in sigma sqrt(h)
    rise: Annotated[np.ndarray, "f8", layout.horizons]  # chance of a rise, given a move
    pattern: Annotated[np.ndarray, "f8", layout.patterns_max]  # chance that its rule holds
    direction: Annotated[np.ndarray, "f8", 3]  # sell, hold, buy
    final: Annotated[np.ndarray, "f8", 3]  # sell, hold, buy, by an ensemble model
    shap: Annotated[np.ndarray, "f4", layout.shap_max]  # features and the bias


def new_batch(slots: int) -> Batch:
    batch = Batch(slots)
    batch.key[:], batch.extra[:] = -1, np.nan
    return batch

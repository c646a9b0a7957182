"""Ensemble models: what the members said, and who of them said nothing, to SELL, HOLD and BUY.

Owns one version's session and the order of its inputs; run by workers after all members. Reads the
members' part of `output` and the trend, writes `final`. What must stay true: who did not answer is
masked and its numbers are nil; the stand-in of a member counts as that member, the baseline as nobody.
"""

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import (
    DIRECTION,
    ENSEMBLE,
    MODEL,
    PATTERN,
    PRICE,
    SUBSTITUTE,
    Batch,
    Output,
    are_shares,
)  # fmt: skip
from engine.inference.jit import kernel
from engine.inference.models.session import Session
from engine.registry.manifest import Manifest
from fastpath import layout

HORIZONS = layout.horizons
PATTERNS = layout.patterns_max
MEMBER_NAMES = (
    "price",  # 1: it answered
    *(f"move_{minutes}" for minutes in HORIZON_MINUTES),  # median, in sigma sqrt(h)
    *(f"rise_{minutes}" for minutes in HORIZON_MINUTES),  # chance less one half
    "pattern",
    *(f"pattern_{number}" for number in range(1, PATTERNS + 1)),  # trading.v1.PatternType
    "direction",
    "sell",
    "hold",
    "buy",
    "trend",  # in standard deviations, bounded
)
MEMBERS = len(MEMBER_NAMES)
FIRST_PATTERN = 2 + 2 * HORIZONS  # places in the row above
FIRST_DIRECTION = FIRST_PATTERN + PATTERNS + 1
MOVE_MAX = 5.0
TREND_MAX = 8.0


@kernel
def gather_members(who, move, rise, pattern, direction, trend, row):
    """One slot's row for a stacker; nil is what stands for whoever did not answer."""
    row[:] = 0.0
    if who[PRICE] == MODEL or who[PRICE] == SUBSTITUTE:
        row[0] = 1.0
        for h in range(HORIZONS):
            row[1 + h] = min(max(move[h], -MOVE_MAX), MOVE_MAX)
            row[1 + HORIZONS + h] = rise[h] - 0.5
    if who[PATTERN] == MODEL or who[PATTERN] == SUBSTITUTE:
        row[FIRST_PATTERN - 1] = 1.0
        row[FIRST_PATTERN : FIRST_PATTERN + PATTERNS] = pattern
    if who[DIRECTION] == MODEL or who[DIRECTION] == SUBSTITUTE:
        row[FIRST_DIRECTION - 1] = 1.0
        row[FIRST_DIRECTION : FIRST_DIRECTION + 3] = direction
    row[MEMBERS - 1] = min(max(trend, -TREND_MAX), TREND_MAX) if np.isfinite(trend) else 0.0


class StackerModel:
    role = ENSEMBLE

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._session = Session(manifest, ("members", (1, MEMBERS)), {"direction": (1, 3)})

    def open(self) -> None:
        self._session.open()

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        session = self._session
        for i in slots:
            gather_members(
                output.who[i], output.move[i], output.rise[i], output.pattern[i], output.direction[i],
                batch.entry[i]["trend"], session.feed[0],
            )  # fmt: skip
            session.run()
            output.final[i] = session.out["direction"][0]

    def run_members(self, members: np.ndarray, final: np.ndarray) -> None:
        """One row of inputs as training and golden rows have it."""
        self._session.feed[0] = members
        self._session.run()
        final[:] = self._session.out["direction"][0]

    def sound(self, slots: list[int], output: Output) -> bool:
        return all(are_shares(output.final[i]) for i in slots)

"""Ensemble models: what the members said, and who of them said nothing, to SELL, HOLD and BUY.

Owns one version's weights, or where its graph is another than ours, its session, and the order of its inputs; run by
workers after all members. Reads the members' part of `output` and the trend, writes `final`. What must stay true: who
did not answer is masked and its numbers are nil; the stand-in of a member counts as that member, the baseline as
nobody; which of the two runs a version is decided once, at load.
"""

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.batch import (
    DIRECTION,
    ENSEMBLE,
    MODEL,
    PATTERN,
    PRICE,
    SHARES_TOLERANCE,
    SUBSTITUTE,
    Batch,
    Output,
)  # fmt: skip
from engine.inference.jit import kernel
from engine.inference.models.cuda import Device
from engine.inference.models.onnx_graph import Unfit
from engine.inference.models.session import Session
from engine.inference.models.stacking import read_stack, stack
from engine.registry.manifest import Manifest, read_artefact
from fastpath import layout
from fastpath.checks import are_shares

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
DIFFERENCE_MAX = 1e-5  # to ONNX Runtime, the oracle
PROBES = 32  # rows


@kernel
def gather_members(said, trend, row):
    """One slot's row for a stacker; nil is what stands for whoever did not answer."""
    who = said.who
    row[:] = 0.0
    if who[PRICE] == MODEL or who[PRICE] == SUBSTITUTE:
        row[0] = 1.0
        for h in range(HORIZONS):
            row[1 + h] = min(max(said.move[h], -MOVE_MAX), MOVE_MAX)
            row[1 + HORIZONS + h] = said.rise[h] - 0.5
    if who[PATTERN] == MODEL or who[PATTERN] == SUBSTITUTE:
        row[FIRST_PATTERN - 1] = 1.0
        row[FIRST_PATTERN : FIRST_PATTERN + PATTERNS] = said.pattern
    if who[DIRECTION] == MODEL or who[DIRECTION] == SUBSTITUTE:
        row[FIRST_DIRECTION - 1] = 1.0
        row[FIRST_DIRECTION : FIRST_DIRECTION + 3] = said.direction
    row[MEMBERS - 1] = min(max(trend, -TREND_MAX), TREND_MAX) if np.isfinite(trend) else 0.0


@kernel
def gather(batch, output, i, row):
    gather_members(output[i], batch[i].entry.trend, row)


@kernel
def answer(batch, output, slots, w1, b1, w2, b2, base, small, row, hidden):
    """Each slot's chances."""
    for i in slots:
        gather_members(output[i], batch[i].entry.trend, row)
        stack(w1, b1, w2, b2, base, small, row, FIRST_DIRECTION, hidden, output[i].final)


class StackerModel:
    role = ENSEMBLE

    def __init__(self, manifest: Manifest, device: Device | None = None) -> None:
        self.manifest = manifest
        self._session = Session(manifest, ("members", (1, MEMBERS)), {"direction": (1, 3)}, device)
        self.unfit = ""  # why ONNX Runtime runs it; empty: the kernel does
        self._row = self._session.feed[0]

    def open(self) -> None:
        self._session.open()
        try:
            self._stack = read_stack(read_artefact(self.manifest), MEMBERS, FIRST_DIRECTION)
            self._hidden = np.zeros(len(self._stack.b1))
            found = self._difference()
            if not found <= DIFFERENCE_MAX:
                raise Unfit(f"its answers by the kernel lie {found:.1e} from ONNX Runtime's")
        except Unfit as error:
            self.unfit = str(error)
            self._session.place()
        else:
            self._session.close()

    def _difference(self) -> float:
        """The largest one to ONNX Runtime's answers over some made-up rows."""
        rng, worst, own = np.random.default_rng(0), 0.0, np.zeros(3)
        for _ in range(PROBES):
            self._row[:] = rng.normal(0.0, 1.0, MEMBERS)
            self._row[FIRST_DIRECTION - 1 : FIRST_DIRECTION + 3] = rng.integers(2), *rng.dirichlet((0.3, 0.3, 0.3))
            stack(*self._stack, self._row, FIRST_DIRECTION, self._hidden, own)
            try:
                self._session.run()
            except Exception as error:  # a library's; the proof of a loaded version tells it
                raise Unfit(f"ONNX Runtime does not run it: {type(error).__name__}") from error
            found = float(np.abs(own - self._session.out["direction"][0]).max())
            worst = found if not found <= worst else worst  # NaN stays
        return worst

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        if self.unfit:
            self._run_session(slots, batch, output)
            return
        answer(batch.records, output.records, np.array(slots), *self._stack, self._row, self._hidden)

    def _run_session(self, slots: list[int], batch: Batch, output: Output) -> None:
        session = self._session
        for some in session.portions(slots):
            for n, i in enumerate(some):
                gather(batch.records, output.records, i, session.feed[n])
            session.run(len(some))
            for n, i in enumerate(some):
                output.final[i] = session.out["direction"][n]

    def run_members(self, members: np.ndarray, final: np.ndarray) -> None:
        """One row of inputs as training and golden rows have it."""
        self._row[:] = members
        if not self.unfit:
            stack(*self._stack, self._row, FIRST_DIRECTION, self._hidden, final)
            return
        self._session.run()
        final[:] = self._session.out["direction"][0]

    def sound(self, slots: list[int], output: Output) -> bool:
        return are_shares(output.final, slots, SHARES_TOLERANCE)

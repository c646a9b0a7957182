"""How wide a key's intervals are: multipliers that follow what came true.

Owns the rule; run by workers in slot order. Reads a key's window, and the last prediction in each of
its minutes; writes the offsets that an opening slot's minute begins with. What must stay true: the
offset of a step depends on entries before it alone, so a repeated slot finds the same one.

The rule is one step of online quantile tracking a minute and horizon: after a miss the log of the
multiplier grows by lr * 0.9, after a hit it shrinks by lr * 0.1, so that one in ten misses.
Gibbs and Candes, Adaptive Conformal Inference Under Distribution Shift, 2021.
"""

import numpy as np

from engine.contract.names import HORIZON_MINUTES
from engine.inference.features import MASK
from engine.inference.jit import kernel

MINUTES = np.array(HORIZON_MINUTES)
RATES = np.array([0.02, 0.02, 0.02, 0.01])
MISS = 0.1  # the share of outcomes that belongs outside of a 90 % interval
REACH = 0.7  # how far the log of a multiplier may move from the manifest's


@kernel
def _entry_at(entries, step, depth, minute, minutes_back):
    """Step of the closed entry of that minute, -1 if there is none. Steps never outrun minutes."""
    candidate = max(step - 1 - minutes_back, step - depth)
    while candidate < step - 1 and entries[candidate & MASK].minute < minute:
        candidate += 1
    return candidate if entries[candidate & MASK].minute == minute else -1


@kernel
def offsets_at(entries, step, depth, out):
    """What the closing of the minute before `step` makes of its offsets.

    No sample where that minute, or the one that predicted it, is masked, absent or had no prediction.
    """
    out[:] = 0.0
    if depth == 0:
        return
    closed = entries[(step - 1) & MASK]
    out[:] = closed.log_q
    if closed.masked != 0:
        return
    for h in range(len(MINUTES)):
        found = _entry_at(entries, step, depth, closed.minute - MINUTES[h], MINUTES[h])
        if found < 0:
            continue
        entry = entries[found & MASK]
        if entry.masked != 0 or not np.isfinite(entry.predicted[h]):
            continue
        missed = 1.0 if abs(closed.mid - entry.predicted[h]) > entry.half[h] else 0.0
        out[h] = min(max(out[h] + RATES[h] * (missed - MISS), -REACH), REACH)


@kernel
def begin_offsets(entries, step, depth, skipped):
    """An opening slot's: those of the empty minutes before it, then its own."""
    for before in range(min(skipped, depth), -1, -1):
        at = step - before
        offsets_at(entries, at, depth - before, entries[at & MASK].log_q)

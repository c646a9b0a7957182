"""Slots into windows: the open minute, closed and masked ones, and what each slot's models see.

Owns the entries of the keys of this worker's shards; run by the worker alone, and by training over
whole files. Reads slots, writes windows and the microbatch's arrays.

What must stay true, so that slots taken again after a crash give the same bytes: an opening slot
writes the whole entry of its minute, a later one of the same minute only what its own mid decides;
an entry is computed from entries before it; an outside slot writes no window; a slot's inputs are
gathered before the next slot of its key comes.
"""

import numpy as np

from engine.contract.names import Flag
from engine.inference.batch import COLUMNS, EXPIRED, IMAGE_MINUTES, LSTM_MINUTES, PAIRS_MAX, PASS
from engine.inference.features import FEATURES, MASK, observe, settle, show_time
from engine.inference.jit import kernel

UNFAMILIAR = int(Flag.UNFAMILIAR)  # kernels know numbers only
BOUNDS = FEATURES + 1  # of the features, then of the volatility


@kernel
def stamp_of(generation, step):
    return (np.uint64(generation) << np.uint64(32)) | np.uint64(step)


@kernel
def usable(entries, generation, step, depth):
    """How many closed steps before `step` are this key's own, without a hole, at most `depth`."""
    for age in range(min(depth, MASK)):
        before = step - 1 - age
        if before < 0 or entries[before & MASK].stamp != stamp_of(generation, before):
            return age
    return min(depth, MASK)


@kernel
def _span(entries, step, depth, minute):
    for age in range(depth):
        entry = entries[(step - 1 - age) & MASK]
        if entry.masked == 0:
            return minute - entry.minute
    return 0


@kernel
def _begin(entries, generation, step, minute, depth, masked, pairs):
    """A new minute: everything in its entry but what its mid decides."""
    entry = entries[step & MASK]
    entry.stamp = stamp_of(generation, step)
    entry.minute = minute
    entry.masked = masked
    entry.predicted[:] = np.nan
    entry.half[:] = np.nan
    entry.log_q[:] = 0.0
    entry.span = min(_span(entries, step, depth, minute), 1 << 30)
    settle(entries, step, depth, entry, pairs)


@kernel
def _close_without_vectors(entries, generation, step, minute, depth, mid, masked, pairs, nothing):
    """A minute that no vector described: one of the price history, or an empty one."""
    _begin(entries, generation, step, minute, depth, masked, pairs)
    entry = entries[step & MASK]
    entry.mid = mid
    entry.spread = np.nan
    observe(entries, step, depth, entry, nothing)


@kernel
def _open(entries, slot, pairs, nothing):
    """The slot's minute begins: price history, empty minutes, then its own entry. Returns the depth before it."""
    step, minute, generation = np.int64(slot.step), slot.minute, slot.generation
    history = np.int64(slot.history_count)  # Numba makes a float of signed and unsigned together
    for n in range(history):
        before = step - history + n
        at = minute - history + n
        _close_without_vectors(entries, generation, before, at, n, slot.history[n], 0, pairs, nothing)
    skipped = np.int64(slot.skipped)
    depth = usable(entries, generation, step - skipped, np.int64(slot.depth) - skipped)
    if depth > 0:
        mid = entries[(step - skipped - 1) & MASK].mid
        for n in range(skipped):
            before = step - skipped + n
            _close_without_vectors(entries, generation, before, minute - skipped + n, depth, mid, 1, pairs, nothing)
            depth += 1
    _begin(entries, generation, step, minute, depth, 0, pairs)
    return min(depth, np.int64(slot.depth))


@kernel
def _place_outside(entries, slot, entry, pairs):
    """The entry that this slot would have had, out of the window. Returns its step and depth."""
    step = np.int64(slot.step)
    depth = usable(entries, slot.generation, step, np.int64(slot.depth))
    while depth > 0 and entries[(step - 1) & MASK].minute >= slot.minute:
        step -= 1
        depth -= 1
    entry.minute = slot.minute
    entry.masked = 0
    entry.span = min(_span(entries, step, depth, slot.minute), 1 << 30)
    entry.mid = slot.mid
    entry.spread = slot.spread
    settle(entries, step, depth, entry, pairs)
    observe(entries, step, depth, entry, slot.indicators)
    return step, depth


@kernel
def _gather(entries, step, depth, own):
    """The closed minutes, oldest first and the open one last, zeros where there are none."""
    rows, path = own.rows, own.path
    for age in range(LSTM_MINUTES):
        row = rows[LSTM_MINUTES - 1 - age]
        if age < depth:
            row[:] = entries[(step - 1 - age) & MASK].row
        else:
            row[:] = 0.0
    rows[LSTM_MINUTES, :] = own.entry.row
    for age in range(IMAGE_MINUTES):
        path[IMAGE_MINUTES - 1 - age] = entries[(step - 1 - age) & MASK].mid if age < depth else np.nan


@kernel
def _gather_columns(slot, cross_asset, own):
    """Inputs of trees; NaN where the producer or the tier has none."""
    columns, extra = own.columns, own.extra
    columns[:FEATURES] = own.entry.row
    columns[FEATURES] = own.entry.trend
    columns[FEATURES + 1 : COLUMNS] = np.nan
    extra[:] = np.nan
    for n in range(slot.extra_count):
        extra[n] = slot.extra[n]
    count = slot.correlation_count
    if cross_asset == 0 or count == 0:
        return
    total, high, low = 0.0, -np.inf, np.inf
    for n in range(count):
        score = slot.correlations[n]
        total += score
        high, low = max(high, score), min(low, score)
    columns[FEATURES + 1] = total / count
    columns[FEATURES + 2] = high
    columns[FEATURES + 3] = low


@kernel
def _unfamiliar(entries, step, depth, entry, bounds):
    """Whether the volatility or the last closed minute lies beyond all that training saw."""
    if depth == 0:
        return False
    if not (bounds[FEATURES, 0] <= entry.sigma <= bounds[FEATURES, 1]):
        return True
    row = entries[(step - 1) & MASK].row
    for k in range(FEATURES):
        if not (bounds[k, 0] <= row[k] <= bounds[k, 1]):
            return True
    return False


@kernel
def enter(requests, mask, first, count, verdicts, windows, cross_asset, bounds, batch):
    """Each slot in its turn: into its window, then its inputs out of it, into its record of `batch`.

    `cross_asset` and `bounds` are by plan: whether correlations reach the models, and the range of
    each feature and of the volatility in training.
    """
    nothing, pairs = np.full(6, np.nan), np.empty(PAIRS_MAX)
    for i in range(count):
        slot, own = requests[(first + i) & mask], batch[i]
        own.predicts = 0
        own.opened = 0
        own.plan = slot.plan if slot.plan != 0 else min(slot.tier, 3)
        own.flags = slot.flags
        if verdicts[i] == PASS:
            continue
        entries = windows[slot.key]
        step = np.int64(slot.step)
        own.generation = slot.generation
        if slot.outside:
            own.key = -1
            step, depth = _place_outside(entries, slot, own.entry, pairs)
        else:
            kept = entries[step & MASK]
            if slot.opens or kept.stamp != stamp_of(slot.generation, step):
                depth = _open(entries, slot, pairs, nothing)
                own.opened = 1
            else:
                depth = usable(entries, slot.generation, step, np.int64(slot.depth))
            kept.mid = slot.mid
            kept.spread = slot.spread
            observe(entries, step, depth, kept, slot.indicators)
            own.entry = kept
            own.key = slot.key
            own.closing[:] = kept.row
        show_time(own.entry, slot.event_ns)
        own.step = step
        own.depth = depth
        if verdicts[i] == EXPIRED or slot.expired:
            continue
        own.predicts = 1
        _gather(entries, step, depth, own)
        _gather_columns(slot, cross_asset[own.plan], own)
        if _unfamiliar(entries, step, depth, own.entry, bounds[own.plan]):
            own.flags = slot.flags | np.uint32(UNFAMILIAR)

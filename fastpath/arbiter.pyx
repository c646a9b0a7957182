"""The arbiter: what an input's (epoch, sequence) says about it, whichever bus brought it.

Runs in ingress, the only writer of the stream table. `decide` reads and changes nothing; `apply`
takes the same input into the state once it is accepted, and may be called again for it.

Of each stream two epochs are remembered, the current one and the one before: the next sequence, and
which sequences below it have not come, as at most RANGES_MAX ranges. When one more is needed the
oldest is given up and counted; what comes of it later is a duplicate to us.

What must stay true: a row's `active` names a state that is whole. A change is made in the other of
the two states, and `active` moves with one store at its end, so ingress killed anywhere leaves the
old state or the new one. `applied` rises; an input at or below it changes nothing.

Sequences run from 1 to 2^64 - 1. A `next` of 0 stands for the number behind the last: the epoch is used
up, and only what is missing can still come. Counts of missing sequences stop at 2^64 - 1.
"""

from enum import IntEnum

from libc.stdint cimport UINT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from fastpath.atomics cimport failpoint, load_acquire, store_release
from fastpath.items cimport item_address
from fastpath.layout cimport GAPS_MAX, RANGES_MAX, epoch_state, stream_row, stream_state


class Arrival(IntEnum):
    """What an input is to its stream."""

    FIRST = ARRIVAL_FIRST
    NEXT = ARRIVAL_NEXT
    AFTER_GAP = ARRIVAL_AFTER_GAP
    NEW_EPOCH = ARRIVAL_NEW_EPOCH
    LATE = ARRIVAL_LATE
    LATE_PREVIOUS = ARRIVAL_LATE_PREVIOUS
    DUPLICATE = ARRIVAL_DUPLICATE
    STALE = ARRIVAL_STALE


# -- deciding --------------------------------------------------------------------------------------

cdef uint64_t added(uint64_t a, uint64_t b) noexcept nogil:
    return a + b if a <= UINT64_MAX - b else UINT64_MAX


cdef int64_t _range_of(const epoch_state *state, uint64_t sequence) noexcept nogil:
    """Index of the missing range that holds the sequence, or -1."""
    cdef int64_t low = 0, high = <int64_t> state.range_count - 1, middle
    while low <= high:
        middle = (low + high) // 2
        if sequence < state.range_first[middle]:
            high = middle - 1
        elif sequence > state.range_last[middle]:
            low = middle + 1
        else:
            return middle
    return -1


cdef bint _is_below_next(const epoch_state *state, uint64_t sequence) noexcept nogil:
    return state.next == 0 or sequence < state.next


cdef verdict _judged(int arrival, uint64_t missing) noexcept nogil:
    cdef verdict found
    found.arrival = arrival
    found.missing = missing
    return found


cdef verdict judge(const stream_state *state, uint64_t epoch, uint64_t sequence) noexcept nogil:
    if state.applied == 0:
        return _judged(ARRIVAL_FIRST, 0)
    if epoch > state.current.epoch:
        return _judged(ARRIVAL_NEW_EPOCH, sequence - 1)
    if epoch == state.current.epoch:
        if not _is_below_next(&state.current, sequence):
            if sequence == state.current.next:
                return _judged(ARRIVAL_NEXT, 0)
            return _judged(ARRIVAL_AFTER_GAP, sequence - state.current.next)
        return _judged(ARRIVAL_LATE if _range_of(&state.current, sequence) >= 0 else ARRIVAL_DUPLICATE, 0)
    if epoch == state.previous.epoch:
        # Beyond its `next` nothing had come either: the sender began anew before we saw the rest.
        if not _is_below_next(&state.previous, sequence) or _range_of(&state.previous, sequence) >= 0:
            return _judged(ARRIVAL_LATE_PREVIOUS, 0)
        return _judged(ARRIVAL_DUPLICATE, 0)
    return _judged(ARRIVAL_STALE, 0)


cdef verdict judge_heartbeat(const stream_state *state, uint64_t epoch, uint64_t sequence) noexcept nogil:
    cdef verdict found = judge(state, epoch, sequence)
    if epoch < state.current.epoch and state.applied != 0:
        return _judged(ARRIVAL_STALE, 0)
    # Its sequence is yet to come: below `next` it tells nothing new, whether or not that one is missing.
    return _judged(ARRIVAL_DUPLICATE, 0) if found.arrival == ARRIVAL_LATE else found


# -- following -------------------------------------------------------------------------------------

cdef void _copy_epoch(epoch_state *to, const epoch_state *source) noexcept nogil:
    to.epoch, to.next, to.range_count = source.epoch, source.next, source.range_count
    memcpy(to.range_first, source.range_first, source.range_count * sizeof(uint64_t))
    memcpy(to.range_last, source.range_last, source.range_count * sizeof(uint64_t))


cdef void _copy_state(stream_state *to, const stream_state *source) noexcept nogil:
    to.applied, to.given_up, to.newest_minute = source.applied, source.given_up, source.newest_minute
    to.gap_count = source.gap_count
    memcpy(to.gap_minute, source.gap_minute, sizeof(to.gap_minute))
    memcpy(to.gap_missing, source.gap_missing, sizeof(to.gap_missing))
    _copy_epoch(&to.current, &source.current)
    _copy_epoch(&to.previous, &source.previous)


cdef void _drop_range(epoch_state *state, int64_t index) noexcept nogil:
    cdef uint64_t after = state.range_count - <uint64_t> index - 1
    memmove(&state.range_first[index], &state.range_first[index + 1], after * sizeof(uint64_t))
    memmove(&state.range_last[index], &state.range_last[index + 1], after * sizeof(uint64_t))
    state.range_count -= 1


cdef void _insert_range(
    stream_state *owner, epoch_state *state, int64_t index, uint64_t first, uint64_t last,
) noexcept nogil:
    """Puts a range before the one at `index`; when all places are taken the oldest is given up."""
    cdef uint64_t after
    if state.range_count == RANGES_MAX:
        owner.given_up += 1
        if index == 0:                      # it would be the oldest itself
            return
        _drop_range(state, 0)
        index -= 1
    after = state.range_count - <uint64_t> index
    memmove(&state.range_first[index + 1], &state.range_first[index], after * sizeof(uint64_t))
    memmove(&state.range_last[index + 1], &state.range_last[index], after * sizeof(uint64_t))
    state.range_first[index] = first
    state.range_last[index] = last
    state.range_count += 1


cdef void _miss(stream_state *owner, epoch_state *state, uint64_t first, uint64_t last) noexcept nogil:
    """The sequences from `first` to `last`, above all ranges so far, have not come."""
    cdef uint64_t count = state.range_count
    if first > last:
        return
    # A heartbeat ends a range without a sequence of its own, so the next one may touch it.
    if count > 0 and state.range_last[count - 1] + 1 == first:
        state.range_last[count - 1] = last
    else:
        _insert_range(owner, state, <int64_t> count, first, last)


cdef void _came(stream_state *owner, epoch_state *state, uint64_t sequence) noexcept nogil:
    """One sequence that was missing is not any more."""
    cdef int64_t index = _range_of(state, sequence)
    cdef uint64_t first = state.range_first[index], last = state.range_last[index]
    if first == last:
        _drop_range(state, index)
    elif sequence == first:
        state.range_first[index] = sequence + 1
    elif sequence == last:
        state.range_last[index] = sequence - 1
    else:
        state.range_first[index] = sequence + 1
        _insert_range(owner, state, index, first, sequence - 1)


cdef void _note_gap(stream_state *state, uint64_t missing) noexcept nogil:
    cdef uint64_t last = state.gap_count
    if last > 0 and state.gap_minute[last - 1] == state.newest_minute:
        state.gap_missing[last - 1] = added(state.gap_missing[last - 1], missing)
        return
    if last == GAPS_MAX:                    # the two oldest become one, in the newer's minute
        state.gap_missing[1] = added(state.gap_missing[0], state.gap_missing[1])
        memmove(&state.gap_minute[0], &state.gap_minute[1], (GAPS_MAX - 1) * sizeof(int64_t))
        memmove(&state.gap_missing[0], &state.gap_missing[1], (GAPS_MAX - 1) * sizeof(uint64_t))
        last -= 1
    state.gap_minute[last] = state.newest_minute
    state.gap_missing[last] = missing
    state.gap_count = last + 1


cdef void _begin_epoch(stream_state *state, uint64_t epoch, uint64_t sequence, uint64_t next) noexcept nogil:
    state.current.epoch = epoch
    state.current.next = next
    state.current.range_count = 0
    _miss(state, &state.current, 1, sequence - 1)


cdef void _begin_stream(stream_state *state, uint64_t epoch, int64_t minute) noexcept nogil:
    state.applied = 0
    state.given_up = 0
    state.newest_minute = minute
    state.gap_count = 0
    # No epoch before it is known: one that is not older than the current one is never looked at.
    state.previous.epoch = epoch
    state.previous.next = 0
    state.previous.range_count = 0


cdef void _take(
    stream_state *state, uint64_t epoch, uint64_t sequence, int64_t minute, bint heartbeat, verdict found,
) noexcept nogil:
    # 0 behind the last sequence of all: the epoch is used up.
    cdef uint64_t next = sequence if heartbeat else sequence + 1
    cdef int arrival = found.arrival
    if arrival == ARRIVAL_FIRST:
        _begin_stream(state, epoch, minute)
        _begin_epoch(state, epoch, sequence, next)
    elif arrival == ARRIVAL_NEXT:
        state.current.next = next
    elif arrival == ARRIVAL_AFTER_GAP:
        _miss(state, &state.current, state.current.next, sequence - 1)
        state.current.next = next
    elif arrival == ARRIVAL_NEW_EPOCH:
        _copy_epoch(&state.previous, &state.current)
        _begin_epoch(state, epoch, sequence, next)
    elif arrival == ARRIVAL_LATE:
        _came(state, &state.current, sequence)
    elif arrival == ARRIVAL_LATE_PREVIOUS:
        if _is_below_next(&state.previous, sequence):
            _came(state, &state.previous, sequence)
        else:
            _miss(state, &state.previous, state.previous.next, sequence - 1)
            state.previous.next = next
    if arrival != ARRIVAL_DUPLICATE and arrival != ARRIVAL_STALE and minute > state.newest_minute:
        state.newest_minute = minute
    if found.missing > 0:
        _note_gap(state, found.missing)


cdef void follow(
    stream_state *states, stream_row *row,
    uint64_t position, uint64_t epoch, uint64_t sequence, int64_t minute, bint heartbeat,
) noexcept nogil:
    # Acquire: pairs with the store_release below, which a predecessor of this process may have made.
    cdef uint64_t active = load_acquire(&row.active) & 1
    cdef const stream_state *standing = &states[active]
    cdef stream_state *other = &states[1 - active]
    cdef verdict found
    if standing.applied >= position:
        return
    found = judge_heartbeat(standing, epoch, sequence) if heartbeat else judge(standing, epoch, sequence)
    failpoint(b"arbiter.apply.before")
    if found.arrival != ARRIVAL_FIRST:
        _copy_state(other, standing)
    failpoint(b"arbiter.apply.copied")
    _take(other, epoch, sequence, minute, heartbeat, found)
    failpoint(b"arbiter.apply.taken")
    other.applied = position
    failpoint(b"arbiter.apply.stamped")
    # Release: pairs with the load_acquire above, in this process or in its successor.
    store_release(&row.active, 1 - active)
    failpoint(b"arbiter.apply.after")


# -- over arrays -----------------------------------------------------------------------------------

cdef const stream_state *standing(states, rows, uint64_t index) except NULL:
    cdef stream_row *row = <stream_row *> item_address(rows, index, sizeof(stream_row), "stream rows", False)
    cdef stream_state *pair = <stream_state *> item_address(states, index, 2 * sizeof(stream_state), "stream states", False)
    return &pair[load_acquire(&row.active) & 1]     # pairs with the store_release in follow


def decide(states, rows, uint64_t index, uint64_t epoch, uint64_t sequence):
    """What an input would be to its stream: (Arrival, sequences missing just before it).

    Parameters
    ----------
    states: array of stream_state, shape (streams, 2)
    rows: array of stream_row, shape (streams,)
    index: of the stream
    sequence: 1 or more

    A stream's first input has nothing missing before it, though all below it are still welcome late.
    """
    cdef verdict found = judge(standing(states, rows, index), epoch, sequence)
    return found.arrival, found.missing


def decide_heartbeat(states, rows, uint64_t index, uint64_t epoch, uint64_t sequence):
    """What a heartbeat would be to its stream; its sequence is the next one to come, and is not used up.

    NEXT when nothing is missing, DUPLICATE when it is below the next (and tells nothing), STALE when
    of an older epoch, the one before included.
    """
    cdef verdict found = judge_heartbeat(standing(states, rows, index), epoch, sequence)
    return found.arrival, found.missing


def apply(
    states, rows, uint64_t index, uint64_t position, uint64_t epoch, uint64_t sequence, int64_t minute, bint heartbeat,
):
    """Takes an accepted input into its stream's state.

    Parameters
    ----------
    position: of the input, 1 or more; nothing changes when the state has this one or a later one
    minute: of its event time; a gap before it is noted in the newest minute so far
    """
    cdef stream_row *row = <stream_row *> item_address(rows, index, sizeof(stream_row), "stream rows", True)
    cdef stream_state *pair = <stream_state *> item_address(states, index, 2 * sizeof(stream_state), "stream states", True)
    if position == 0 or sequence == 0:
        raise ValueError(f"apply of position {position}, sequence {sequence}: both begin at 1")
    follow(pair, row, position, epoch, sequence, minute, heartbeat)


def forget(states, rows, uint64_t index):
    """A row is given to another stream: what comes next is its first."""
    cdef stream_row *row = <stream_row *> item_address(rows, index, sizeof(stream_row), "stream rows", True)
    cdef stream_state *pair = <stream_state *> item_address(states, index, 2 * sizeof(stream_state), "stream states", True)
    # One word of the state that stands; the other is written whole before it stands.
    pair[row.active & 1].applied = 0


cdef uint64_t gaps_since(const stream_state *state, int64_t oldest_minute) noexcept nogil:
    cdef uint64_t total = 0, each
    if state.applied == 0:
        return 0
    for each in range(state.gap_count):
        if state.gap_minute[each] >= oldest_minute:
            total = added(total, state.gap_missing[each])
    return total


def window_gaps(states, rows, uint64_t index, int64_t oldest_minute):
    """The stream's missing sequences of gaps seen in `oldest_minute` or later."""
    return gaps_since(standing(states, rows, index), oldest_minute)


def newest_minute(states, rows, uint64_t index):
    """Of the event times of the stream's inputs; 0 before its first."""
    cdef const stream_state *state = standing(states, rows, index)
    return state.newest_minute if state.applied else 0


def use(rows, uint64_t index, uint32_t generation, int64_t received_ns):
    """Notes that an input used the row. False: the row is another owner's, or nobody's."""
    cdef stream_row *row = <stream_row *> item_address(rows, index, sizeof(stream_row), "stream rows", True)
    row.used_ns = received_ns
    return row.taken != 0 and row.generation == generation

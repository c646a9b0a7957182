"""Promises of the arbiter: against a plain model with sets, at the ends of 64 bits, and each arrival by name."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from streams import standing, stream_table
from texts import whole

from fastpath.arbiter import Arrival, apply, decide, decide_heartbeat, forget, window_gaps
from fastpath.layout import gaps_max, ranges_max

LAST = 2**64 - 1


class Model:
    """The rules once more, with sets, and without any thought of speed or memory."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.previous_epoch: int | None = None
        self.next = self.previous_next = 1
        self.missing: set[int] = set()
        self.previous_missing: set[int] = set()
        self.given_up = 0
        self.newest = 0
        self.gaps: list[tuple[int, int]] = []

    def decide(self, epoch: int, sequence: int, heartbeat: bool) -> tuple[Arrival, int]:
        if self.epoch is None:
            return Arrival.FIRST, 0
        if epoch > self.epoch:
            return Arrival.NEW_EPOCH, sequence - 1
        if epoch == self.epoch:
            if sequence >= self.next:
                gap = sequence - self.next
                return (Arrival.AFTER_GAP if gap else Arrival.NEXT), gap
            return (Arrival.LATE if sequence in self.missing and not heartbeat else Arrival.DUPLICATE), 0
        if heartbeat or epoch != self.previous_epoch:
            return Arrival.STALE, 0
        come = sequence < self.previous_next and sequence not in self.previous_missing
        return (Arrival.DUPLICATE if come else Arrival.LATE_PREVIOUS), 0

    def apply(self, epoch: int, sequence: int, minute: int, heartbeat: bool) -> None:
        arrival, gap = self.decide(epoch, sequence, heartbeat)
        if arrival in (Arrival.DUPLICATE, Arrival.STALE):
            return
        self.newest = max(self.newest, minute)
        if arrival == Arrival.NEW_EPOCH:
            self.previous_epoch, self.previous_next, self.previous_missing = self.epoch, self.next, self.missing
        if arrival in (Arrival.FIRST, Arrival.NEW_EPOCH):
            self.epoch, self.next, self.missing = epoch, 1, set()
        if arrival == Arrival.LATE_PREVIOUS:
            self.previous_missing |= set(range(self.previous_next, sequence))
            self.previous_missing.discard(sequence)
            self.previous_next = max(self.previous_next, sequence + 1)
        else:
            self.missing |= set(range(self.next, sequence))
            self.missing.discard(sequence)
            self.next = max(self.next, sequence if heartbeat else sequence + 1)
        for missing in (self.missing, self.previous_missing):
            found = ranges(missing)
            if len(found) > ranges_max:
                self.given_up += 1
                missing -= set(range(found[0][0], found[0][1] + 1))
        if gap:
            self.note_gap(gap)

    def note_gap(self, gap: int) -> None:
        self.gaps.append((self.newest, gap))
        if len(self.gaps) > 1 and self.gaps[-2][0] == self.newest:
            self.gaps[-2:] = [(self.newest, self.gaps[-2][1] + gap)]
        if len(self.gaps) > gaps_max:
            self.gaps[:2] = [(self.gaps[1][0], self.gaps[0][1] + self.gaps[1][1])]


def ranges(missing: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for each in sorted(missing):
        if found and found[-1][1] + 1 == each:
            found[-1] = (found[-1][0], each)
        else:
            found.append((each, each))
    return found


# Far apart (every second sequence), all the ranges get used; close together, everything else happens.
inputs = st.tuples(
    st.sampled_from([4, 5, 5, 5, 6]),
    st.integers(1, 30),
    st.integers(1, 12),
    st.sampled_from([False, False, False, True]),
)
combs = st.tuples(st.just("comb"), st.integers(1, 300), st.integers(2, 3), st.just(False))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(inputs, inputs, inputs, combs), max_size=40))
def test_arbiter_agrees_with_sets(todo: list[tuple]) -> None:
    states, rows = stream_table()
    model = Model()
    position = 0

    def step(epoch: int, sequence: int, minute: int, heartbeat: bool) -> None:
        nonlocal position
        position += 1
        asked = decide_heartbeat if heartbeat else decide
        assert asked(states, rows, 0, epoch, sequence) == model.decide(epoch, sequence, heartbeat)
        apply(states, rows, 0, position, epoch, sequence, minute, heartbeat)
        model.apply(epoch, sequence, minute, heartbeat)

    for first, second, minute, heartbeat in todo:
        if first == "comb":
            for each in range(second):
                step(model.epoch or 5, model.next + minute - 1, minute + each // 100, False)
        else:
            # Beside what the model has next, so that long combs are met everywhere.
            step(first, second if second % 2 else max(1, model.next - 15 + second), minute, heartbeat)
        check(states, rows, model)
    assert position == 0 or standing(states, rows)["applied"] == position


def check(states: NDArray[Any], rows: NDArray[Any], model: Model) -> None:
    state = standing(states, rows)
    assert state["current"] == (model.epoch, model.next, ranges(model.missing))
    if model.previous_epoch is not None:
        assert state["previous"] == (model.previous_epoch, model.previous_next, ranges(model.previous_missing))
    assert (state["given_up"], state["newest_minute"], state["gaps"]) == (model.given_up, model.newest, model.gaps)
    for minute in range(0, 16):
        assert window_gaps(states, rows, 0, minute) == sum(gap for when, gap in model.gaps if when >= minute)


def after(*todo: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """A stream's table after (epoch, sequence) pairs."""
    states, rows = stream_table()
    for position, (epoch, sequence) in enumerate(todo, start=1):
        apply(states, rows, 0, position, epoch, sequence, 100 + position, False)
    return states, rows, 0


def test_first_input_misses_nothing_but_everything_below_it_is_late() -> None:
    assert decide(*after(), 7, 10) == (Arrival.FIRST, 0)
    stream = after((7, 10))
    assert window_gaps(*stream, 0) == 0
    assert decide(*stream, 7, 1) == decide(*stream, 7, 9) == (Arrival.LATE, 0)
    assert decide(*stream, 7, 10) == (Arrival.DUPLICATE, 0)
    assert decide(*stream, 6, 10) == (Arrival.STALE, 0)


def test_new_epoch_begins_at_one_and_remembers_the_epoch_before() -> None:
    stream = after((7, 1), (7, 2), (7, 4), (9, 3))
    assert decide(*after((7, 1)), 9, 3) == (Arrival.NEW_EPOCH, 2)
    assert decide(*stream, 9, 1) == (Arrival.LATE, 0)
    assert decide(*stream, 7, 3) == (Arrival.LATE_PREVIOUS, 0)
    assert decide(*stream, 7, 4) == (Arrival.DUPLICATE, 0)
    assert decide(*stream, 7, 5) == (Arrival.LATE_PREVIOUS, 0), "had not come before the sender began anew"
    assert decide(*stream, 8, 1) == (Arrival.STALE, 0)


def test_late_input_is_late_once() -> None:
    stream = after((7, 1), (7, 5), (7, 3))
    assert decide(*stream, 7, 3) == (Arrival.DUPLICATE, 0)
    assert standing(*stream)["current"] == (7, 6, [(2, 2), (4, 4)])


def test_heartbeat_reveals_the_loss_of_the_last_message() -> None:
    states, rows, index = after((7, 1), (7, 2))
    assert decide_heartbeat(states, rows, index, 7, 3) == (Arrival.NEXT, 0)
    assert decide_heartbeat(states, rows, index, 7, 5) == (Arrival.AFTER_GAP, 2)
    apply(states, rows, index, 3, 7, 5, 104, True)
    assert decide(states, rows, index, 7, 4) == (Arrival.LATE, 0)
    assert decide(states, rows, index, 7, 5) == (Arrival.NEXT, 0), "a heartbeat does not use its sequence up"
    assert window_gaps(states, rows, index, 104) == 2


def test_heartbeat_below_the_next_sequence_changes_nothing() -> None:
    states, rows, index = after((7, 1), (7, 4))
    before = standing(states, rows)
    assert decide_heartbeat(states, rows, index, 7, 2) == (Arrival.DUPLICATE, 0)
    assert decide_heartbeat(states, rows, index, 6, 9) == (Arrival.STALE, 0)
    apply(states, rows, index, 3, 7, 2, 999, True)
    assert standing(states, rows) == {**before, "applied": 3}


def test_input_applied_again_changes_nothing() -> None:
    states, rows, index = after((7, 1), (7, 4), (7, 6))
    before = (states.tobytes(), rows.tobytes())
    for position in (1, 2, 3):
        apply(states, rows, index, position, 8, 50, 500, False)
    assert (states.tobytes(), rows.tobytes()) == before


def test_decision_changes_nothing() -> None:
    states, rows, index = after((7, 1), (7, 4))
    states.flags.writeable = rows.flags.writeable = False
    for epoch in (6, 7, 8):
        for sequence in (1, 2, 4, 5, 9):
            decide(states, rows, index, epoch, sequence)
            decide_heartbeat(states, rows, index, epoch, sequence)
    with pytest.raises(ValueError, match=whole("buffer source array is read-only")):
        apply(states, rows, index, 3, 7, 5, 100, False)


def test_last_sequence_of_all_uses_the_epoch_up() -> None:
    stream = after((7, 1), (7, LAST))
    assert standing(*stream)["current"] == (7, 0, [(2, LAST - 1)])
    assert decide(*stream, 7, LAST) == (Arrival.DUPLICATE, 0)
    assert decide(*stream, 7, LAST - 1) == (Arrival.LATE, 0)
    assert decide_heartbeat(*stream, 7, LAST) == (Arrival.DUPLICATE, 0)
    assert decide(*stream, 8, LAST) == (Arrival.NEW_EPOCH, LAST - 1)
    assert window_gaps(*stream, 0) == LAST - 2
    apply(*stream, 3, 8, LAST, 103, False)
    assert decide(*stream, 7, LAST) == (Arrival.DUPLICATE, 0)
    assert decide(*stream, 7, 2) == (Arrival.LATE_PREVIOUS, 0)
    assert window_gaps(*stream, 0) == LAST, "the sum stops at the largest number"


def test_first_input_may_be_the_last_sequence_of_all() -> None:
    stream = after((LAST, LAST))
    assert standing(*stream)["current"] == (LAST, 0, [(1, LAST - 1)])
    assert decide(*stream, LAST, 1) == (Arrival.LATE, 0)
    assert decide(*stream, 0, 1) == (Arrival.STALE, 0)


def test_one_range_too_many_gives_the_oldest_up_and_counts_it() -> None:
    stream = after(*[(7, 2 * each + 1) for each in range(ranges_max + 1)])
    assert standing(*stream)["given_up"] == 0
    assert decide(*stream, 7, 2) == (Arrival.LATE, 0)
    position = ranges_max + 2
    apply(*stream, position, 7, 2 * position + 20, 200, False)
    state = standing(*stream)
    assert (state["given_up"], len(state["current"][2])) == (1, ranges_max)
    assert decide(*stream, 7, 2) == (Arrival.DUPLICATE, 0)
    assert decide(*stream, 7, 4) == (Arrival.LATE, 0)


def test_gaps_older_than_the_window_are_not_counted() -> None:
    stream = after((7, 1), (7, 3), (7, 6), (7, 7))  # gaps of 1 and 2, in minutes 102 and 103
    assert [window_gaps(*stream, minute) for minute in (101, 102, 103, 104)] == [3, 3, 2, 0]


def test_row_given_to_another_stream_begins_anew() -> None:
    stream = after((7, 1), (7, 5))
    forget(*stream)
    assert decide(*stream, 3, 10) == (Arrival.FIRST, 0)
    assert window_gaps(*stream, 0) == 0
    apply(*stream, 90, 3, 10, 5, False)
    assert standing(*stream) == {
        "applied": 90,
        "given_up": 0,
        "newest_minute": 5,
        "gaps": [],
        "current": (3, 11, [(1, 9)]),
        "previous": (3, 0, []),
    }


def test_streams_do_not_touch_each_other() -> None:
    states, rows = stream_table(3)
    apply(states, rows, 1, 1, 7, 5, 100, False)
    assert [decide(states, rows, index, 7, 6)[0] for index in range(3)] == [
        Arrival.FIRST,
        Arrival.NEXT,
        Arrival.FIRST,
    ]


def test_mistakes_are_told() -> None:
    states, rows = stream_table(2)
    with pytest.raises(IndexError, match=whole("stream rows: row 2 of 2")):
        decide(states, rows, 2, 7, 1)
    with pytest.raises(ValueError, match=whole("apply of position 0, sequence 1: both begin at 1")):
        apply(states, rows, 0, 0, 7, 1, 100, False)
    with pytest.raises(ValueError, match=whole("apply of position 1, sequence 0: both begin at 1")):
        apply(states, rows, 0, 1, 7, 0, 100, False)

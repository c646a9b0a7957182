"""The minute rule: which step each vector is, what a hole costs, who stays out, and how many sequences are missing."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.contract.names import Flag
from engine.shared import Shared
from fastpath.vectors import no_key
from tests.ingress.stand import EPOCH, START_MINUTE, Sender, Stand, arena, vector

FIRST = 240  # step of a key's first vector


def steps_of(stand: Stand) -> list[tuple[int, int, int, int]]:
    """(step, opens, skipped, depth) of each vector."""
    return [tuple(int(slot[name]) for name in ("step", "opens", "skipped", "depth")) for slot in stand.slots()]


def send(stand: Stand, sender: Sender, *minutes: float, symbol: str = "EURUSD") -> None:
    for minute in minutes:
        assert stand.take(sender.batch(vector(symbol, minute)))
        stand.released()


def test_one_vector_a_minute_and_ten_a_second_take_the_same_steps(stand: Stand) -> None:
    minutes = [0, 1, 2, 4, 7]
    send(stand, Sender("slow"), *minutes)
    slow = steps_of(stand)
    fast_sender, fast = Sender("fast"), []
    for minute in minutes:
        for second in range(60):
            vectors = [vector(minute=minute + (second + tenth / 10) / 60) for tenth in range(10)]
            assert stand.released().take(fast_sender.batch(*vectors))
            fast += [(int(slot["step"]), int(slot["opens"])) for slot in stand.slots()[-10:]]
    assert [step for step, opens in fast if opens] == [step for step, *_ in slow]
    assert [step for step, _ in fast] == [step for step, *_ in slow for _ in range(600)]


@pytest.mark.parametrize(
    ("empty", "masked"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 1), (60, 1), (1_000_000, 1)]
)
def test_empty_minutes_are_masked_steps_and_a_longer_hole_is_one(stand: Stand, empty: int, masked: int) -> None:
    send(stand, Sender(), 0, 1, 2 + empty)
    assert steps_of(stand) == [(FIRST, 1, 0, 0), (FIRST + 1, 1, 0, 1), (FIRST + 2 + masked, 1, masked, 2 + masked)]


def test_the_depth_ends_at_the_windows_length(stand: Stand) -> None:
    send(stand, Sender(), *range(245))
    assert [depth for *_, depth in steps_of(stand)] == [min(n, 240) for n in range(245)]


def test_vectors_of_a_minute_replace_each_other_and_open_it_once(stand: Stand) -> None:
    send(stand, Sender(), 0, 0.25, 0.5, 1.0, 1.999, 2.0)
    assert [(step - FIRST, opens) for step, opens, *_ in steps_of(stand)] == [
        (0, 1),
        (0, 0),
        (0, 0),
        (1, 1),
        (1, 0),
        (2, 1),
    ]


@pytest.mark.parametrize("minute", [1.5, 1.25, 0.0, -3.0])
def test_an_event_time_that_is_not_newer_stays_out_of_the_window_and_is_flagged(stand: Stand, minute: float) -> None:
    send(stand, Sender(), 0, 1.5)
    before = stand.shared.keys[["last_ns", "minute", "step", "depth"]].copy()
    send_old = Sender()
    send_old.next = 3
    send(stand, send_old, minute)
    slot = stand.last()
    assert (slot["outside"], slot["opens"], slot["flags"], slot["step"]) == (1, 0, Flag.OLD, FIRST + 1)
    assert slot["minute"] == START_MINUTE + int(np.floor(minute))
    assert (stand.shared.keys[["last_ns", "minute", "step", "depth"]] == before).all()


def test_a_late_vector_stays_out_even_where_its_event_time_is_newer(stand: Stand) -> None:
    sender = Sender()
    for sequence, minute in ((1, 0), (3, 1), (2, 2)):
        assert stand.take(sender.batch(vector(minute=minute), sequence=sequence))
    late = stand.last()
    assert stand.records()[-1].head.late == 1
    assert (late["outside"], late["flags"] & Flag.OLD, late["step"]) == (1, 0, FIRST + 1)
    stand.take(sender.batch(vector(minute=2), sequence=4))
    assert (stand.last()["outside"], stand.last()["step"]) == (0, FIRST + 2)


def test_a_late_vector_of_an_unknown_key_has_no_window_and_makes_none(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector("A", 0), sequence=1))
    stand.take(sender.batch(vector("A", 1), sequence=3))
    stand.take(sender.batch(vector("B", 1), vector("B", 1.5), vector("A", 1.5), sequence=2))
    first, second, known = stand.slots()[-3:]
    for slot in (first, second):
        assert (slot["generation"], slot["outside"], slot["depth"], slot["opens"]) == (no_key, 1, 0, 0)
    assert known["generation"] != no_key
    assert int(stand.shared.keys["taken"].sum()) == 1
    stand.take(sender.batch(vector("B", 2), sequence=4))
    assert (stand.last()["step"], stand.last()["opens"], stand.last()["generation"]) == (FIRST, 1, 1)


@pytest.mark.parametrize("count", [0, 1, 49, 240])
def test_a_price_history_fills_a_cold_window(stand: Stand, count: int) -> None:
    history = [1.0 + number / 1000 for number in range(count)]
    stand.take(Sender().batch(vector(history=history)))
    slot = stand.last()
    assert (slot["step"], slot["depth"], slot["history_count"], slot["opens"]) == (FIRST, count, count, 1)
    assert slot["history"][:count].tolist() == history


def test_a_price_history_on_a_warm_key_is_ignored(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(minute=0, history=[1.0] * 7)))
    stand.take(sender.batch(vector(minute=1, history=[2.0] * 9)))
    assert (stand.last()["depth"], stand.last()["history_count"]) == (8, 0)


def test_vectors_of_one_key_in_one_batch_follow_each_other(stand: Stand) -> None:
    sender = Sender()
    stand.take(
        sender.batch(vector(minute=0, history=[1.0] * 3), vector(minute=0.5), vector(minute=2), vector(minute=1))
    )
    assert steps_of(stand) == [(FIRST, 1, 0, 3), (FIRST, 0, 0, 3), (FIRST + 2, 1, 1, 5), (FIRST + 2, 0, 0, 5)]
    assert stand.slots()["outside"].tolist() == [0, 0, 0, 1]
    assert stand.slots()["history_count"].tolist() == [3, 0, 0, 0]
    row = stand.shared.keys[int(stand.last()["key"])]
    assert (row["minute"], row["step"], row["depth"]) == (START_MINUTE + 2, FIRST + 2, 5)


def test_keys_of_two_streams_of_a_company_are_two(stand: Stand) -> None:
    send(stand, Sender(stream="feed-0"), 0, 1)
    send(stand, Sender(stream="feed-1"), 5)
    assert steps_of(stand)[-1] == (FIRST, 1, 0, 0)
    assert len(set(stand.slots()["key"].tolist())) == 2


def test_a_new_epoch_keeps_the_windows(stand: Stand) -> None:
    send(stand, Sender(), 0, 1)
    send(stand, Sender(epoch=EPOCH + 1), 2)
    assert steps_of(stand)[-1] == (FIRST + 2, 1, 0, 2)


def test_window_gaps_counts_what_is_missing_as_long_as_it_lies_within_the_window(stand: Stand) -> None:
    sender = Sender()
    send(stand, sender, 0, 1)
    sender.next = 6
    send(stand, sender, 2)
    assert (stand.last()["window_gaps"], stand.last()["flags"]) == (3, Flag.GAP)
    send(stand, sender, 2.5)
    assert stand.last()["window_gaps"] == 3
    sender.next += 1
    send(stand, sender, 3)
    assert stand.last()["window_gaps"] == 4
    send(stand, sender, *range(4, 243))
    assert stand.last()["window_gaps"] == 4  # minute 242: its window begins at minute 2
    send(stand, sender, 243)
    assert stand.last()["window_gaps"] == 1
    send(stand, sender, 244)
    assert (stand.last()["window_gaps"], stand.last()["flags"]) == (0, 0)


def test_a_window_that_begins_after_a_gap_has_none(stand: Stand) -> None:
    sender = Sender()
    send(stand, sender, 0)
    sender.next += 5
    send(stand, sender, 1, symbol="NEW")
    assert (stand.last()["window_gaps"], stand.last()["flags"]) == (0, 0)


def test_a_late_vector_does_not_say_when_a_gap_was(stand: Stand) -> None:
    sender = Sender()
    send(stand, sender, 0)
    sender.next = 3
    send(stand, sender, 1)
    assert stand.take(sender.batch(vector(minute=200), sequence=2))
    sender.next = 5
    send(stand, sender, 2, *range(3, 244))
    assert stand.last()["window_gaps"] == 0  # both gaps were seen by minute 2, and the window begins at 3


def test_a_row_of_a_former_owner_lends_no_minutes_to_the_next(stand: Stand) -> None:
    far = Sender("old")
    stand.take(far.batch(vector(minute=10**6)))
    stand.released()
    stand.sequencer.tables.streams.forget(("old", "feed-0"))
    sender = Sender("new")
    send(stand, sender, 0)
    sender.next += 2
    send(stand, sender, 1)
    assert stand.last()["window_gaps"] == 2
    send(stand, sender, *range(2, 243))
    assert stand.last()["window_gaps"] == 0
    assert int(stand.shared.streams[0]["generation"]) == 2


def test_decisions_applied_twice_are_applied_once(stand: Stand) -> None:
    sender = Sender()
    send(stand, sender, 0, 1)
    stand.take(sender.batch(vector(minute=3), vector("B", 3), vector(minute=4)))
    record = stand.records()[-1]
    keys, states = stand.shared.keys.tobytes(), stand.shared.stream_states.tobytes()
    for _ in range(2):
        stand.sequencer._apply(record)
        assert (stand.shared.keys.tobytes(), stand.shared.stream_states.tobytes()) == (keys, states)


class Plain:
    """The minute rule over plain lists: a key's window is every minute it ever had, masked ones too."""

    def __init__(self) -> None:
        self.last_ns: dict[str, int] = {}
        self.windows: dict[str, list[int]] = {}

    def stays_outside(self, symbol: str, event_ns: int, late: bool, history: int) -> bool | None:
        """None: it has no window."""
        minute = event_ns // (60 * 10**9)
        if symbol not in self.windows:
            if late:
                return None
            self.windows[symbol] = [minute - back for back in range(history, -1, -1)]
        elif late or event_ns <= self.last_ns[symbol]:
            return True
        else:
            window = self.windows[symbol]
            empty = list(range(window[-1] + 1, minute))
            window += empty if len(empty) <= 5 else empty[-1:]
            if minute > window[-1]:
                window.append(minute)
        self.last_ns[symbol] = event_ns
        return False


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B"]),
            st.one_of(st.integers(-90, 200), st.integers(200, 900)),  # seconds after the vector before
            st.booleans(),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_steps_follow_a_plain_window(moves: list[tuple[str, int, bool, int]]) -> None:
    with arena() as shared:
        stand, sender, plain = Stand(shared), Sender(), Plain()
        at_s = 100_000
        first_steps: dict[str, int] = {}
        assert stand.take(sender.batch(vector("FIRST", at_s / 60), sequence=1000))
        late_sequence, next_sequence = 1, 1001
        for symbol, seconds, late, history in moves:
            at_s = max(50_000, at_s + seconds)
            made = vector(symbol, at_s / 60, history=[1.0] * history)
            sequence = late_sequence if late else next_sequence
            late_sequence, next_sequence = late_sequence + late, next_sequence + (not late)
            assert stand.released().take(sender.batch(made, sequence=sequence))
            slot, outside = stand.last(), plain.stays_outside(symbol, made.timestamp_ns, late, history)
            if outside is None:
                assert slot["generation"] == no_key
                continue
            window = plain.windows[symbol]
            first_step = first_steps.setdefault(symbol, FIRST - history)
            assert int(slot["step"]) == first_step + len(window) - 1
            assert (int(slot["depth"]), bool(slot["outside"])) == (min(len(window) - 1, 240), outside)


def test_an_arena_has_room_for_the_largest_price_history_before_the_first_step(shared: Shared) -> None:
    assert shared.windows.shape[1] == 256 > FIRST

"""Room: in a requests ring, in `inputs`, in the tables. What finds none waits, or goes the way the contract says."""

import pytest

from engine.contract.names import Kind, Reason
from engine.ingress.tables import IDLE_NS
from engine.shared import Count, Shared, Verdict, verdict_word
from tests.ingress.stand import SMALL, Sender, Stand, arena, message, release, vector, with_limits

COMPANY_STREAMS = (
    "overloaded: the company has 4 streams, at most 4 are kept; send fewer, or wait until idle ones are let go"
)
COMPANY_KEYS = "the company has 16 keys, at most 16 are kept; send fewer, or wait until idle ones are let go"


def made_idle(rows, *which: int) -> None:
    for row in which:
        rows[row]["used_ns"] -= 2 * IDLE_NS


def now_used(stand: Stand, sender: Sender, *vectors) -> bool:
    import time

    return stand.take(sender.batch(*vectors), received_ns=time.monotonic_ns())


@pytest.mark.parametrize("waiting", [0, 1, 31, 32, 33])
def test_an_input_enters_while_fewer_than_two_microbatches_are_unreleased_whatever_its_own_count(
    stand: Stand, waiting: int
) -> None:
    sender = Sender()
    largest = [vector(f"S{number % 16}", number / 100) for number in range(64)]
    for _ in range(waiting):
        stand.shared.requests[0].publish(stand.shared.requests[0].claim(1) + 1)
    assert stand.take(sender.batch(*largest)) == (waiting < 2 * SMALL.engine.max_batch)


def test_a_full_inputs_ring_holds_messages_back_until_the_oldest_input_is_done(stand: Stand) -> None:
    sender = Sender()
    extra = [0.5] * 64
    accepted = 0
    while True:
        each = sender.batch(*[vector(f"S{number % 16}", accepted + number / 100, extra=extra) for number in range(60)])
        if not stand.take(each):
            break
        stand.shared.requests[0].release(stand.shared.requests[0].head)
        accepted += 1
    assert accepted > 50
    inputs, shared = stand.shared.inputs, stand.shared
    for position in range(2, 5):
        shared.verdicts[position] = verdict_word(position, Verdict.DONE)
    assert not stand.take(each)  # the oldest is not done, so nothing is freed
    assert inputs.tail == 0
    shared.verdicts[1] = verdict_word(1, Verdict.DONE)
    assert stand.take(each)
    assert inputs.tail > 0
    assert stand.sequencer.tail_position == 5
    assert int(stand.last()["input"]) == accepted + 1


def test_the_ring_of_inputs_is_used_around_its_end_again_and_again(stand: Stand) -> None:
    sender = Sender()
    while stand.shared.inputs.head < 1.2 * stand.shared.inputs.capacity:
        vectors = [vector(f"S{number % 16}", sender.next + number / 100, extra=[1.0] * 64) for number in range(48)]
        assert stand.take(sender.batch(*vectors))
        assert stand.records()[-1].head.position == sender.next - 1
        stand.released()
    assert stand.shared.inputs.head == stand.shared.inputs.tail


def test_a_verdict_of_an_input_one_lap_before_frees_nothing(stand: Stand) -> None:
    stand.take(Sender().batch(vector()))
    stand.shared.verdicts[1] = verdict_word(1 + (1 << 16), Verdict.DONE)
    stand.sequencer.advance_tail()
    assert stand.shared.inputs.tail == 0


def test_no_more_inputs_are_in_flight_than_have_verdict_words(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.limits.INPUTS_IN_FLIGHT_MAX", 4)
    sender = Sender()
    assert [stand.take(sender.batch(vector(minute=n))) for n in range(5)] == [True] * 4 + [False]
    stand.shared.verdicts[1] = verdict_word(1, Verdict.DONE)
    sender.next = 5
    assert stand.take(sender.batch(vector(minute=5)))


def test_a_company_with_all_its_streams_in_use_is_overloaded_with_one_more(stand: Stand) -> None:
    for number in range(4):
        assert now_used(stand, Sender(stream=f"feed-{number}"), vector(minute=number))
    assert now_used(stand, Sender(stream="feed-4"), vector())
    assert [str(report) for report in stand.reports] == [COMPANY_STREAMS]
    assert now_used(stand, Sender("other"), vector())
    assert len(stand.slots()) == 5


def test_an_idle_stream_leaves_and_what_follows_in_its_row_is_of_a_new_generation(stand: Stand) -> None:
    for number in range(4):
        now_used(stand, Sender(stream=f"feed-{number}"), vector(minute=number))
    made_idle(stand.shared.streams, 2)
    assert now_used(stand, Sender(stream="feed-4"), vector())
    assert stand.reports == []
    row = stand.shared.streams[2]
    assert (row["stream"], row["generation"], row["taken"]) == (b"feed-4", 2, 1)
    assert (stand.records()[-1].head.stream, stand.records()[-1].head.generation) == (2, 2)
    returned = Sender(stream="feed-2")
    returned.next = 7
    made_idle(stand.shared.streams, 0)
    assert now_used(stand, returned, vector(minute=9))
    assert (stand.last()["step"], stand.records()[-1].head.late) == (240, 0)  # it begins anew, with a window of its own


def test_too_many_keys_of_a_company_are_an_answer_and_cost_nobody_a_key(stand: Stand) -> None:
    sender = Sender()
    for first in (0, 8):
        assert now_used(stand, sender, *[vector(f"S{first + number}", 0) for number in range(8)])
    keys = stand.shared.keys.tobytes()
    assert now_used(stand, sender, vector("S0", 1), vector("NEW-1", 1))
    assert (stand.last()["kind"], stand.last()["reason"]) == (Kind.REJECTION, Reason.OVERLOADED)
    assert stand.records()[-1].detail == COMPANY_KEYS
    assert stand.shared.keys.tobytes() == keys
    assert now_used(stand, sender, vector("S0", 1))
    assert (stand.last()["kind"], stand.last()["step"]) == (Kind.VECTOR, 241)


def test_a_batch_that_finds_no_place_for_its_last_key_gives_the_others_back(stand: Stand) -> None:
    sender = Sender()
    now_used(stand, sender, *[vector(f"S{number}", 0) for number in range(14)])
    assert now_used(stand, sender, *[vector(f"NEW-{number}", 1) for number in range(3)])
    assert stand.last()["reason"] == Reason.OVERLOADED
    assert now_used(stand, sender, *[vector(f"OTHER-{number}", 1) for number in range(2)])
    assert stand.last()["kind"] == Kind.VECTOR
    assert int(stand.shared.keys["taken"].sum()) == 16


def test_an_idle_key_leaves_and_the_next_in_its_row_is_of_a_new_generation(stand: Stand) -> None:
    sender = Sender()
    for first in (0, 8):
        now_used(stand, sender, *[vector(f"S{first + number}", 0) for number in range(8)])
    rows = {bytes(row["symbol"]): index for index, row in enumerate(stand.shared.keys) if row["taken"]}
    made_idle(stand.shared.keys, rows[b"S5"])
    stand.released()
    assert now_used(stand, sender, vector("NEW", 1))
    assert (stand.last()["key"], stand.last()["generation"], stand.last()["step"]) == (rows[b"S5"], 2, 240)
    assert stand.sequencer.tables.keys.evicted == 1
    made_idle(stand.shared.keys, rows[b"S6"])
    assert now_used(stand, sender, vector("S5", 1))
    assert (stand.last()["key"], stand.last()["generation"], stand.last()["depth"]) == (rows[b"S6"], 2, 0)


def test_the_engines_rows_are_shared_by_all_companies() -> None:
    with arena(with_limits(streams_total=2, streams=2)) as shared:
        stand = Stand(shared, with_limits(streams_total=2, streams=2))
        for company in ("a", "b", "c"):
            assert now_used(stand, Sender(company), vector())
        assert [str(report) for report in stand.reports] == [
            "overloaded: the engine keeps 2 streams and all are in use; send fewer, or wait until idle ones are let go"
        ]
        made_idle(shared.streams, 0)
        assert now_used(stand, Sender("c"), vector())
        assert [bytes(row["company"]) for row in shared.streams] == [b"c", b"b"]


def test_tables_read_back_by_a_successor_are_the_same(shared: Shared) -> None:
    first = Stand(shared)
    for number in range(3):
        now_used(first, Sender(stream=f"feed-{number}"), vector("A"), vector("B"))
    release(shared)
    names = first.sequencer.tables.streams.names, first.sequencer.tables.keys.names
    second = Stand(shared).sequencer.tables
    assert (second.streams.names, second.keys.names) == names
    assert len(second.streams._free) == 5
    assert len(second.keys._free) == 26


def test_keys_of_a_stream_that_left_are_not_read_back(shared: Shared) -> None:
    first = Stand(shared)
    now_used(first, Sender(), vector("A"), vector("B"))
    release(shared)
    first.sequencer.tables.streams.forget(("acme", "feed-0"))
    second = Stand(shared).sequencer.tables
    assert (second.streams.names, second.keys.names) == ({}, {})
    assert int(shared.keys["taken"].sum()) == 0


def test_a_company_that_claims_nothing_costs_no_row(stand: Stand) -> None:
    refused = message(Sender(epoch=2**63).batch(vector()))
    assert stand.sequencer.take(refused, 0)
    assert len(stand.reports) == 1
    assert stand.sequencer.tables.streams.names == {}
    assert stand.count(Count.INPUTS_ACCEPTED) == 0

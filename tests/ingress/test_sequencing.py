"""What the sequencer makes of a message's name: arrivals, duplicates, conflicts, epochs, whose stream it is."""

import pytest

from engine.contract.names import Kind, Reason
from engine.shared import Count, Shared
from fastpath.arbiter import Arrival
from tests.ingress.stand import (
    EPOCH,
    SMALL,
    START_NS,
    Sender,
    Stand,
    arena,
    logical_state,
    message,
    vector,
    with_engine,
)


def arrivals(stand: Stand) -> list[Arrival]:
    return [Arrival(record.head.arrival) for record in stand.records()]


def test_each_arrival_is_written_into_the_record_and_the_slot(stand: Stand) -> None:
    sender = Sender()
    for sequence, minute in ((5, 0), (6, 1), (9, 2), (7, 3), (2, 3)):
        assert stand.take(sender.batch(vector(minute=minute), sequence=sequence))
    later = Sender(epoch=EPOCH + 1)
    assert stand.take(later.batch(vector(minute=4), sequence=2))
    assert stand.take(sender.batch(vector(minute=5), sequence=8))
    assert stand.take(sender.batch(vector(minute=5), sequence=10))
    assert arrivals(stand) == [
        Arrival.FIRST,
        Arrival.NEXT,
        Arrival.AFTER_GAP,
        Arrival.LATE,
        Arrival.LATE,
        Arrival.NEW_EPOCH,
        Arrival.LATE_PREVIOUS,
        Arrival.LATE_PREVIOUS,
    ]
    assert [record.head.missing for record in stand.records()] == [0, 0, 2, 0, 0, 1, 0, 0]
    assert [record.head.late for record in stand.records()] == [0, 0, 0, 1, 1, 0, 1, 1]
    assert stand.slots()["outside"].tolist() == [0, 0, 0, 1, 1, 0, 1, 1]
    assert stand.slots()["input"].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (stand.count(Count.MISSING), stand.count(Count.LATE)) == (3, 4)


def test_a_duplicate_becomes_no_input_on_either_side_of_a_gap(stand: Stand) -> None:
    sender = Sender()
    for sequence in (1, 2, 5, 2, 5, 3, 3):
        assert stand.take(sender.batch(vector(minute=sequence), sequence=sequence))
    assert stand.slots()["input"].tolist() == [1, 2, 3, 4]
    assert stand.count(Count.DUPLICATES) == 3
    assert stand.reports == []


def test_other_bytes_under_a_known_name_are_reported_and_the_first_copy_stands(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(mid=1.1), sequence=1))
    stand.take(sender.batch(vector(mid=1.2), sequence=1))
    assert stand.slots()["mid"].tolist() == pytest.approx([1.1])
    assert stand.count(Count.CONFLICTS) == 1
    assert [str(report) for report in stand.reports] == [
        "malformed: other bytes came before under this name; the first copy stands, number each message once"
    ]


def test_a_stale_epoch_touches_nothing_and_becomes_a_report(stand: Stand) -> None:
    for epoch in (EPOCH, EPOCH + 1, EPOCH + 2):
        stand.take(Sender(epoch=epoch).batch(vector()))
    before = logical_state(stand.shared, 0)
    stand.take(Sender(epoch=EPOCH).batch(vector()))
    stand.take(Sender(epoch=EPOCH).heartbeat())
    assert [str(report) for report in stand.reports] == [
        "stale: the epoch is older than the stream's last two; a sender takes its start as epoch and keeps it"
    ] * 2
    assert logical_state(stand.shared, 0) == before
    assert len(stand.slots()) == 3


@pytest.mark.parametrize(("ahead_ns", "refused"), [(60 * 10**9, False), (60 * 10**9 + 1, True)])
def test_an_epoch_over_a_minute_in_the_future_is_out_of_range(stand: Stand, ahead_ns: int, refused: bool) -> None:
    stand.take(Sender(epoch=START_NS + ahead_ns).batch(vector()))
    expected = [
        "out_of_range: the epoch lies over a minute in the future; set it to the sender's start and check its clock"
    ]
    assert [str(report) for report in stand.reports] == expected * refused
    assert len(stand.slots()) == (not refused)


def test_a_heartbeat_reveals_what_is_missing_and_uses_no_sequence_up(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(minute=0), sequence=1))
    stand.take(sender.heartbeat(sequence=4))
    stand.take(sender.batch(vector(minute=1), sequence=4))
    stand.take(sender.batch(vector(minute=2), sequence=3))
    assert arrivals(stand) == [Arrival.FIRST, Arrival.AFTER_GAP, Arrival.NEXT, Arrival.LATE]
    assert stand.slots()["kind"].tolist() == [Kind.VECTOR, Kind.HEARTBEAT, Kind.VECTOR, Kind.VECTOR]
    assert (stand.count(Count.MISSING), stand.count(Count.HEARTBEATS), stand.count(Count.INPUTS_ACCEPTED)) == (2, 1, 3)


def test_a_heartbeat_that_tells_nothing_new_is_a_duplicate(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(), sequence=7))
    stand.take(sender.heartbeat(sequence=7))
    assert len(stand.slots()) == 1
    assert stand.count(Count.DUPLICATES) == 1


def test_a_name_is_used_up_by_a_rejection_too(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(sequence=1))
    stand.take(sender.batch(vector(), sequence=1))
    assert stand.slots()["kind"].tolist() == [Kind.REJECTION]
    assert stand.slots()["reason"].tolist() == [Reason.MALFORMED]
    assert (stand.count(Count.DUPLICATES), stand.count(Count.REJECTED_MESSAGES)) == (1, 1)


def test_an_overloaded_message_is_answered_in_its_turn_and_its_late_copy_is_a_duplicate(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(minute=0)))
    envelope = sender.batch(vector(minute=1))
    emptied = type(envelope)()
    emptied.CopyFrom(envelope)
    emptied.ClearField("payload")
    stand.take(emptied, overloaded=True)
    stand.take(envelope)
    assert stand.slots()["reason"].tolist() == [0, Reason.OVERLOADED]
    assert stand.records()[1].detail == "more was sent than this engine answers in time; send less or later"
    assert (stand.count(Count.OVERLOADED), stand.count(Count.DUPLICATES), stand.count(Count.CONFLICTS)) == (1, 1, 0)


def test_streams_of_two_companies_with_one_name_know_nothing_of_each_other(stand: Stand) -> None:
    stand.take(Sender("acme").batch(vector(), sequence=3))
    before = logical_state(stand.shared, 0)
    stand.take(Sender("evil").batch(vector(), sequence=2**64 - 1))
    assert logical_state(stand.shared, 0) == before
    assert logical_state(stand.shared, 1)["current"][1] == 0  # used up, of the other one alone


def test_the_last_sequence_of_all_is_answered_and_then_the_epoch_is_used_up(stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(minute=0), sequence=1))
    stand.take(sender.batch(vector(minute=1), sequence=2**64 - 1))
    stand.take(sender.batch(vector(minute=2), sequence=2**64 - 2))
    assert arrivals(stand) == [Arrival.FIRST, Arrival.AFTER_GAP, Arrival.LATE]
    assert stand.records()[1].head.missing == 0xFFFFFFFF


def test_the_record_keeps_verified_claims_and_bytes_but_never_the_token(stand: Stand) -> None:
    envelope = Sender().batch(vector())
    envelope.auth_token.jwt = "secret.secret.secret"
    envelope.trace_context.traceparent = "00-1-2-01"
    stand.take(envelope)
    record = stand.records()[0]
    assert b"secret" not in bytes(stand.shared.inputs.view(0, stand.shared.inputs.head))
    assert (record.company, record.stream, record.user, record.correlation) == ("acme", "feed-0", "trader", "c-1")
    assert (record.traceparent, record.tracestate) == ("00-1-2-01", "")
    envelope.ClearField("auth_token")
    assert record.raw == envelope.SerializeToString()


def test_deadline_and_age_are_decided_once_from_the_two_clocks(shared: Shared) -> None:
    stand = Stand(shared, with_engine(deadline_ms=40, max_message_age_ms=100))
    sender = Sender()
    for age_ns in (100_000_000, 100_000_001):
        stand.take(sender.batch(vector()), received_ns=7, received_unix_ns=START_NS + age_ns)
    assert stand.slots()["deadline_ns"].tolist() == [40_000_007, 40_000_007]
    assert stand.slots()["received_ns"].tolist() == [7, 7]
    assert stand.slots()["expired"].tolist() == [0, 1]


def test_a_stream_keeps_its_worker_and_two_workers_share_the_streams() -> None:
    with arena(SMALL, workers=2) as shared:
        stand = Stand(shared)
        used = set()
        for number in range(8):
            sender = Sender(f"company-{number}")
            workers = {stand.sequencer.worker_of(sender.company, sender.stream)}
            for minute in range(3):
                assert stand.take(sender.batch(vector(minute=minute)))
                workers.add(stand.sequencer.worker_of(sender.company, sender.stream))
            assert len(workers) == 1
            used |= workers
        assert used == {0, 1}
        for worker in (0, 1):
            records_of = [record for record in stand.records() if record.head.worker == worker]
            assert [record.head.position for record in records_of] == stand.slots(worker)["input"].tolist()


def test_a_fault_while_deciding_is_answered_internal_and_stops_nobody(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender()
    with monkeypatch.context() as patch:
        patch.setattr("engine.ingress.steps.Steps._row", lambda *_: 1 // 0)
        assert stand.take(sender.batch(vector(minute=0)))
    assert stand.take(sender.batch(vector(minute=1)))
    assert stand.slots()["reason"].tolist() == [Reason.INTERNAL, 0]
    assert stand.records()[0].detail == "the engine could not decide this message; its operator has the details"
    assert "ZeroDivisionError" in caplog.text


def test_a_message_without_room_is_offered_again_and_changes_nothing_meanwhile(stand: Stand) -> None:
    sender = Sender()
    full = sender.batch(*[vector(f"S{number}", 0) for number in range(16)])
    assert stand.take(full)
    assert stand.take(sender.batch(*[vector(f"S{number}", 1) for number in range(16)]))
    waiting = message(sender.batch(vector("S0", 2)))
    before = logical_state(stand.shared, 0)
    assert not stand.sequencer.take(waiting, 0)
    assert logical_state(stand.shared, 0) == before
    stand.released()
    assert stand.sequencer.take(waiting, 0)
    assert stand.last()["input"] == 3

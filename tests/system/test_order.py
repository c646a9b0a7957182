"""Names, order and delivery, over the wire: duplicates, gaps, late ones, epochs, heartbeats.

`play` publishes bodies in the order given and gives back what came; what a stream would have said
undisturbed comes from a twin: the same vectors of another company, sent in order.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import OK, Prediction
from tests.system.servers import EngineProcess, Issuer
from tests.system.traffic import Answer, Reader, Stream, connected, eventually

MINUTE_NS = 60 * 10**9
COUNTS = ("duplicates", "conflicts", "missing", "late", "inputs_accepted", "heartbeats", "unverified")


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    settings = {"engine": {"deadline_ms": 10_000, "max_message_age_ms": 600_000}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


@pytest.fixture
def counted(engine: EngineProcess):
    """How the counters grew since the test began."""

    def now() -> dict[str, int]:
        return {name: int(engine.metric(f"tickpath_{name}_total")) for name in COUNTS}

    before = now()
    return lambda: {name: value - before[name] for name, value in now().items() if value != before[name]}


def stream_of(issuer: Issuer, company: str, count: int, seed: int = 1, first: int = 1) -> Stream:
    """A stream with `count` messages ready in `sent`, a minute apart, the first one with enough history.

    It is less than a window holds, so that a late vector finds all the minutes that it would have found in time.
    """
    stream = Stream(company, "feed", issuer.token(company, "free"), seed=seed)
    stream.sequence = first - 1
    for number in range(count):
        stream.message([stream.vector("EURUSD", 100 if number == 0 else 0)])
        stream.event_ns += MINUTE_NS
    return stream


def body(stream: Stream, sequence: int) -> bytes:
    return stream.sent[sequence].SerializeToString()


def heartbeat_at(stream: Stream, next_sequence: int) -> bytes:
    stream.sequence = next_sequence - 1
    return stream.heartbeat()


async def play(url: str, stream: Stream, bodies: list[bytes], answers: int, reports: int = 0) -> Reader:
    """Publishes everything and waits until as much came back; heartbeats count as answers here.

    A last message of a stream of its own says when nothing more can come.
    """
    key = (stream.company, stream.stream)
    async with connected(url) as (client, reader):
        for each in bodies:
            await client.publish(stream.subject, each)
        await eventually(
            lambda: len(reader.by_stream[key]) >= answers and len(reader.reports) >= reports, 15, "all that is due came"
        )
        await client.publish(stream.subject, b"the end")
        await eventually(lambda: len(reader.reports) > reports, 15, "the end is reported")
        assert len(reader.by_stream[key]) == answers
        assert reader.reports.pop().rejection.code == "malformed"
        return reader


def sequences(reader: Reader, stream: Stream) -> list[int]:
    return [answer.envelope.sequence for answer in reader.named(stream)]


def only(answer: Answer) -> Prediction:
    (prediction,) = answer.batch.predictions
    return prediction


def undisturbed(url: str, issuer: Issuer, company: str, count: int, seed: int = 1) -> dict[int, Prediction]:
    """What the twin was told, by sequence."""
    twin = stream_of(issuer, company, count, seed)
    reader = asyncio.run(play(url, twin, [body(twin, n) for n in twin.sent], count))
    return {answer.envelope.sequence: only(answer) for answer in reader.named(twin)}


def test_a_second_copy_is_counted_and_not_answered_again(nats_url, issuer, counted):
    stream = stream_of(issuer, "copies", 3)
    reader = asyncio.run(play(nats_url, stream, [body(stream, n) for n in (1, 1, 2, 1, 2, 3, 3)], 3))
    assert sequences(reader, stream) == [1, 2, 3]
    assert counted() == {"duplicates": 4, "inputs_accepted": 3, "unverified": 1}  # one: `the end`


def test_other_bytes_under_a_known_name_are_reported_and_the_first_copy_stands(nats_url, issuer, counted):
    stream, twin = stream_of(issuer, "bytes", 3), undisturbed(nats_url, issuer, "bytes-twin", 3)
    other = MLProcessingEnvelope.FromString(body(stream, 2))
    other.payload = stream.sent[1].payload
    bodies = [body(stream, 1), body(stream, 2), other.SerializeToString(), body(stream, 3)]
    before = counted()
    reader = asyncio.run(play(nats_url, stream, bodies, 3, reports=1))
    assert sequences(reader, stream) == [1, 2, 3]
    assert {answer.envelope.sequence: only(answer) for answer in reader.named(stream)} == twin
    (report,) = reader.reports
    assert report.rejection == Rejection(
        code="malformed",
        detail="other bytes came before under this name; the first copy stands, number each message once",
        source_id="feed",
        source_epoch=stream.epoch,
        source_sequence=2,
        company_id="bytes",
        verified=False,
    )
    after = counted()
    assert {name: after[name] - before.get(name, 0) for name in ("duplicates", "conflicts", "inputs_accepted")} == {
        "duplicates": 1,
        "conflicts": 1,
        "inputs_accepted": 3,
    }


def test_a_gap_is_not_waited_for_and_what_comes_later_is_answered_late_beside_the_windows(nats_url, issuer, counted):
    """A late one says what the twin said in its turn; those after it see a masked minute, late one or not."""
    twin = undisturbed(nats_url, issuer, "gap-twin", 6)
    before = counted()
    with_late, without = stream_of(issuer, "gap-0", 6), stream_of(issuer, "gap-1", 6)
    reader = asyncio.run(play(nats_url, with_late, [body(with_late, n) for n in (1, 2, 5, 4, 3, 6)], 6))
    plain = asyncio.run(play(nats_url, without, [body(without, n) for n in (1, 2, 5, 6)], 4))
    after = counted()
    assert sequences(reader, with_late) == [1, 2, 5, 4, 3, 6]
    assert [answer.batch.late for answer in reader.named(with_late)] == [False, False, False, True, True, False]
    predictions = {answer.envelope.sequence: only(answer) for answer in reader.named(with_late)}
    expected = {answer.envelope.sequence: only(answer) for answer in plain.named(without)}
    assert {n: predictions[n] for n in (1, 2, 5, 6)} == expected
    assert [expected[n].window_gaps for n in (1, 2, 5, 6)] == [0, 0, 2, 2]
    assert [expected[n].reason.startswith("flagged: gap") for n in (1, 2, 5, 6)] == [False, False, True, True]
    assert [predictions[n].status for n in (3, 4)] == [OK, OK]
    assert predictions[3].price.base_price == twin[3].price.base_price
    medians = [[each.predicted_price for each in p.price.horizon_predictions] for p in (predictions[3], twin[3])]
    assert medians[0] == medians[1]
    assert after["missing"] - before.get("missing", 0) == 4
    assert after["late"] - before.get("late", 0) == 2


def test_a_late_one_comes_once(nats_url, issuer):
    stream = stream_of(issuer, "late-once", 3)
    reader = asyncio.run(play(nats_url, stream, [body(stream, n) for n in (1, 3, 2, 2, 2)], 3))
    assert sequences(reader, stream) == [1, 3, 2]


def test_a_stream_first_seen_in_the_middle_begins_there(nats_url, issuer, counted):
    stream = stream_of(issuer, "middle", 4, first=1000)
    reader = asyncio.run(play(nats_url, stream, [body(stream, n) for n in (1001, 1002, 1000, 1003, 1000)], 4))
    assert sequences(reader, stream) == [1001, 1002, 1000, 1003]
    assert [answer.batch.late for answer in reader.named(stream)] == [False, False, True, False]
    assert all(only(answer).window_gaps == 0 for answer in reader.named(stream))
    assert counted() == {"duplicates": 1, "late": 1, "inputs_accepted": 4, "unverified": 1}


def test_a_heartbeat_reveals_the_loss_of_a_last_message(nats_url, issuer, counted):
    stream = stream_of(issuer, "tail", 5)
    bodies = [body(stream, 1), body(stream, 2), heartbeat_at(stream, 5), body(stream, 5), body(stream, 3)]
    reader = asyncio.run(play(nats_url, stream, bodies, 5))
    came = [(answer.envelope.message_type, answer.envelope.sequence) for answer in reader.by_stream["tail", "feed"]]
    assert came == [
        ("ml_inference", 1),
        ("ml_inference", 2),
        ("heartbeat", 5),
        ("ml_inference", 5),
        ("ml_inference", 3),
    ]
    passed_on = reader.by_stream["tail", "feed"][2]
    assert (passed_on.name, passed_on.subject) == ("", "ml.v1.predictions.tail.feed")
    assert passed_on.envelope.auth_token.jwt == ""
    assert [only(answer).window_gaps for answer in reader.named(stream)] == [0, 0, 2, 2]
    assert [answer.batch.late for answer in reader.named(stream)] == [False, False, False, True]
    assert counted() == {"missing": 2, "late": 1, "heartbeats": 1, "inputs_accepted": 4, "unverified": 1}


def test_a_heartbeat_uses_up_no_sequence(nats_url, issuer, counted):
    stream = stream_of(issuer, "beats", 3)
    bodies = [body(stream, 1)]
    for sequence in (2, 3):
        bodies += [heartbeat_at(stream, sequence), heartbeat_at(stream, sequence), body(stream, sequence)]
    reader = asyncio.run(play(nats_url, stream, bodies, 7))
    assert sequences(reader, stream) == [1, 2, 3]
    assert all(only(answer).window_gaps == 0 for answer in reader.named(stream))
    assert "missing" not in counted()


def in_epoch(stream: Stream, sequence: int, epoch: int, renamed: int) -> bytes:
    envelope = MLProcessingEnvelope.FromString(body(stream, sequence))
    envelope.epoch, envelope.sequence = epoch, renamed
    return envelope.SerializeToString()


def test_a_higher_epoch_starts_the_sequence_anew_and_keeps_the_windows(nats_url, issuer):
    """What the epoch before still owed is answered late; what it had answered already stays a duplicate."""
    twin = undisturbed(nats_url, issuer, "epochs-twin", 4)
    stream = stream_of(issuer, "epochs", 6)
    old, new = stream.epoch, stream.epoch + 10**9
    bodies = [
        in_epoch(stream, 1, old, 1),
        in_epoch(stream, 2, old, 2),
        in_epoch(stream, 3, new, 1),
        in_epoch(stream, 4, new, 2),
        in_epoch(stream, 5, old, 3),  # had not come yet
        in_epoch(stream, 2, old, 2),  # had
        in_epoch(stream, 6, new, 4),
    ]
    reader = asyncio.run(play(nats_url, stream, bodies, 6))
    names = [(answer.envelope.epoch, answer.envelope.sequence) for answer in reader.named(stream)]
    assert names == [(old, 1), (old, 2), (new, 1), (new, 2), (old, 3), (new, 4)]
    assert [answer.batch.late for answer in reader.named(stream)] == [False, False, False, False, True, False]
    assert [only(answer) for answer in reader.named(stream)][:4] == [twin[n] for n in (1, 2, 3, 4)]
    assert only(reader.named(stream)[5]).window_gaps == 1


def test_an_epoch_before_the_last_two_is_stale_and_touches_nothing(nats_url, issuer):
    stream = stream_of(issuer, "stale", 5)
    first, second, third = (stream.epoch + number for number in range(3))
    bodies = [
        in_epoch(stream, 1, first, 1),
        in_epoch(stream, 2, second, 1),
        in_epoch(stream, 3, third, 1),
        in_epoch(stream, 4, first, 2),
        in_epoch(stream, 5, third, 2),
    ]
    reader = asyncio.run(play(nats_url, stream, bodies, 4, reports=1))
    assert [answer.envelope.epoch for answer in reader.named(stream)] == [first, second, third, third]
    (report,) = reader.reports
    assert report.rejection == Rejection(
        code="stale",
        detail="the epoch is older than the stream's last two; a sender takes its start as epoch and keeps it",
        source_id="feed",
        source_epoch=first,
        source_sequence=2,
        company_id="stale",
        verified=False,
    )
    assert only(reader.named(stream)[3]).window_gaps == 0


def test_disorder_of_any_kind_is_answered_once_each_and_late_exactly_where_it_is(nats_url, issuer, chance):
    """Against the plainest model: a set of what came, and the highest of it."""
    stream = stream_of(issuer, "disorder", 300)
    order = disorder(chance, 300)
    late, seen = {}, set()
    for sequence in order:
        if sequence not in seen:
            late[sequence] = bool(seen) and sequence < max(seen)
            seen.add(sequence)
    reader = asyncio.run(play(nats_url, stream, [body(stream, n) for n in order], len(seen)))
    assert sequences(reader, stream) == list(late)
    assert {answer.envelope.sequence: answer.batch.late for answer in reader.named(stream)} == late
    print(f"{len(order)} messages, {len(seen)} names, {sum(late.values())} late")


def disorder(chance: random.Random, count: int) -> list[int]:
    """1 to `count`: some never sent, some twice, some far behind their place."""
    places = []
    for sequence in range(1, count + 1):
        if chance.random() < 0.05:
            continue
        places.append((sequence + (chance.uniform(0, 40) if chance.random() < 0.15 else 0.0), sequence))
        if chance.random() < 0.1:
            places.append((sequence + chance.uniform(0, 60), sequence))
    return [sequence for _, sequence in sorted(places)]

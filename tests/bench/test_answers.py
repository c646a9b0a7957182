"""A round counts only where every message has its one right answer."""

import pytest

from bench.answers import judge
from bench.load import BATCHES, Planned, Stream
from bench.raw_nats import HEADER_LINE, NAME_HEADER, Message
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch, PredictionStatus

UNIX_NS = 1_700_000_000_000_000_000


def planned(count: int) -> list[Planned]:
    stream = Stream(BATCHES, "acme", "feed", "token", seed=1)
    return [stream.plan(1000 * n, UNIX_NS + n) for n in range(count)]


def message(body: bytes, name: str) -> Message:
    return Message(b"s", HEADER_LINE + NAME_HEADER + name.encode() + b"\r\n\r\n", body)


def answer(
    each: Planned, status: int = PredictionStatus.OK, reason: str = "", symbols: tuple[str, ...] = ()
) -> Message:
    company, stream, epoch, sequence = each.name.split("/")
    batch = MLPredictionBatch(
        company_id=company, source_id=stream, source_epoch=int(epoch), source_sequence=int(sequence)
    )
    for symbol in symbols or each.symbols:
        prediction = batch.predictions.add(symbol=symbol, status=status, reason=reason)
        for minutes in (1, 5, 15, 60):
            prediction.price.horizon_predictions.add(horizon_minutes=minutes)
        prediction.direction.feature_importance.add(feature="bias")
    envelope = MLProcessingEnvelope(message_type="ml_inference", payload=batch.SerializeToString())
    return message(envelope.SerializeToString(), f"engine-0/{each.name}")


def rejection(each: Planned, name: str) -> Message:
    refused = Rejection(code="overloaded", detail="send less").SerializeToString()
    return message(MLProcessingEnvelope(message_type="ml_rejection", payload=refused).SerializeToString(), name)


def judged(messages: list[Planned], arrived: list[Message], echo_bytes: int | None = None):
    sent = {each.name: each.due_ns + 10 for each in messages}
    return judge(messages, sent, [(5000 + n, each) for n, each in enumerate(arrived)], echo_bytes)


def test_latency_counts_from_the_due_time_to_the_answer():
    messages = planned(3)
    found = judged(messages, [answer(each) for each in reversed(messages)])
    assert not found.problems
    assert found.latencies_ns == [5002, 4001, 3000]
    assert found.late_ns == [10, 10, 10]
    assert found.statuses == {"OK": 30}


def test_missing_doubled_and_unasked_answers_are_told():
    messages = planned(3)
    other = planned(4)[3]
    found = judged(messages, [answer(messages[0]), answer(messages[0]), answer(messages[1]), answer(other)])
    assert found.problems == {
        "answered twice": 1,
        "no answer": 1,
        "an answer that nobody asked for in this round": 1,
    }


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda each: answer(each, PredictionStatus.WARMING), "WARMING"),
        (lambda each: answer(each, PredictionStatus.REJECTED, "non_finite: x"), "REJECTED non_finite: x"),
        (lambda each: answer(each, symbols=tuple(reversed(each.symbols))), "predictions of other symbols"),
        (lambda each: answer(each, symbols=each.symbols[1:]), "predictions of other symbols"),
        (lambda each: rejection(each, f"engine-0/{each.name}"), "refused as overloaded: send less"),
        (lambda each: message(b"\xff\xff", each.name), "an answer that cannot be read"),
    ],
)
def test_wrong_answers_are_told_with_their_reason(wrong, told):
    (each,) = planned(1)
    assert judged([each], [wrong(each)]).problems == {told: 1}


def test_answer_to_another_input_under_this_name_is_told():
    one, two = planned(2)
    swapped = message(answer(two).body, one.name)
    assert judged([one], [swapped]).problems == {"an answer to another input": 1}


def test_unattributed_rejection_is_told_beside_the_missing_answer():
    (each,) = planned(1)
    assert judged([each], [rejection(each, "engine-0/1/1")]).problems == {
        "no answer": 1,
        "refused as overloaded: send less": 1,
    }


def test_echo_of_another_size_is_told():
    (each,) = planned(1)
    assert not judged([each], [message(b"1234", each.name)], echo_bytes=4).problems
    assert judged([each], [message(b"12345", each.name)], echo_bytes=4).problems == {
        "an echo of 5 bytes, expected 4": 1
    }

"""The checker of runs finds each kind of fault, and none in a run that has none."""

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.ml_predictions_pb2 import OK, MLPredictionBatch
from tests.system.checker import check
from tests.system.traffic import Reader, Stream

ENGINE = "engine-0"


def stream_of(count: int) -> Stream:
    stream = Stream("acme", "feed", "", epoch=7)
    for _ in range(count):
        stream.message([stream.vector("EURUSD")])
    return stream


def answer(
    sequence: int, late: bool = False, value: float = 1.0, took_ms: float = 0.1, gaps: int = 0
) -> tuple[str, str, bytes]:
    batch = MLPredictionBatch(
        user_id="feed", company_id="acme", source_id="feed", source_epoch=7, source_sequence=sequence, late=late
    )
    batch.predictions.add(symbol="EURUSD", status=OK, predicted_value=value, window_gaps=gaps)
    batch.performance_metrics.inference_time_ms = took_ms
    envelope = MLProcessingEnvelope(
        message_type="ml_inference",
        company_id="acme",
        payload=batch.SerializeToString(),
        service_source=ENGINE,
        epoch=7,
        sequence=sequence,
    )
    name = f"{ENGINE}/acme/feed/7/{sequence}"
    return "ml.v1.predictions.acme.feed", name, envelope.SerializeToString()


def reader_of(*answers: tuple[str, str, bytes]) -> Reader:
    reader = Reader()
    for each in answers:
        reader.hear(*each)
    return reader


def bad(*on_nats: tuple[str, str, bytes], on_kafka: tuple = (), count: int = 3, twin=None) -> dict[str, list[str]]:
    readers = {"nats": reader_of(*on_nats), "kafka": reader_of(*on_kafka)}
    return check([stream_of(count)], readers, ENGINE, twin).bad()


def test_a_run_without_a_fault_has_none() -> None:
    assert bad(answer(1), answer(3), answer(2, late=True), on_kafka=(answer(2, late=True, took_ms=9), answer(3))) == {}


@pytest.mark.parametrize(
    ("on_nats", "on_kafka", "expected"),
    [
        ([answer(1)], [answer(2)], {"lost": ["acme/feed/7/3"]}),
        ([answer(1), answer(2), answer(2), answer(3)], [], {"doubled": ["nats: acme/feed/7/2"]}),
        ([answer(1), answer(2), answer(3)], [answer(2, value=2.0)], {"changed": ["kafka: acme/feed/7/2"]}),
        ([answer(1), answer(3), answer(2)], [], {"disordered": ["nats: acme/feed/7/2 after 3"]}),
        ([answer(n) for n in (1, 2, 3, 4)], [], {"unexpected": ["nats: engine-0/acme/feed/7/4"]}),
    ],
)
def test_each_kind_of_fault_is_found(on_nats, on_kafka, expected) -> None:
    assert bad(*on_nats, on_kafka=tuple(on_kafka)) == expected


def test_an_answer_that_contradicts_its_name_is_unexpected() -> None:
    subject, _, body = answer(2)
    other = (subject, answer(1)[1], body)
    assert bad(answer(1), answer(2), on_kafka=(other,), count=2) == {"unexpected": ["kafka: engine-0/acme/feed/7/1"]}


def test_other_answers_than_an_undisturbed_run_gave_are_changed() -> None:
    twin = {"acme/feed/7/1": reader_of(answer(1, value=2.0)).answers[0].comparable()}
    assert bad(answer(1), count=1, twin=twin) == {"changed": ["nats: acme/feed/7/1"]}


@pytest.mark.parametrize("other", [answer(1, late=True, value=2.0), answer(1, gaps=1, value=2.0)])
def test_only_after_the_loss_of_an_engine_one_of_two_answers_may_be_late_or_know_of_a_gap(other) -> None:
    readers = {"nats": reader_of(answer(1)), "kafka": reader_of(other)}
    assert check([stream_of(1)], readers, ENGINE).bad() == {"changed": ["kafka: acme/feed/7/1"]}
    assert check([stream_of(1)], readers, ENGINE, engine_lost=True).bad() == {}
    readers["kafka"] = reader_of(answer(1, value=2.0))
    assert check([stream_of(1)], readers, ENGINE, engine_lost=True).bad() == {"changed": ["kafka: acme/feed/7/1"]}

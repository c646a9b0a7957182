"""A producer's numbering: 1, 2, 3, ... and heartbeats that use up no number."""

from engine.client.sender import Sender
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch


def opened(body: bytes) -> MLProcessingEnvelope:
    return MLProcessingEnvelope.FromString(body)


def test_messages_are_numbered_from_one_and_heartbeats_tell_the_next() -> None:
    times = iter(range(1000, 2000))
    sender = Sender("acme", "ann", "fe-0", "t.o.k", clock=lambda: next(times))
    assert sender.epoch == 1000
    first = sender.heartbeat()
    one, two = sender.features([FeatureVector(symbol="EURUSD")]), sender.features([])
    last = sender.heartbeat()
    assert [opened(each.body).sequence for each in (first, one, two, last)] == [1, 1, 2, 3]
    assert [each.name for each in (first, one, two, last)] == ["", "acme/fe-0/1000/1", "acme/fe-0/1000/2", ""]
    assert {each.subject for each in (first, one, two, last)} == {"ml.v1.features.acme.fe-0"}
    assert [opened(each.body).message_type for each in (first, one)] == ["heartbeat", "feature_vectors"]
    assert opened(last.body).payload == b""
    stamps = [opened(each.body).timestamp for each in (first, one, two, last)]
    assert stamps == sorted(set(stamps))


def test_envelope_and_batch_name_the_same_company_and_user() -> None:
    sender = Sender("acme", "ann", "fe-0", "t.o.k", epoch=5)
    envelope = opened(sender.features([FeatureVector(symbol="A"), FeatureVector(symbol="B")]).body)
    batch = FeatureVectorBatch.FromString(envelope.payload)
    assert (envelope.company_id, envelope.user_id, envelope.service_source) == ("acme", "ann", "fe-0")
    assert (batch.company_id, batch.user_id) == ("acme", "ann")
    assert (envelope.epoch, envelope.auth_token.jwt) == (5, "t.o.k")
    assert [vector.symbol for vector in batch.feature_vectors] == ["A", "B"]
    assert batch.correlation_id == envelope.correlation_id == "acme/fe-0/5/1"


def test_a_renewed_token_is_used_from_the_next_message_on() -> None:
    sender = Sender("acme", "ann", "fe-0", "old", epoch=5)
    sender.token = "new"
    assert opened(sender.features([]).body).auth_token.jwt == "new"

"""Answer slots to whole messages: every status, every field, and the same bits whenever they are encoded."""

import re
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.names import Flag, Reason, Status
from engine.egress.encoding import VECTOR_ADVICE, Answer, Versions, encode
from engine.egress.gathering import Gatherer
from engine.shared import Shared
from tests.egress.stand import answer, comparable, predictions
from tests.ingress.stand import START_NS, Sender, Stand, vector

BASIC = 'model_id: "basic_lstm" version: "1.0" kind: LSTM sha256: "' + "ab" * 32 + '"'
XGBOOST = 'model_id: "xgboost_direction" version: "3.2" kind: XGBOOST sha256: "' + "ab" * 32 + '"'
VOTE = 'model_id: "vote" version: "1.0" kind: ENSEMBLE sha256: "' + "ab" * 32 + '"'


def encoded(shared: Shared, expired: bool = False, **changes: Any) -> Answer:
    """The last input's answer, with changes to its first slot."""
    gathered = list(Gatherer(0, shared.answers[0], shared.inputs).drain())[-1]
    for name, value in changes.items():
        field = gathered.slots[0][name]
        if isinstance(field, np.ndarray):
            field[: len(value)] = value
        else:
            gathered.slots[0][name] = value
    versions = Versions(shared.versions, shared.feature_names)
    return encode(gathered.slots, gathered.record, expired, versions, "engine-t")


def text(message: Any) -> str:
    """For comparing whole messages."""
    return re.sub(r"\s+", " ", text_format.MessageToString(message)).strip()


def parsed(kind: type, expected: str) -> str:
    return text(text_format.Parse(expected, kind()))


def envelope_of(made: Answer) -> MLProcessingEnvelope:
    envelope = MLProcessingEnvelope.FromString(made.body)
    assert envelope.timestamp > START_NS
    return envelope


def test_a_full_answer_has_every_field_of_its_slot(shared: Shared, stand: Stand) -> None:
    envelope = Sender().batch(vector("EURUSD", 0), correlation_id="c-é")
    envelope.trace_context.traceparent, envelope.trace_context.tracestate = "00-1-2-01", "a=b"
    stand.take(envelope)
    answer(shared, status=Status.DEGRADED)
    made = encoded(
        shared,
        flags=Flag.GAP | Flag.UNFAMILIAR,
        window_gaps=3,
        base_price=1.1,
        price=[1.25, 1.5],
        lower=[1.0, 0.75],
        upper=[1.5, 2.25],
        horizon_confidence=[0.5, 0.75],
        horizon_direction=[3, 1],
        horizon_minutes=[1, 5],
        horizon_count=2,
        has_pattern=1,
        pattern_count=1,
        pattern_type=[5],
        pattern_probability=[0.5],
        pattern_chance=[0.25],
        pattern_target=[1.125],
        pattern_minutes=[12.5],
        pattern_signal=3,
        pattern_confidence=0.25,
        has_direction=1,
        buy=0.5,
        hold=0.25,
        sell=0.25,
        primary=3,
        direction_confidence=0.5,
        direction_version=1,
        shap=[0.5, -0.25, 0.125, -1.5],
        shap_count=4,
        ensemble_signal=3,
        ensemble_confidence=0.625,
        ensemble_score=0.25,
        contribution_count=2,
        contribution_version=[0, 1],
        weight=[0.75, 0.25],
        contribution_signal=[3, 2],
        contribution_confidence=[0.5, 0.625],
        contribution_fallback=[1, 0],
        final_version=2,
        trend_signal=1,
        trend_strength=0.5,
        model_count=2,
        inference_ms=1.5,
    )
    assert (made.company, made.subject) == ("acme", "ml.v1.predictions.acme.feed-0")
    envelope, batch = envelope_of(made), predictions(MLProcessingEnvelope.FromString(made.body))
    assert made.name == f"engine-t/acme/feed-0/{envelope.epoch}/1"
    assert batch.performance_metrics.engine_time_ms > 0
    batch.performance_metrics.engine_time_ms = 0
    envelope.ClearField("payload")
    envelope.ClearField("timestamp")
    assert text(envelope) == parsed(
        MLProcessingEnvelope,
        f"""message_type: "ml_inference" user_id: "trader" company_id: "acme" service_source: "engine-t"
        correlation_id: "c-é" epoch: {envelope.epoch} sequence: 1 model_info {{ {VOTE} }}
        trace_context {{ correlation_id: "c-é" traceparent: "00-1-2-01" tracestate: "a=b" }}""",
    )
    assert text(batch) == parsed(
        type(batch),
        f"""user_id: "trader" company_id: "acme" correlation_id: "c-é" source_id: "feed-0"
        source_epoch: {envelope.epoch} source_sequence: 1
        performance_metrics {{ inference_time_ms: 1.5 model_count: 2 }}
        predictions {{
          symbol: "EURUSD" timestamp_ns: {START_NS} status: DEGRADED reason: "flagged: gap, unfamiliar" window_gaps: 3
          predicted_value: 1.25 confidence: 0.625 model_info {{ {VOTE} }} trend {{ direction: SELL strength: 0.5 }}
          price {{ symbol: "EURUSD" base_price: 1.1
            horizon_predictions {{ horizon_minutes: 1 predicted_price: 1.25 confidence: 0.5 direction: BUY
                                   lower_price: 1.0 upper_price: 1.5 }}
            horizon_predictions {{ horizon_minutes: 5 predicted_price: 1.5 confidence: 0.75 direction: SELL
                                   lower_price: 0.75 upper_price: 2.25 }} }}
          pattern {{ symbol: "EURUSD" analysis_timestamp_ns: {START_NS} overall_signal: BUY overall_confidence: 0.25
            detected_patterns {{ pattern_type: FLAG probability: 0.5 confidence: 0.25 target_price: 1.125
                                 expected_completion_minutes: 12.5 }} }}
          direction {{ symbol: "EURUSD" buy_probability: 0.5 hold_probability: 0.25 sell_probability: 0.25
            primary_direction: BUY confidence: 0.5
            feature_importance {{ feature: "r_1" contribution: 0.5 }}
            feature_importance {{ feature: "sigma" contribution: -0.25 }}
            feature_importance {{ feature: "gap" contribution: 0.125 }}
            feature_importance {{ feature: "bias" contribution: -1.5 }} }}
          ensemble {{ signal: BUY confidence: 0.625 score: 0.25
            contributions {{ model {{ {BASIC} }} weight: 0.75 signal: BUY confidence: 0.5 fallback: true }}
            contributions {{ model {{ {XGBOOST} }} weight: 0.25 signal: HOLD confidence: 0.625 }} }}
        }}""",
    )


@pytest.mark.parametrize("status", [Status.OK, Status.DEGRADED, Status.WARMING])
def test_a_predicted_status_carries_its_numbers(shared: Shared, stand: Stand, status: Status) -> None:
    stand.take(Sender().batch(vector()))
    answer(shared, status=status)
    (prediction,) = predictions(envelope_of(encoded(shared))).predictions
    assert (prediction.status, prediction.reason) == (status, "")
    assert prediction.predicted_value == prediction.price.horizon_predictions[0].predicted_price != 0
    assert prediction.HasField("ensemble")
    assert not prediction.HasField("direction")
    assert not prediction.HasField("pattern")


def test_an_expired_vector_is_named_and_nothing_more(shared: Shared, stand: Stand) -> None:
    stand.take(Sender().batch(vector()))
    answer(shared, status=Status.EXPIRED)
    envelope = envelope_of(encoded(shared, flags=Flag.CROSSED))
    assert not envelope.HasField("model_info")
    (prediction,) = predictions(envelope).predictions
    assert text(prediction) == f'symbol: "EURUSD" timestamp_ns: {START_NS} status: EXPIRED reason: "flagged: crossed"'


@pytest.mark.parametrize(
    "reason", [Reason.UNKNOWN_SYMBOL, Reason.NON_FINITE, Reason.OUT_OF_RANGE, Reason.POISON, Reason.INTERNAL]
)
@pytest.mark.parametrize("expired", [False, True])
def test_a_rejected_vector_has_its_code_first_and_stays_rejected(
    shared: Shared, stand: Stand, reason: Reason, expired: bool
) -> None:
    stand.take(Sender().batch(vector("A"), vector("B")))
    answer(shared)
    made = encoded(shared, expired, status=int(Status.REJECTED), reason=int(reason), flags=Flag.OLD)
    first, second = predictions(envelope_of(made)).predictions
    expected = f'symbol: "A" timestamp_ns: {START_NS} status: REJECTED reason: "{reason.code}: {VECTOR_ADVICE[reason]}"'
    assert text(first).replace("\\'", "'") == expected
    assert second.status == (Status.EXPIRED if expired else Status.OK)
    assert envelope_of(made).model_info.model_id == ("" if expired else "vote")


def test_every_flag_has_its_name(shared: Shared, stand: Stand) -> None:
    stand.take(Sender().batch(vector()))
    answer(shared)
    (prediction,) = predictions(envelope_of(encoded(shared, flags=sum(Flag)))).predictions
    assert prediction.reason == "flagged: crossed, gap, old, unfamiliar"


@pytest.mark.parametrize("expired", [False, True])
def test_a_whole_rejection_is_an_answer_under_the_inputs_name(shared: Shared, stand: Stand, expired: bool) -> None:
    sender = Sender()
    stand.take(sender.batch())
    answer(shared)
    made = encoded(shared, expired)
    envelope = envelope_of(made)
    assert (made.subject, made.name) == (
        "ml.v1.rejections.acme.feed-0",
        f"engine-t/acme/feed-0/{sender.epoch}/1",
    )
    assert (envelope.message_type, envelope.epoch, envelope.sequence) == ("ml_rejection", sender.epoch, 1)
    assert text(Rejection.FromString(envelope.payload)) == (
        'code: "malformed" detail: "the batch holds no feature vectors; a heartbeat needs none" source_id: "feed-0" '
        f'source_epoch: {sender.epoch} source_sequence: 1 company_id: "acme" verified: true'
    )


def test_a_heartbeat_is_passed_on_without_a_name(shared: Shared, stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.heartbeat(sequence=9))
    answer(shared)
    made = encoded(shared)
    envelope = envelope_of(made)
    assert (made.subject, made.name) == ("ml.v1.predictions.acme.feed-0", "")
    assert (envelope.message_type, envelope.epoch, envelope.sequence) == ("heartbeat", sender.epoch, 9)
    assert (envelope.payload, envelope.service_source) == (b"", "engine-t")


def test_a_late_input_says_so(shared: Shared, stand: Stand) -> None:
    sender = Sender()
    stand.take(sender.batch(vector(minute=0), sequence=1))
    stand.take(sender.batch(vector(minute=1), sequence=3))
    stand.take(sender.batch(vector(minute=1), sequence=2))
    answer(shared)
    batch = predictions(envelope_of(encoded(shared)))
    assert (batch.late, batch.source_sequence) == (True, 2)


def test_microbatches_of_one_input_are_counted_once_each(shared: Shared, stand: Stand) -> None:
    stand.take(Sender().batch(*[vector(f"S{number}") for number in range(4)]))
    answer(shared)
    ring = shared.answers[0]
    ring.slots["taken_ns"][:4] = [5, 5, 5, 9]
    ring.slots["inference_ms"][:4] = [0.25, 0.25, 0.25, 0.5]
    metrics = predictions(envelope_of(encoded(shared))).performance_metrics
    assert metrics.inference_time_ms == 0.75


def test_encoding_again_gives_the_same_bits(shared: Shared, stand: Stand) -> None:
    stand.take(Sender().batch(vector(mid=1 / 3), vector("B", mid=1e-9)))
    answer(shared)
    first, second = (envelope_of(encoded(shared)) for _ in range(2))
    assert comparable(first) == comparable(second)

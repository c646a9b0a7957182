"""Answer slots and a record's texts to the envelope that leaves.

Owns nothing; pure functions over slots. Runs in egress. What must stay true: the same slots give the
same predictions to the bit, whenever they are encoded; only times of the sending differ.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import (
    FeatureImportance,
    HorizonPrediction,
    MLPredictionBatch,
    ModelContribution,
    Prediction,
)
from engine.contract.ml.model_metadata_pb2 import ModelInfo
from engine.contract.names import PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT, Flag, Kind, Reason, Status
from engine.contract.trading.market_patterns_pb2 import PatternDetection
from engine.records import Record

VECTOR_ADVICE = {
    Reason.UNKNOWN_SYMBOL: "the symbol is not among those that this engine answers",
    Reason.NON_FINITE: "every number must be finite; leave an unknown indicator out",
    Reason.OUT_OF_RANGE: "a price, indicator, count or event time lies outside the contract's limits",
    Reason.POISON: "this input crashed a worker and went to the dead letters",
    Reason.INTERNAL: "the engine could not answer this vector; its operator has the details",
}


class Answer(NamedTuple):
    """What goes to the buses. `name` is empty for heartbeats, which carry none."""

    company: str
    subject: str
    name: str
    body: bytes


class Versions:
    """Names of model versions and of their features, by the rows of the version table."""

    def __init__(self, versions: np.ndarray, feature_names: np.ndarray) -> None:
        taken = [int(row) for row in np.flatnonzero(versions["taken"])]
        self.info = {
            row: ModelInfo(
                model_id=versions[row]["model_id"].decode(),
                version=versions[row]["version"].decode(),
                kind=int(versions[row]["kind"]),
                sha256=versions[row]["sha256"].decode(),
            )
            for row in taken
        }
        self.features = {
            row: [
                name.decode()
                for name in feature_names[int(versions[row]["feature_first"]) :][: int(versions[row]["feature_count"])]
            ]
            for row in taken
        }


def encode(slots: Sequence[np.void], record: Record, expired: bool, versions: Versions, engine: str) -> Answer:
    """The answer to one input.

    Parameters
    ----------
    slots
        All of the input's answer slots, in order.
    expired
        The verdict on the whole input: nobody had it before its deadline.
    engine
        The engine's `service_source`.
    """
    head = record.head
    kind = Kind(int(head["kind"]))
    envelope = MLProcessingEnvelope(
        user_id=record.user,
        company_id=record.company,
        timestamp=time.time_ns(),
        service_source=engine,
        correlation_id=record.correlation,
        epoch=int(head["epoch"]),
        sequence=int(head["sequence"]),
    )
    envelope.trace_context.correlation_id = record.correlation
    envelope.trace_context.traceparent = record.traceparent
    envelope.trace_context.tracestate = record.tracestate
    subject, name = (
        PREDICTIONS_SUBJECT,
        f"{engine}/{record.company}/{record.stream}/{envelope.epoch}/{envelope.sequence}",
    )
    if kind == Kind.HEARTBEAT:
        envelope.message_type, name = "heartbeat", ""
    elif kind == Kind.REJECTION:
        envelope.message_type, subject = "ml_rejection", REJECTIONS_SUBJECT
        envelope.payload = _rejection(record).SerializeToString()
    else:
        envelope.message_type = "ml_inference"
        batch = _batch(slots, record, expired, versions)
        decided = next((each for each in batch.predictions if each.HasField("model_info")), None)
        if decided is not None:
            envelope.model_info.CopyFrom(decided.model_info)
        envelope.payload = batch.SerializeToString()
    return Answer(record.company, f"{subject}.{record.company}.{record.stream}", name, envelope.SerializeToString())


def as_internal(record: Record, detail: str) -> Record:
    """The record of an input whose answer cannot be sent: a whole rejection in its place."""
    head = record.head.copy()
    head["kind"], head["reason"] = Kind.REJECTION, Reason.INTERNAL
    return record._replace(head=head, detail=detail)


def _rejection(record: Record) -> Rejection:
    return Rejection(
        code=Reason(int(record.head["reason"])).code,
        detail=record.detail,
        source_id=record.stream,
        source_epoch=int(record.head["epoch"]),
        source_sequence=int(record.head["sequence"]),
        company_id=record.company,
        verified=True,
    )


def _batch(slots: Sequence[np.void], record: Record, expired: bool, versions: Versions) -> MLPredictionBatch:
    head = record.head
    batch = MLPredictionBatch(
        user_id=record.user,
        company_id=record.company,
        correlation_id=record.correlation,
        predictions=[_prediction(slot, expired, versions) for slot in slots],
        source_id=record.stream,
        source_epoch=int(head["epoch"]),
        source_sequence=int(head["sequence"]),
        late=bool(head["late"]),
    )
    metrics = batch.performance_metrics
    metrics.inference_time_ms = sum({int(slot["taken_ns"]): float(slot["inference_ms"]) for slot in slots}.values())
    metrics.model_count = 0 if expired else max(int(slot["model_count"]) for slot in slots)
    metrics.engine_time_ms = (time.monotonic_ns() - int(head["received_ns"])) / 1e6
    return batch


def _prediction(slot: np.void, expired: bool, versions: Versions) -> Prediction:
    status = Status(int(slot["status"]))
    if expired and status != Status.REJECTED:
        status = Status.EXPIRED
    prediction = Prediction(
        symbol=slot["symbol"].decode(),
        timestamp_ns=int(slot["event_ns"]),
        status=int(status),
        reason=_reason(slot, status),
        window_gaps=int(slot["window_gaps"]),
    )
    if status not in (Status.EXPIRED, Status.REJECTED):
        _fill(prediction, slot, versions)
    return prediction


def _reason(slot: np.void, status: Status) -> str:
    if status == Status.REJECTED:
        reason = Reason(int(slot["reason"]))
        return f"{reason.code}: {VECTOR_ADVICE[reason]}"
    flags = int(slot["flags"])
    raised = [flag.name.lower() for flag in Flag if flags & flag]
    return f"flagged: {', '.join(raised)}" if raised else ""


def _fill(prediction: Prediction, slot: np.void, versions: Versions) -> None:
    prediction.predicted_value = float(slot["price"][0])
    prediction.confidence = float(slot["ensemble_confidence"])
    prediction.model_info.CopyFrom(versions.info[int(slot["final_version"])])
    prediction.trend.direction = int(slot["trend_signal"])
    prediction.trend.strength = float(slot["trend_strength"])
    _fill_price(prediction, slot)
    if slot["has_pattern"]:
        _fill_pattern(prediction, slot)
    if slot["has_direction"]:
        _fill_direction(prediction, slot, versions)
    _fill_ensemble(prediction, slot, versions)


def _fill_price(prediction: Prediction, slot: np.void) -> None:
    price = prediction.price
    price.symbol, price.base_price = prediction.symbol, float(slot["base_price"])
    for minutes, value, confidence, direction, lower, upper in zip(
        *(
            slot[name].tolist()[: int(slot["horizon_count"])]
            for name in ("horizon_minutes", "price", "horizon_confidence", "horizon_direction", "lower", "upper")
        ),
        strict=True,
    ):
        price.horizon_predictions.append(
            HorizonPrediction(
                horizon_minutes=minutes,
                predicted_price=value,
                confidence=confidence,
                direction=direction,
                lower_price=lower,
                upper_price=upper,
            )
        )


def _fill_pattern(prediction: Prediction, slot: np.void) -> None:
    pattern = prediction.pattern
    pattern.symbol, pattern.analysis_timestamp_ns = prediction.symbol, prediction.timestamp_ns
    pattern.overall_signal, pattern.overall_confidence = int(slot["pattern_signal"]), float(slot["pattern_confidence"])
    for kind, probability, chance, target, minutes in zip(
        *(
            slot[name].tolist()[: int(slot["pattern_count"])]
            for name in ("pattern_type", "pattern_probability", "pattern_chance", "pattern_target", "pattern_minutes")
        ),
        strict=True,
    ):
        pattern.detected_patterns.append(
            PatternDetection(
                pattern_type=kind,
                probability=probability,
                confidence=chance,
                target_price=target,
                expected_completion_minutes=minutes,
            )
        )


def _fill_direction(prediction: Prediction, slot: np.void, versions: Versions) -> None:
    direction = prediction.direction
    direction.symbol = prediction.symbol
    direction.buy_probability, direction.hold_probability, direction.sell_probability = (
        float(slot["buy"]),
        float(slot["hold"]),
        float(slot["sell"]),
    )
    direction.primary_direction, direction.confidence = int(slot["primary"]), float(slot["direction_confidence"])
    count = int(slot["shap_count"])
    if count:
        names = [*versions.features[int(slot["direction_version"])][: count - 1], "bias"]
        direction.feature_importance.extend(
            FeatureImportance(feature=name, contribution=value)
            for name, value in zip(names, slot["shap"].tolist()[:count], strict=True)
        )


def _fill_ensemble(prediction: Prediction, slot: np.void, versions: Versions) -> None:
    ensemble = prediction.ensemble
    ensemble.signal, ensemble.confidence, ensemble.score = (
        int(slot["ensemble_signal"]),
        float(slot["ensemble_confidence"]),
        float(slot["ensemble_score"]),
    )
    for version, weight, signal, confidence, fallback in zip(
        *(
            slot[name].tolist()[: int(slot["contribution_count"])]
            for name in (
                "contribution_version",
                "weight",
                "contribution_signal",
                "contribution_confidence",
                "contribution_fallback",
            )
        ),
        strict=True,
    ):
        ensemble.contributions.append(
            ModelContribution(
                model=versions.info[version],
                weight=weight,
                signal=signal,
                confidence=confidence,
                fallback=bool(fallback),
            )
        )

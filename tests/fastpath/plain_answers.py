"""An answer by google.protobuf: what `fastpath.answers` must write, byte by byte."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.ml_predictions_pb2 import (
    FeatureImportance,
    HorizonPrediction,
    MLPredictionBatch,
    ModelContribution,
    Prediction,
)
from engine.contract.ml.model_metadata_pb2 import ModelInfo
from engine.contract.names import Flag, Reason, Status
from engine.contract.trading.market_patterns_pb2 import PatternDetection
from engine.egress.encoding import VECTOR_ADVICE


class Names(NamedTuple):
    """Of model versions and their features, by row."""

    info: dict[int, ModelInfo]
    features: dict[int, list[str]]


def encode(
    slots: Sequence[np.void], names: Names, expired: bool, late: bool, stream: str, engine_ms: float, **fields: Any
) -> bytes:
    """`fields`: of the envelope, by name; traceparent and tracestate among them."""
    trace = {name: fields.pop(name) for name in ("traceparent", "tracestate")}
    envelope = MLProcessingEnvelope(message_type="ml_inference", **fields)
    envelope.trace_context.correlation_id = envelope.correlation_id
    envelope.trace_context.traceparent, envelope.trace_context.tracestate = trace["traceparent"], trace["tracestate"]
    batch = _batch(slots, names, expired, late, stream, engine_ms, envelope)
    decided = next((each for each in batch.predictions if each.HasField("model_info")), None)
    if decided is not None:
        envelope.model_info.CopyFrom(decided.model_info)
    envelope.payload = batch.SerializeToString(deterministic=True)
    return envelope.SerializeToString(deterministic=True)


def _batch(
    slots: Sequence[np.void],
    names: Names,
    expired: bool,
    late: bool,
    stream: str,
    engine_ms: float,
    envelope: MLProcessingEnvelope,
) -> MLPredictionBatch:
    batch = MLPredictionBatch(
        user_id=envelope.user_id,
        company_id=envelope.company_id,
        correlation_id=envelope.correlation_id,
        predictions=[_prediction(slot, expired, names) for slot in slots],
        source_id=stream,
        source_epoch=envelope.epoch,
        source_sequence=envelope.sequence,
        late=late,
    )
    metrics = batch.performance_metrics
    metrics.inference_time_ms = sum({int(slot["taken_ns"]): float(slot["inference_ms"]) for slot in slots}.values())
    metrics.model_count = 0 if expired else max(int(slot["model_count"]) for slot in slots)
    metrics.engine_time_ms = engine_ms
    return batch


def _prediction(slot: np.void, expired: bool, names: Names) -> Prediction:
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
        _fill(prediction, slot, names)
    return prediction


def _reason(slot: np.void, status: Status) -> str:
    if status == Status.REJECTED:
        reason = Reason(int(slot["reason"]))
        return f"{reason.code}: {VECTOR_ADVICE[reason]}"
    flags = int(slot["flags"])
    raised = [flag.name.lower() for flag in Flag if flags & flag]
    return f"flagged: {', '.join(raised)}" if raised else ""


def _fill(prediction: Prediction, slot: np.void, names: Names) -> None:
    prediction.predicted_value = float(slot["price"][0])
    prediction.confidence = float(slot["ensemble_confidence"])
    prediction.model_info.CopyFrom(names.info[int(slot["final_version"])])
    prediction.trend.direction = int(slot["trend_signal"])
    prediction.trend.strength = float(slot["trend_strength"])
    _fill_price(prediction, slot)
    if slot["has_pattern"]:
        _fill_pattern(prediction, slot)
    if slot["has_direction"]:
        _fill_direction(prediction, slot, names)
    _fill_ensemble(prediction, slot, names)


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


def _fill_direction(prediction: Prediction, slot: np.void, names: Names) -> None:
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
        names = [*names.features[int(slot["direction_version"])][: count - 1], "bias"]
        direction.feature_importance.extend(
            FeatureImportance(feature=name, contribution=value)
            for name, value in zip(names, slot["shap"].tolist()[:count], strict=True)
        )


def _fill_ensemble(prediction: Prediction, slot: np.void, names: Names) -> None:
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
                model=names.info[version],
                weight=weight,
                signal=signal,
                confidence=confidence,
                fallback=bool(fallback),
            )
        )

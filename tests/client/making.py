"""What an engine sends, made by hand: answers, refusals, heartbeats."""

import base64
import json
import time

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import EXPIRED, OK, MLPredictionBatch, Prediction

ENGINE = "engine-0"


def token(company: str = "acme", user: str = "ann", valid_s: float = 3600, number: int = 0) -> str:
    """Unsigned: nobody here looks at signatures."""
    claims = {"company_id": company, "sub": user, "exp": time.time() + valid_s, "jti": number}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


def envelope(message_type: str, epoch: int, sequence: int, company: str = "acme") -> MLProcessingEnvelope:
    return MLProcessingEnvelope(
        message_type=message_type,
        company_id=company,
        user_id="ann",
        service_source=ENGINE,
        timestamp=time.time_ns(),
        epoch=epoch,
        sequence=sequence,
    )


def answer(
    epoch: int,
    sequence: int,
    stream: str = "fe-0",
    value: float = 1.0,
    engine_ms: float = 0.0,
    late: bool = False,
    expired: bool = False,
    company: str = "acme",
) -> bytes:
    made = envelope("ml_inference", epoch, sequence, company)
    batch = MLPredictionBatch(
        company_id=company,
        source_id=stream,
        source_epoch=epoch,
        source_sequence=sequence,
        late=late,
        predictions=[Prediction(symbol="EURUSD", status=EXPIRED if expired else OK, predicted_value=value)],
    )
    batch.performance_metrics.engine_time_ms = engine_ms
    made.payload = batch.SerializeToString()
    return made.SerializeToString()


def refusal(epoch: int, sequence: int, stream: str = "fe-0", verified: bool = True, company: str = "acme") -> bytes:
    made = envelope("ml_rejection", epoch, sequence, company)
    made.payload = Rejection(
        code="overloaded",
        source_id=stream,
        source_epoch=epoch,
        source_sequence=sequence,
        company_id=company,
        verified=verified,
    ).SerializeToString()
    return made.SerializeToString()


def heartbeat(epoch: int, sequence: int, company: str = "acme") -> bytes:
    return envelope("heartbeat", epoch, sequence, company).SerializeToString()

"""The checks of a payload, and the bounds of each vector's values.

Owns nothing; pure functions, run in ingress. Reads a batch whose message was verified; gives codes of
the whole message as `Refused`. What must stay true: a vector that passes holds finite numbers only, in
counts that fit its slot (`fastpath.vectors` looks at each).
"""

from google.protobuf.message import DecodeError

from engine import limits
from engine.contract.names import Flag, Kind, Reason
from engine.errors import Refused
from engine.ingress.reading import read_batch
from engine.settings import Limits
from fastpath import vectors, wire
from fastpath.vectors import Batch, Bounds
from fastpath.wire import Envelope

INDICATOR_BOUNDS = {  # in the order of a slot's
    "sma_20": (0.0, limits.PRICE_MAX),
    "ema_12": (0.0, limits.PRICE_MAX),
    "ema_26": (0.0, limits.PRICE_MAX),
    "macd": (-limits.PRICE_MAX, limits.PRICE_MAX),
    "rsi_14": (0.0, 100.0),
    "atr": (0.0, limits.PRICE_MAX),
}
CORRELATION_MAX = 1.0 + 1e-6  # sums of float32 producers may end a little above one

assert all(
    code == next(int(kind[name]) for kind in (Reason, Flag, Kind) if name in kind.__members__)
    for name, code in vectors.codes.items()
), "compiled code has numbers of its own for what the contract names"


def bounds_of(of: Limits) -> Bounds:
    assert of.vectors <= wire.vectors_max, "a batch keeps every vector that is taken"
    return Bounds(
        price_max=limits.PRICE_MAX,
        correlation_max=CORRELATION_MAX,
        crossed_max_bp=limits.CROSSED_MAX_BP,
        indicators=list(INDICATOR_BOUNDS.values()),
        ahead_max_ns=limits.EVENT_AHEAD_MAX_NS,
        correlations=of.correlations,
        history=of.history,
        extra=of.extra,
        hole_steps_max=limits.HOLE_STEPS_MAX,
    )


def read_vectors(batch: Batch, envelope: Envelope, vectors_max: int) -> None:
    """The payload into the batch, once it may be answered vector by vector."""
    try:
        read_batch(batch, envelope.payload)
    except DecodeError:
        raise Refused(Reason.MALFORMED, "the payload is not an ml.v1.FeatureVectorBatch") from None
    if batch.company_id != envelope.company_id or batch.user_id != envelope.user_id:
        raise Refused(Reason.TENANT_MISMATCH, "company_id and user_id of the batch must equal the envelope's")
    count = len(batch)
    if count == 0:
        raise Refused(Reason.MALFORMED, "the batch holds no feature vectors; a heartbeat needs none")
    if count > vectors_max:
        raise Refused(
            Reason.TOO_MANY_VECTORS, f"the batch holds {count} vectors, at most {vectors_max} are taken; split it"
        )
    if not batch.has_good_symbols():
        raise Refused(Reason.MALFORMED, "a symbol must be 1 to 24 of A-Z a-z 0-9 . _ / -")
    if batch.repeats_itself():
        raise Refused(Reason.DUPLICATE_SYMBOL, "two vectors have the same symbol and event time; send one of them")

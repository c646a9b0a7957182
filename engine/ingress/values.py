"""The checks of a payload and of each vector's values.

Owns nothing; pure functions, run in ingress. Reads a batch whose message was verified; gives codes of
the whole message as `Refused`, codes and flags of one vector as values. What must stay true: a vector
that passes holds finite numbers only, in counts that fit its slot.
"""

from math import isfinite

from google.protobuf.message import DecodeError

from engine import limits
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.names import Flag, Reason, is_symbol
from engine.errors import Refused
from engine.settings import Limits

INDICATOR_BOUNDS = {
    "sma_20": (0.0, limits.PRICE_MAX),
    "ema_12": (0.0, limits.PRICE_MAX),
    "ema_26": (0.0, limits.PRICE_MAX),
    "macd": (-limits.PRICE_MAX, limits.PRICE_MAX),
    "rsi_14": (0.0, 100.0),
    "atr": (0.0, limits.PRICE_MAX),
}
CORRELATION_MAX = 1.0 + 1e-6  # sums of float32 producers may end a little above one


def decode_batch(envelope: MLProcessingEnvelope, bounds: Limits) -> FeatureVectorBatch:
    """The payload, once it may be answered vector by vector."""
    try:
        batch = FeatureVectorBatch.FromString(envelope.payload)
    except DecodeError:
        raise Refused(Reason.MALFORMED, "the payload is not an ml.v1.FeatureVectorBatch") from None
    if batch.company_id != envelope.company_id or batch.user_id != envelope.user_id:
        raise Refused(Reason.TENANT_MISMATCH, "company_id and user_id of the batch must equal the envelope's")
    vectors = batch.feature_vectors
    if not vectors:
        raise Refused(Reason.MALFORMED, "the batch holds no feature vectors; a heartbeat needs none")
    if len(vectors) > bounds.vectors:
        raise Refused(
            Reason.TOO_MANY_VECTORS,
            f"the batch holds {len(vectors)} vectors, at most {bounds.vectors} are taken; split it",
        )
    seen = set()
    for vector in vectors:
        if not is_symbol(vector.symbol):
            raise Refused(Reason.MALFORMED, "a symbol must be 1 to 24 of A-Z a-z 0-9 . _ / -")
        seen.add((vector.symbol, vector.timestamp_ns))
    if len(seen) != len(vectors):
        raise Refused(Reason.DUPLICATE_SYMBOL, "two vectors have the same symbol and event time; send one of them")
    return batch


def given_indicators(vector: FeatureVector) -> dict[str, float]:
    """Those that the sender set, by field name."""
    technical = vector.technical_indicators
    parts = (technical.trend, technical.momentum, technical.volatility)
    return {field.name: value for part in parts for field, value in part.ListFields()}


def check_vector(
    vector: FeatureVector, envelope_ns: int, symbols: frozenset[str], bounds: Limits
) -> tuple[Reason, int]:
    """(reason, flags): `Reason.NONE` where the vector may enter its window."""
    if symbols and vector.symbol not in symbols:
        return Reason.UNKNOWN_SYMBOL, 0
    price = vector.price_features
    indicators = given_indicators(vector)
    correlations = vector.cross_asset.correlation_scores
    history = vector.price_history.mid_prices
    numbers = (
        price.bid,
        price.ask,
        price.spread,
        price.mid_price,
        *indicators.values(),
        *correlations,
        *history,
        *vector.extra,
    )
    if not all(map(isfinite, numbers)):
        return Reason.NON_FINITE, 0
    crossed_bp = (
        (price.bid - price.ask) / (0.5 * (price.bid + price.ask)) * 1e4 if price.bid > 0 and price.ask > 0 else 0.0
    )
    in_range = (
        0 < vector.timestamp_ns <= envelope_ns + limits.EVENT_AHEAD_MAX_NS
        and len(correlations) <= bounds.correlations
        and len(history) <= bounds.history
        and len(vector.extra) <= bounds.extra
        and 0 < price.bid <= limits.PRICE_MAX
        and 0 < price.ask <= limits.PRICE_MAX
        and crossed_bp <= limits.CROSSED_MAX_BP
        and all(0 < mid <= limits.PRICE_MAX for mid in history)
        and all(abs(score) <= CORRELATION_MAX for score in correlations)
        and all(INDICATOR_BOUNDS[name][0] <= value <= INDICATOR_BOUNDS[name][1] for name, value in indicators.items())
    )
    if not in_range:
        return Reason.OUT_OF_RANGE, 0
    return Reason.NONE, Flag.CROSSED if crossed_bp > 0 else 0

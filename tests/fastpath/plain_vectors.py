"""What `fastpath.vectors` does with one vector, by google.protobuf and NumPy: slow, and easy to read."""

from math import isfinite
from typing import Any

import numpy as np

from engine import limits
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.names import Flag, Reason
from engine.ingress.values import CORRELATION_MAX, INDICATOR_BOUNDS
from engine.settings import Limits
from fastpath import layout

NAN = float("nan")


def given_indicators(vector: FeatureVector) -> dict[str, float]:
    """Those that the sender set, by field name."""
    technical = vector.technical_indicators
    parts: tuple[Any, ...] = (technical.trend, technical.momentum, technical.volatility)
    return {field.name: value for part in parts for field, value in part.ListFields()}


def check(vector: FeatureVector, envelope_ns: int, bounds: Limits) -> tuple[Reason, int]:
    """(reason, flags): `Reason.NONE` where the vector may enter its window."""
    price = vector.price_features
    indicators = given_indicators(vector)
    correlations = vector.cross_asset.correlation_scores
    history = vector.price_history.mid_prices
    prices = (price.bid, price.ask, price.spread, price.mid_price)
    if not all(map(isfinite, (*prices, *indicators.values(), *correlations, *history, *vector.extra))):
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


def slot_of(vector: FeatureVector, decision: np.void) -> np.void:
    """The slot as far as it follows from the vector and its decision; the rest is zero."""
    slot = np.zeros(1, layout.request_slot_dtype)[0]
    for name in layout.vector_decision_dtype.names:
        if name in slot.dtype.names:
            slot[name] = decision[name]
    bid, ask = vector.price_features.bid, vector.price_features.ask
    slot["bid"], slot["ask"], slot["mid"] = bid, ask, 0.5 * (bid + ask)
    slot["spread"] = ask - bid if ask > bid else NAN
    given = given_indicators(vector)
    slot["indicators"] = [given.get(name, NAN) for name in INDICATOR_BOUNDS]
    correlations, extra = vector.cross_asset.correlation_scores, vector.extra
    slot["correlation_count"], slot["extra_count"] = len(correlations), len(extra)
    slot["correlations"][: len(correlations)] = correlations
    slot["extra"][: len(extra)] = extra
    if (count := int(slot["history_count"])) > 0:
        slot["history"][:count] = vector.price_history.mid_prices[-count:]
    return slot

"""From an accepted record to request slots.

Owns nothing; pure functions, run in ingress. Reads a record, its decisions and the decoded batch,
writes slots of a requests ring that were claimed. What must stay true: the slots follow from the
record alone, so that a restarted ingress writes the same ones again.
"""

import numpy as np

from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.names import Kind
from engine.ingress.values import given_indicators
from fastpath import layout
from fastpath.ring import Ring

INDICATORS = ("sma_20", "ema_12", "ema_26", "macd", "rsi_14", "atr")
NAN = float("nan")
assert len(INDICATORS) == layout.indicators

DECIDED = tuple(
    name for name in layout.vector_decision_dtype.names if name in layout.request_slot_dtype.names
)  # fields that a slot takes over from its vector's decision


def fill_slots(
    ring: Ring, record: np.void, byte_position: int, decisions: np.ndarray, batch: FeatureVectorBatch | None
) -> None:
    """All slots of one input; the ring's head is left to the caller.

    Parameters
    ----------
    record
        `input_record`; `record["requests"]` is the position of the first slot, which was claimed.
    byte_position
        Of the record in `inputs`.
    decisions
        `vector_decision`, one for each vector; empty for a whole rejection and for a heartbeat.
    batch
        The decoded payload where the record carries vectors.
    """
    first, count, kind = int(record["requests"]), int(record["count"]), int(record["kind"])
    shared_fields = {
        "input": record["position"],
        "record": byte_position,
        "received_ns": record["received_ns"],
        "deadline_ns": record["deadline_ns"],
        "count": count,
        "kind": kind,
        "tier": record["tier"],
        "plan": record["plan"],
        "late": record["late"],
        "expired": record["expired"],
    }
    for index in range(count):
        slot = ring.slots[(first + index) & ring.mask]
        for name, value in shared_fields.items():
            slot[name] = value
        slot["index"] = index
        if kind == Kind.VECTOR and batch is not None:
            decision = decisions[index]
            for name in DECIDED:
                slot[name] = decision[name]
            fill_values(slot, batch.feature_vectors[index], int(decision["reason"]) != 0)
        else:
            slot["reason"] = record["reason"]
            slot["flags"] = 0
            slot["window_gaps"] = 0
            slot["event_ns"] = 0
            slot["symbol_bytes"] = 0


def fill_values(slot: np.void, vector: FeatureVector, rejected: bool) -> None:
    """The vector's numbers; a rejected one's are left out, since nobody may compute with them."""
    if rejected:
        slot["history_count"] = slot["correlation_count"] = slot["extra_count"] = 0
        slot["bid"] = slot["ask"] = slot["mid"] = slot["spread"] = NAN
        return
    bid, ask = vector.price_features.bid, vector.price_features.ask
    slot["bid"] = bid
    slot["ask"] = ask
    slot["mid"] = 0.5 * (bid + ask)
    slot["spread"] = ask - bid if ask > bid else NAN
    given = given_indicators(vector)
    slot["indicators"] = [given.get(name, NAN) for name in INDICATORS]
    correlations, extra = vector.cross_asset.correlation_scores, vector.extra
    slot["correlation_count"] = len(correlations)
    slot["correlations"][: len(correlations)] = correlations
    slot["extra_count"] = len(extra)
    slot["extra"][: len(extra)] = extra
    if (count := int(slot["history_count"])) > 0:
        slot["history"][:count] = vector.price_history.mid_prices[-count:]

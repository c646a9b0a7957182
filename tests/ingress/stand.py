"""A real arena with a sequencer over it, senders of messages, and somebody who takes what comes out.

The worker and egress are stood in for by copies of slots and by verdict words: what they do in truth is
other tests' business.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from engine import limits, records
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.names import Bus, Kind, Tier
from engine.errors import Refused
from engine.ingress.admission import Message
from engine.ingress.reading import read_envelope
from engine.ingress.sequencing import Sequencer
from engine.settings import Engine, Limits, Settings, digest
from engine.shared import BELLS, Count, Shared, Verdict, regions, verdict_word
from fastpath.arena import Arena

MINUTE_NS = 60 * 10**9
START_MINUTE = 29_000_000  # 2025-02-19
START_NS = START_MINUTE * MINUTE_NS
EPOCH = START_NS - 10**12

SMALL = replace(
    Settings(),
    engine=Engine(name="engine-t", requests_slots=256, inputs_mb=4, max_batch=16),
    limits=Limits(streams=4, streams_total=8, keys=16, keys_total=32, queue=4),
)


def with_engine(**changes: Any) -> Settings:
    return replace(SMALL, engine=replace(SMALL.engine, **changes))


def with_limits(**changes: Any) -> Settings:
    return replace(SMALL, limits=replace(SMALL.limits, **changes))


@contextmanager
def arena(settings: Settings = SMALL, workers: int = 1) -> Iterator[Shared]:
    """A real one, empty as the supervisor makes it."""
    bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(BELLS)]
    made = Arena.create(regions(settings, workers), digest(settings))
    shared = Shared(made, settings, workers, bells)
    shared.supervisor[0]["shards"] = [shard % workers for shard in range(limits.SHARDS)]
    try:
        yield shared
    finally:
        made.close()
        for bell in bells:
            os.close(bell)


def vector(
    symbol: str = "EURUSD", minute: float = 0.0, mid: float = 1.1, history: list[float] | None = None, **fields: Any
) -> FeatureVector:
    """A good one. `minute` counts from `START_MINUTE`; its fraction is the time within the minute."""
    made = FeatureVector(symbol=symbol, timestamp_ns=START_NS + round(minute * MINUTE_NS), **fields)
    made.price_features.bid, made.price_features.ask = mid - 0.0001, mid + 0.0001
    if history:
        made.price_history.mid_prices.extend(history)
    return made


class Sender:
    """Numbers its messages, as a producer does."""

    def __init__(self, company: str = "acme", stream: str = "feed-0", epoch: int = EPOCH, user: str = "trader") -> None:
        self.company, self.stream, self.epoch, self.user = company, stream, epoch, user
        self.next = 1

    def batch(self, *vectors: FeatureVector, **changes: Any) -> MLProcessingEnvelope:
        """Takes a sequence where none is given; sent at the event time of its newest vector."""
        newest = max([START_NS, *(each.timestamp_ns for each in vectors)])
        changes = {"timestamp": newest, **changes}
        payload = FeatureVectorBatch(company_id=self.company, user_id=self.user, feature_vectors=vectors)
        envelope = self._envelope("feature_vectors", **changes)
        envelope.payload = changes.get("payload", payload.SerializeToString())
        return envelope

    def heartbeat(self, **changes: Any) -> MLProcessingEnvelope:
        return self._envelope("heartbeat", **{"sequence": self.next, **changes})

    def _envelope(self, message_type: str, **changes: Any) -> MLProcessingEnvelope:
        if "sequence" not in changes:
            changes["sequence"] = self.next
            self.next += 1
        fields: dict[str, Any] = {
            "message_type": message_type,
            "company_id": self.company,
            "user_id": self.user,
            "service_source": self.stream,
            "epoch": self.epoch,
            "timestamp": START_NS,
            "correlation_id": f"c-{changes['sequence']}",
            **changes,
        }
        return MLProcessingEnvelope(**fields)


def sent_now(**changes: Any) -> MLProcessingEnvelope:
    """Good, and not signed yet."""
    return Sender().batch(vector(), timestamp=time.time_ns(), **changes)


def message(envelope: MLProcessingEnvelope, tier: Tier = Tier.PRO, bus: Bus = Bus.NATS, **changes: Any) -> Message:
    """As admission gives it."""
    kept = read_envelope(envelope.SerializeToString())
    kind = Kind.HEARTBEAT if envelope.message_type == "heartbeat" else Kind.VECTOR
    fields: dict[str, Any] = {
        "received_ns": 10**12,
        "received_unix_ns": envelope.timestamp,
        "size": envelope.ByteSize(),
    }
    return Message(kept, kind, int(tier), bus, **{**fields, **changes})


class Stand:
    """A sequencer at work, and what it reported."""

    def __init__(self, shared: Shared, settings: Settings = SMALL) -> None:
        self.shared = shared
        self.settings = settings
        self.counters = np.zeros(64, np.uint64)
        self.reports: list[Refused] = []
        self.sequencer = Sequencer(shared, settings, self.counters, lambda _, refused: self.reports.append(refused))
        self.sequencer.open()

    def take(self, envelope: MLProcessingEnvelope, **changes: Any) -> bool:
        made = message(envelope, **changes)
        return self.sequencer.take(
            made, self.sequencer.worker_of(made.envelope.company_id, made.envelope.service_source)
        )

    def slots(self, worker: int = 0) -> np.ndarray:
        """Copies of all that was published to a worker, the whole ring's length back at most."""
        ring = self.shared.requests[worker]
        return ring.slots[[position & ring.mask for position in range(max(0, ring.head - ring.capacity), ring.head)]]

    def last(self, worker: int = 0) -> np.void:
        return self.slots(worker)[-1]

    def records(self) -> list[records.Record]:
        inputs = self.shared.inputs
        return [records.read(inputs, position) for position, _ in inputs.records(inputs.tail, inputs.head)]

    def count(self, name: Count) -> int:
        return int(self.counters[name])

    def released(self) -> "Stand":
        """A worker took everything and egress delivered it."""
        release(self.shared)
        self.sequencer.advance_tail()
        return self


def release(shared: Shared) -> None:
    """All requests taken and all inputs done, as worker and egress leave them."""
    for ring in shared.requests:
        ring.release(ring.head)
    inputs = shared.inputs
    for position, _ in inputs.records(inputs.tail, inputs.head):
        number = records.read(inputs, position, whole=False).head.position
        shared.verdicts[number & (limits.INPUTS_IN_FLIGHT_MAX - 1)] = verdict_word(number, Verdict.DONE)


def logical_state(shared: Shared, stream: int) -> dict[str, Any]:
    """A stream's standing state, less what its counts say is unused."""
    standing = shared.stream_states[stream][int(shared.streams[stream]["active"]) & 1]
    gaps = int(standing["gap_count"])
    state: dict[str, Any] = {name: int(standing[name]) for name in ("applied", "given_up", "newest_minute")}
    state["gaps"] = [standing["gap_minute"][:gaps].tolist(), standing["gap_missing"][:gaps].tolist()]
    for name in ("current", "previous"):
        epoch = standing[name]
        count = int(epoch["range_count"])
        ranges = [epoch["range_first"][:count].tolist(), epoch["range_last"][:count].tolist()]
        state[name] = (int(epoch["epoch"]), int(epoch["next"]), ranges)
    return state


def everything(shared: Shared) -> dict[str, Any]:
    """All that the sequencer leaves behind, to the byte where bytes are read by others."""
    inputs = shared.inputs
    taken = [int(row) for row in np.flatnonzero(shared.streams["taken"])]
    stream_fields = [name for name in shared.streams.dtype.names if name != "active"]
    return {
        "inputs": bytes(inputs.view(0, inputs.head)),
        "heads": (inputs.head, [ring.head for ring in shared.requests]),
        "slots": [ring.slots[: ring.head].tobytes() for ring in shared.requests],
        "streams": [tuple(shared.streams[row][name] for name in stream_fields) for row in taken],
        "states": [logical_state(shared, row) for row in taken],
        "keys": shared.keys.tobytes(),
        "applied": int(shared.ingress[0]["applied"]),
    }

"""What an answer says, less what may differ when it is given again; and the digest over many.

Owns nothing; pure functions. Runs in the process that replays. Reads answer slots and records, and encodes them
with egress's own code. What must stay true: two answers are equal here exactly when their field values are,
less envelope timestamps, `performance_metrics`, `trace` and `from_cache`.
"""

import hashlib

import numpy as np

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.contract.names import Kind
from engine.egress.encoding import encode
from engine.replay.answering import Answered
from engine.watch.tape import ANSWER_BYTES
from fastpath import layout

OF_THE_RUN = ("request", "record", "taken_ns", "answered_ns", "inference_ms")  # of a slot: when and where it was made

SAID = np.full(ANSWER_BYTES, 255, np.uint8)  # of a slot's bytes: those of what an answer says
for _name in OF_THE_RUN:
    _kind, _at = layout.answer_slot_dtype.fields[_name][:2]
    SAID[_at : _at + _kind.itemsize] = 0


def plain(body: bytes) -> bytes:
    """An encoded answer, its values alone."""
    envelope = MLProcessingEnvelope.FromString(body)
    envelope.ClearField("timestamp")
    envelope.ClearField("trace_context")
    if envelope.message_type == "ml_inference":
        batch = MLPredictionBatch.FromString(envelope.payload)
        batch.ClearField("performance_metrics")
        batch.ClearField("trace")
        for prediction in batch.predictions:
            for contribution in prediction.ensemble.contributions if prediction.HasField("ensemble") else ():
                contribution.ClearField("from_cache")
        envelope.payload = batch.SerializeToString(deterministic=True)
    return envelope.SerializeToString(deterministic=True)


def same_slots(ones: np.ndarray, others: np.ndarray) -> bool:
    """Whether they say the same to the bit; then their answers do."""
    if len(ones) != len(others):
        return False
    one, other = (slots.view(np.uint8).reshape(len(slots), -1)[:, :ANSWER_BYTES] for slots in (ones, others))
    return not ((one ^ other) & SAID).any()


def answers_of(answered: Answered) -> tuple[bytes, bytes | None]:
    """(replayed, live) values; live is None where the tape does not have it whole."""
    taped, record = answered.taped, answered.record
    engine = answered.begin.head["engine"]

    def values(slots: np.ndarray) -> bytes:
        return plain(encode(list(slots), record, taped.expired, answered.versions, engine).body)

    replayed = values(answered.slots)
    if not taped.known or taped.answers is None:
        return replayed, None
    if same_slots(answered.slots, taped.answers):
        return replayed, replayed
    return replayed, values(taped.answers)


def is_answer(answered: Answered) -> bool:
    """A heartbeat is passed on, and is no answer."""
    return answered.record.head.kind != Kind.HEARTBEAT


class Digest:
    """SHA-256 over answers in tape order."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def add(self, values: bytes) -> None:
        self._sum.update(len(values).to_bytes(8, "little"))
        self._sum.update(values)

    def hex(self) -> str:
        return self._sum.hexdigest()

"""Answer slots and a record's texts to the envelope that leaves.

Owns nothing; pure functions over slots. Runs in egress. What must stay true: the same slots give the
same predictions to the bit, whenever they are encoded; only times of the sending differ.
"""

import time
from typing import NamedTuple

import numpy as np

from engine.contract.ml.envelope_pb2 import Rejection
from engine.contract.ml.model_metadata_pb2 import ModelInfo
from engine.contract.names import PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT, Flag, Kind, Reason
from engine.records import Record
from fastpath.answers import Answers, Encoder

VECTOR_ADVICE = {
    Reason.UNKNOWN_SYMBOL: "the symbol is not among those that this engine answers",
    Reason.NON_FINITE: "every number must be finite; leave an unknown indicator out",
    Reason.OUT_OF_RANGE: "a price, indicator, count or event time lies outside the contract's limits",
    Reason.POISON: "this input crashed a worker and went to the dead letters",
    Reason.INTERNAL: "the engine could not answer this vector; its operator has the details",
}
REJECTIONS = {int(reason): f"{reason.code}: {advice}".encode() for reason, advice in VECTOR_ADVICE.items()}


def _flagged(flags: int) -> bytes:
    raised = [flag.name.lower() for flag in Flag if flags & flag]
    return f"flagged: {', '.join(raised)}".encode() if raised else b""


FLAGGED = [_flagged(flags) for flags in range(2 * max(Flag))]


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
        models = {row: info.SerializeToString(deterministic=True) for row, info in self.info.items()}
        features = {
            row: feature_names[int(versions[row]["feature_first"]) :][: int(versions[row]["feature_count"])].tolist()
            for row in taken
        }
        self.encoder = Encoder(models, features, REJECTIONS, FLAGGED)


def encode(slots: list[np.void], record: Record, expired: bool, versions: Versions, engine: str) -> Answer:
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
    kind, epoch, sequence = head.kind, head.epoch, head.sequence
    subject, name = PREDICTIONS_SUBJECT, f"{engine}/{record.company}/{record.stream}/{epoch}/{sequence}"
    payload: bytes | Answers
    if kind == Kind.VECTOR:
        engine_ms = (time.monotonic_ns() - head.received_ns) / 1e6
        message_type = "ml_inference"
        payload = Answers(slots, expired, bool(head.late), record.stream, engine_ms)
    elif kind == Kind.REJECTION:
        message_type, subject = "ml_rejection", REJECTIONS_SUBJECT
        payload = _rejection(record).SerializeToString()
    else:
        message_type, name, payload = Kind(kind).name.lower(), "", b""
    body = versions.encoder.encode(
        message_type, time.time_ns(), engine, record.user, record.company, record.correlation, record.traceparent,
        record.tracestate, epoch, sequence, payload,
    )  # fmt: skip
    return Answer(record.company, f"{subject}.{record.company}.{record.stream}", name, body)


def as_internal(record: Record, detail: str) -> Record:
    """The record of an input whose answer cannot be sent: a whole rejection in its place."""
    head = record.head.copy()
    head.kind, head.reason = Kind.REJECTION, Reason.INTERNAL
    return record._replace(head=head, detail=detail)


def _rejection(record: Record) -> Rejection:
    return Rejection(
        code=Reason(record.head.reason).code,
        detail=record.detail,
        source_id=record.stream,
        source_epoch=record.head.epoch,
        source_sequence=record.head.sequence,
        company_id=record.company,
        verified=True,
    )

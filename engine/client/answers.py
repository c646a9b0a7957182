"""Bytes from a bus as an answer: for which input it is, and what two copies of it have in common.

Owns nothing; pure functions. Runs in a reader's process. What must stay true: nothing that came over a bus is
believed before it was looked at; two copies have the same `digest` exactly if they say the same, whenever
they were sent.
"""

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.contract.names import Status, is_name


@dataclass(frozen=True)
class Answer:
    """One input's answer: `batch` for predictions, `rejection` for a refusal of the whole message.

    `late`: out of sequence order, because it or its input came after what follows it.
    """

    company: str
    stream: str
    epoch: int
    sequence: int
    late: bool
    envelope: MLProcessingEnvelope
    batch: MLPredictionBatch | None
    rejection: Rejection | None

    @property
    def input_name(self) -> str:
        """As the producer's call returned it."""
        return f"{self.company}/{self.stream}/{self.epoch}/{self.sequence}"

    @property
    def name(self) -> str:
        return f"{self.envelope.service_source}/{self.input_name}"


@dataclass(frozen=True)
class Gap:
    """Sequences `first` to `last` of a stream had not come in time. Whatever of them still comes is late."""

    company: str
    stream: str
    epoch: int
    first: int
    last: int


@dataclass(frozen=True)
class Conflict:
    """Two copies of one answer say different things; the first counts.

    `excused`: as may happen after the loss of a host, one of them is EXPIRED, late or from a shorter window.
    """

    company: str
    stream: str
    epoch: int
    sequence: int
    excused: bool


@dataclass(frozen=True)
class Heartbeat:
    """`sequence` is the next one of a stream; a bus that does not tell the stream leaves it empty."""

    company: str
    stream: str
    epoch: int
    sequence: int


def read(body: bytes, company: str, stream: str = "") -> Answer | Heartbeat | None:
    """What a body says; None where it is no answer of the company's, or not of the stream where one is named.

    `stream` is what the subject or the record's key tells; a heartbeat has it from there alone.
    """
    try:
        envelope = MLProcessingEnvelope.FromString(body)
        if envelope.company_id != company:
            return None
        if envelope.message_type == "heartbeat":
            return Heartbeat(company, stream, envelope.epoch, envelope.sequence) if envelope.sequence else None
        batch = rejection = None
        source: MLPredictionBatch | Rejection
        if envelope.message_type == "ml_inference":
            source = batch = MLPredictionBatch.FromString(envelope.payload)
        elif envelope.message_type == "ml_rejection":
            source = rejection = Rejection.FromString(envelope.payload)
            if not rejection.verified:
                return None
        else:
            return None
    except DecodeError:
        return None
    named = (source.source_id, source.source_epoch, source.source_sequence, source.company_id)
    if named != (stream or source.source_id, envelope.epoch, envelope.sequence, company):
        return None
    if not is_name(source.source_id) or not envelope.sequence:
        return None
    late = batch is not None and batch.late
    return Answer(company, source.source_id, envelope.epoch, envelope.sequence, late, envelope, batch, rejection)


def digest(answer: Answer) -> bytes:
    """Of what must be the same in each copy: all but the time of sending, `performance_metrics` and `trace`."""
    said = MLProcessingEnvelope()
    said.CopyFrom(answer.envelope)
    said.timestamp = 0
    if answer.batch is not None:
        batch = MLPredictionBatch()
        batch.CopyFrom(answer.batch)
        batch.ClearField("performance_metrics")
        batch.ClearField("trace")
        said.payload = batch.SerializeToString(deterministic=True)
    return hashlib.blake2b(said.SerializeToString(deterministic=True), digest_size=16).digest()


def is_excusable(answer: Answer) -> bool:
    """Whether a host's loss may have made it: EXPIRED, late, or from a window that had just begun."""
    if answer.batch is None:
        return False
    excuses = (Status.EXPIRED, Status.WARMING)
    return answer.batch.late or any(each.status in excuses for each in answer.batch.predictions)

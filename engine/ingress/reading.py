"""Bytes of protobuf to what ingress works with: compiled, with google.protobuf where that one gives up.

Owns nothing; pure functions. Runs in ingress, and in a replay. What must stay true: what is read is what
google.protobuf reads, to the bit, or its DecodeError is raised.
"""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from fastpath.vectors import Batch
from fastpath.wire import Envelope, NotRead

Made = TypeVar("Made")


def read_envelope(raw: bytes) -> Envelope:
    return _read(raw, Envelope, MLProcessingEnvelope)


def read_batch(batch: Batch, payload: bytes) -> Batch:
    """The batch, with what the payload holds in place of what it held."""
    _read(payload, batch.read, FeatureVectorBatch)
    return batch


def _read(raw: bytes, take: Callable[[bytes], Made], kind: type[Message]) -> Made:
    try:
        return take(raw)
    except NotRead:  # it is bad, or so unusual that only google.protobuf takes it, and writes it plainly
        parsed = kind.FromString(raw)
        parsed.DiscardUnknownFields()
        return take(parsed.SerializeToString())

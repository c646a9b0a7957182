"""The record of an accepted input in the `inputs` byte ring: head, decisions, texts, raw bytes.

Owns the order of a record's parts. Ingress writes records (its commit point), ingress reads them
again after a restart, egress reads names and texts, others observe. What must stay true: every
length is checked against the record's own size before a byte is touched.
"""

from typing import NamedTuple

import numpy as np

from fastpath import layout
from fastpath import records as compiled
from fastpath.records import Head as Head
from fastpath.records import position_of as position_of
from fastpath.records import write as write
from fastpath.ring import ByteRing

HEAD_BYTES = layout.input_record_dtype.itemsize
DECISION_BYTES = layout.vector_decision_dtype.itemsize
TEXTS = ("company", "stream", "user", "correlation", "traceparent", "tracestate", "detail")
LENGTHS = tuple(f"{name}_bytes" for name in TEXTS)
NO_DECISIONS = np.zeros(0, layout.vector_decision_dtype)


class Record(NamedTuple):
    """A record as read: `head` has the fields of an `input_record`, `decisions` its `vector_decision`s; copies."""

    head: Head
    decisions: np.ndarray
    company: str
    stream: str
    user: str
    correlation: str
    traceparent: str
    tracestate: str
    detail: str
    raw: bytes


def bytes_needed(decisions: bytes, texts: list[bytes], raw: bytes) -> int:
    """Of a record with these parts, a multiple of 8."""
    return (HEAD_BYTES + len(decisions) + sum(map(len, texts)) + len(raw) + 7) & ~7


def read(inputs: ByteRing, position: int, whole: bool = True) -> Record:
    """The record at a byte position; not whole: without decisions and raw bytes.

    Raises
    ------
    RuntimeError
        A length in the record does not fit the record: the arena is corrupt.
    """
    parts = compiled.read(inputs, position, whole)
    parts[1] = np.frombuffer(parts[1], layout.vector_decision_dtype) if whole else NO_DECISIONS
    return Record._make(parts)

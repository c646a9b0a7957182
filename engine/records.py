"""The record of an accepted input in the `inputs` byte ring: head, decisions, texts, raw bytes.

Owns the order of a record's parts. Ingress writes records (its commit point), ingress reads them
again after a restart, egress reads names and texts, others observe. What must stay true: every
length is checked against the record's own size before a byte is touched.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fastpath import layout
from fastpath.ring import ByteRing

HEAD_BYTES = layout.input_record_dtype.itemsize
DECISION_BYTES = layout.vector_decision_dtype.itemsize
TEXTS = ("company", "stream", "user", "correlation", "traceparent", "tracestate", "detail")
LENGTHS = tuple(f"{name}_bytes" for name in TEXTS)
FIELDS = layout.input_record_dtype.names
NO_DECISIONS = np.zeros(0, layout.vector_decision_dtype)
_CODES = {"u8": "Q", "i8": "q", "u4": "I", "u2": "H", "u1": "B"}
_ZEROS = dict.fromkeys(FIELDS, 0)  # whose order a head keeps
_FORMAT = "=" + "".join(_CODES[layout.input_record_dtype[name].str[1:]] for name in FIELDS)
_POSITION, _POSITION_AT = struct.Struct("=Q"), layout.input_record_dtype.fields["position"][1]
_HEAD = struct.Struct(f"{_FORMAT}{HEAD_BYTES - struct.calcsize(_FORMAT)}x")


class Record(NamedTuple):
    """A record as read: `head` has the fields of an `input_record`, `decisions` its `vector_decision`s, a copy."""

    head: dict[str, int]
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


def write(area: memoryview, head: Mapping[str, int], decisions: bytes, texts: list[bytes], raw: bytes) -> None:
    """Fills a claimed area.

    Parameters
    ----------
    area
        `bytes_needed(...)` bytes.
    head
        Fields of `input_record`, 0 where one is left out; the lengths of the parts are set here.
    texts
        UTF-8, in the order of `TEXTS`.
    """
    lengths = dict(zip(LENGTHS, map(len, texts), strict=True))
    whole = {**_ZEROS, **head, **lengths, "bytes": len(area), "raw_bytes": len(raw)}
    body = b"".join((decisions, *texts, raw))
    area[HEAD_BYTES : HEAD_BYTES + len(body)] = body
    area[:HEAD_BYTES] = _HEAD.pack(*whole.values())


def position_of(inputs: ByteRing, at: int) -> int:
    """The position of the record at a byte position."""
    return _POSITION.unpack_from(inputs.view(at, HEAD_BYTES), _POSITION_AT)[0]


def read(inputs: ByteRing, position: int, whole: bool = True) -> Record:
    """The record at a byte position; not whole: without decisions and raw bytes.

    Raises
    ------
    RuntimeError
        A length in the record does not fit the record: the arena is corrupt.
    """
    head: dict[str, int] = dict(zip(FIELDS, _HEAD.unpack(inputs.view(position, HEAD_BYTES)), strict=True))
    size, raw_bytes, decisions_count = head["bytes"], head["raw_bytes"], head["decisions"]
    lengths = [head[name] for name in LENGTHS]
    end = HEAD_BYTES + decisions_count * DECISION_BYTES + sum(lengths) + raw_bytes
    if not end <= size <= inputs.capacity:
        raise RuntimeError(
            f"record at {position} of `inputs`: its parts take {end} bytes of {size}; the arena is corrupt"
        )
    area = inputs.view(position, end)
    at = HEAD_BYTES + decisions_count * DECISION_BYTES
    decisions = np.frombuffer(area[HEAD_BYTES:at], layout.vector_decision_dtype).copy() if whole else NO_DECISIONS
    texts = []
    for length in lengths:
        texts.append(str(area[at : at + length], "utf-8") if length else "")
        at += length
    return Record._make((head, decisions, *texts, bytes(area[at : at + raw_bytes]) if whole else b""))

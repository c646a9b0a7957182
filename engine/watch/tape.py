"""The tape's format: segments of frames, each with checksums, in a folder of this engine's user alone.

Owns the bytes of a segment, its name, and what a reader may believe of it. The watch process writes
segments, replay and explain read them. A segment is a magic, then frames: 16 bytes of head (length, part,
worker, checksum of the body, checksum of the head), then the body. What must stay true: no length is
believed before the checksum over it; an end that is cut off is a torn tail, a byte that differs is an error.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from engine.errors import TapeError
from engine.records import LENGTHS
from fastpath import layout
from fastpath.arena import LAYOUT_VERSION

MAGIC = b"TICKTAPE"
FORMAT = 2
FRAME = struct.Struct("<IHHII")
FRAME_BYTES_MAX = 1 << 30
NAME = re.compile(r"(\d{19})-(\d{6})\.tape", re.ASCII)  # the engine's start in Unix ns, the segment's number
LAYOUT = f"{LAYOUT_VERSION:016x}"  # slots and records lie on the tape as they do in memory
ANSWER_BYTES = max(field.itemsize + at for field, at, *_ in layout.answer_slot_dtype.fields.values())
TABLES = {
    "versions": layout.version_row_dtype,
    "feature_names": np.dtype("S48"),
    "plans": layout.plan_row_dtype,
}


class Part(IntEnum):
    """What a frame carries."""

    HEAD = 1  # JSON: whose tape this is, and where the segment begins
    TABLE = 2  # a table of `TABLES`: its name, then its rows, compressed
    WINDOW = 3  # row, generation; a key's entries, compressed
    INPUT = 4  # a record of `inputs`, as it lay there
    ANSWER = 5  # position; the input's answer slots, compressed
    EXPIRED = 6  # position: egress sent it as EXPIRED
    UNKNOWN = 7  # position: its answer, or what egress made of it, was not seen in time
    SETTLED = 8  # a `Settled`: what is known up to here
    HOLE = 9  # how many inputs are missing before the segment, for people; readers see it by the positions
    END = 10  # the segment was ended on purpose


class Frame(NamedTuple):
    part: Part
    worker: int
    body: bytes
    at: int  # byte of the file


class Settled(NamedTuple):
    """All inputs up to `position` are on the tape with their answers, and with EXPIRED or UNKNOWN where that holds.

    The cursors say where what comes next lies in the rings, for a watch that goes on after a restart.
    """

    position: int
    seen_ns: int  # CLOCK_MONOTONIC
    inputs: int
    answers: tuple[int, ...]

    def pack(self) -> bytes:
        return struct.pack(f"<Qq{1 + len(self.answers)}Q", self.position, self.seen_ns, self.inputs, *self.answers)

    @classmethod
    def unpack(cls, body: bytes) -> "Settled":
        position, seen_ns, inputs, *answers = struct.unpack(f"<Qq{len(body) // 8 - 2}Q", body)
        return cls(position, seen_ns, inputs, tuple(answers))


def frame(part: Part, body: bytes, worker: int = 0) -> bytes:
    head = struct.pack("<IHHI", len(body), part, worker, zlib.crc32(body))
    return head + struct.pack("<I", zlib.crc32(head)) + body


def name_of(epoch: int, number: int) -> str:
    return f"{epoch:019d}-{number:06d}.tape"


def segments(path: Path) -> list[Path]:
    """The segments of a tape, oldest first: of a folder, or the one that a file is."""
    if path.is_file():
        return [path]
    return sorted(each for each in path.glob("*.tape") if NAME.fullmatch(each.name)) if path.is_dir() else []


class Reader:
    """Frames of one segment. `torn_at` is the byte at which an end that is cut off begins, -1: none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_at = -1

    def __iter__(self) -> Iterator[Frame]:
        with self.path.open("rb") as file:
            size = self.path.stat().st_size
            head = file.read(len(MAGIC) + 4)
            if len(head) < len(MAGIC) + 4:
                self.torn_at = 0
                return
            if head[: len(MAGIC)] != MAGIC:
                raise TapeError(f"{self.path}: expected a tape, which begins with {MAGIC!r}, found {head[:8]!r}")
            if (version := int.from_bytes(head[len(MAGIC) :], "little")) != FORMAT:
                raise TapeError(f"{self.path}: expected format {FORMAT} of a tape, found {version}; use its own build")
            at = len(head)
            while at < size:
                head = file.read(FRAME.size)
                if len(head) < FRAME.size or not any(head):  # a host that went down leaves zeros
                    break
                length, part, worker, body_sum, head_sum = FRAME.unpack(head)
                if zlib.crc32(head[:-4]) != head_sum or length > FRAME_BYTES_MAX:
                    raise self._damaged(at)
                body = file.read(length)
                if len(body) < length:
                    break
                if zlib.crc32(body) != body_sum:
                    raise self._damaged(at)
                yield Frame(Part(part), worker, body, at)
                at += FRAME.size + length
            if at < size:
                self.torn_at = at

    def _damaged(self, at: int) -> TapeError:
        return TapeError(
            f"{self.path}: the frame at byte {at} is damaged: its checksum does not fit; "
            "take a copy of the file, or go on behind this segment with --skip-holes"
        )


def read_head(path: Path) -> dict:
    """Of a segment. Raises TapeError where it has none, or another build wrote it."""
    first = next(iter(Reader(path)), None)
    if first is None or first.part != Part.HEAD:
        raise TapeError(f"{path}: expected a segment's head, found none")
    head: dict = orjson.loads(first.body)
    if head["layout"] != LAYOUT:
        raise TapeError(
            f"{path}: written by version {head['version']} with layout {head['layout']}, this build has {LAYOUT}; "
            "read it with the build that wrote it"
        )
    return head


def pack_table(name: str, rows: np.ndarray) -> bytes:
    return frame(Part.TABLE, name.encode().ljust(16, b"\0") + zlib.compress(rows.tobytes(), 1))


def unpack_table(body: bytes) -> tuple[str, np.ndarray]:
    name = body[:16].rstrip(b"\0").decode()
    return name, np.frombuffer(zlib.decompress(body[16:]), TABLES[name]).copy()


def pack_window(row: int, generation: int, entries: bytes) -> bytes:
    return frame(Part.WINDOW, struct.pack("<II", row, generation) + zlib.compress(entries, 1))


def unpack_window(body: bytes) -> tuple[int, np.ndarray]:
    return struct.unpack("<II", body[:8])[0], np.frombuffer(zlib.decompress(body[8:]), layout.window_entry_dtype)


def pack_answer(position: int, worker: int, slots: np.ndarray) -> bytes:
    """slots: uint8 of shape (count, slot bytes); what lies behind the last field is left out."""
    return frame(Part.ANSWER, struct.pack("<Q", position) + zlib.compress(slots[:, :ANSWER_BYTES].tobytes(), 1), worker)


def unpack_answer(body: bytes) -> tuple[int, np.ndarray]:
    """(position, answer_slot array)."""
    raw = np.frombuffer(zlib.decompress(body[8:]), np.uint8).reshape(-1, ANSWER_BYTES)
    slots = np.zeros(len(raw), layout.answer_slot_dtype)
    slots.view(np.uint8).reshape(len(raw), -1)[:, :ANSWER_BYTES] = raw
    return struct.unpack("<Q", body[:8])[0], slots


def name_of_record(record: bytes) -> tuple[tuple[str, str], int]:
    """((company, stream), Unix time at which it was received) of a record of `inputs`."""
    head = np.frombuffer(record, layout.input_record_dtype, 1)[0]
    at = layout.input_record_dtype.itemsize + int(head["decisions"]) * layout.vector_decision_dtype.itemsize
    middle = at + int(head["company_bytes"])
    stream = record[middle : middle + int(head["stream_bytes"])]
    return (record[at:middle].decode(), stream.decode()), int(head["received_unix_ns"])


def raw_of_record(record: bytes) -> bytes:
    """The message in a record of `inputs`, less its token."""
    head = np.frombuffer(record, layout.input_record_dtype, 1)[0]
    at = layout.input_record_dtype.itemsize + int(head["decisions"]) * layout.vector_decision_dtype.itemsize
    at += sum(int(head[name]) for name in LENGTHS)
    return record[at : at + int(head["raw_bytes"])]

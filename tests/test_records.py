"""A record of an input comes out as it went in, and lengths that lie are found before a byte is believed."""

import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import records
from fastpath import layout
from fastpath.ring import ByteRing

TEXT = st.text(max_size=40)


def ring() -> ByteRing:
    return ByteRing(memoryview(mmap.mmap(-1, ByteRing.bytes_needed(1 << 14))))


def write(inputs: ByteRing, texts: list[str], decisions: np.ndarray, raw: bytes) -> int:
    head = records.Head(position=7, decisions=len(decisions), epoch=2**64 - 1)
    encoded, decided = [text.encode() for text in texts], decisions.tobytes()
    size = records.bytes_needed(decided, encoded, raw)
    position = inputs.claim(size)
    records.write(inputs.view(position, size), head, decided, encoded, raw)
    inputs.publish(position + size)
    return position


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(TEXT, min_size=len(records.TEXTS), max_size=len(records.TEXTS)),
    count=st.integers(0, 9),
    raw=st.binary(max_size=500),
    before=st.integers(0, 40),
)
def test_a_record_comes_out_as_it_went_in(texts: list[str], count: int, raw: bytes, before: int) -> None:
    inputs = ring()
    for _ in range(before):  # so that records lie anywhere, around the ring's end too
        write(inputs, ["x"] * len(records.TEXTS), np.zeros(3, layout.vector_decision_dtype), b"y" * 100)
        inputs.release(inputs.head)
    decisions = np.zeros(count, layout.vector_decision_dtype)
    decisions["step"], decisions["event_ns"] = np.arange(count), -np.arange(count)
    found = records.read(inputs, write(inputs, texts, decisions, raw))
    assert [getattr(found, name) for name in records.TEXTS] == texts
    assert found.raw == raw
    assert (found.head.position, found.head.epoch) == (7, 2**64 - 1)
    assert found.decisions.tobytes() == decisions.tobytes()
    assert found.head.bytes % 8 == 0


def test_a_record_that_was_read_is_a_copy() -> None:
    inputs = ring()
    position = write(inputs, ["a"] * len(records.TEXTS), np.zeros(1, layout.vector_decision_dtype), b"raw")
    found = records.read(inputs, position)
    inputs.view(0, inputs.capacity)[:] = b"\xff" * inputs.capacity
    assert (found.company, found.raw, found.head.position) == ("a", b"raw", 7)


def test_raw_bytes_are_left_out_where_nobody_wants_them() -> None:
    inputs = ring()
    position = write(inputs, ["a"] * len(records.TEXTS), np.zeros(0, layout.vector_decision_dtype), b"raw")
    assert records.read(inputs, position, whole=False).raw == b""


@pytest.mark.parametrize(
    ("field", "value"), [("raw_bytes", 1 << 20), ("company_bytes", 60_000), ("decisions", 255), ("bytes", 8)]
)
def test_lengths_that_do_not_fit_their_record_are_a_corrupt_arena(field: str, value: int) -> None:
    inputs = ring()
    position = write(inputs, ["a"] * len(records.TEXTS), np.zeros(1, layout.vector_decision_dtype), b"raw")
    head = np.frombuffer(inputs.view(position, records.HEAD_BYTES), layout.input_record_dtype)
    size, end = int(head["bytes"][0]), records.HEAD_BYTES + records.DECISION_BYTES + len(records.TEXTS) + 3
    old = int(head[field][0])
    head[field] = value
    if field == "bytes":
        size = value
    else:
        end += (value - old) * (records.DECISION_BYTES if field == "decisions" else 1)
    with pytest.raises(RuntimeError) as caught:
        records.read(inputs, position)
    assert str(caught.value) == (
        f"record at {position} of `inputs`: its parts take {end} bytes of {size}; the arena is corrupt"
    )


def test_a_head_has_every_field_of_a_record_and_a_copy_is_its_own() -> None:
    lengths = {"bytes", "raw_bytes", *(f"{name}_bytes" for name in records.TEXTS)}
    fields = {name: n for n, name in enumerate(layout.input_record_dtype.names, 1) if name not in lengths}
    fields["decisions"] = 0
    head, inputs = records.Head(**fields), ring()
    position = inputs.claim(records.bytes_needed(b"", [b""] * len(records.TEXTS), b""))
    records.write(inputs.view(position, records.HEAD_BYTES), head, b"", [b""] * len(records.TEXTS), b"")
    (written,) = np.frombuffer(inputs.view(position, records.HEAD_BYTES), layout.input_record_dtype)
    read = records.read(inputs, position).head
    assert {name: int(written[name]) for name in fields} == fields
    assert {name: getattr(read, name) for name in fields} == fields
    other = read.copy()
    other.kind = 99
    assert (read.kind, other.kind, other.sequence) == (fields["kind"], 99, fields["sequence"])


@pytest.mark.parametrize(
    ("texts", "raw", "told"),
    [
        ([b"x" * 65_536, *[b""] * 6], b"", "a record's text has 65535 bytes at most, found 65536"),
        ([b""] * 6, b"", "a record has 7 texts, found 6"),
        ([b""] * 7, b"x" * 9, f"a record of {records.HEAD_BYTES + 9} bytes does not fit the"),
    ],
)
def test_parts_that_do_not_fit_are_refused(texts: list[bytes], raw: bytes, told: str) -> None:
    area = memoryview(bytearray(records.HEAD_BYTES + 8))
    with pytest.raises(ValueError, match=told):
        records.write(area, records.Head(), b"", texts, raw)
    assert not any(area)

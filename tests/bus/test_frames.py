"""Frames: what comes out does not depend on how the bytes were cut, and no length is believed."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.bus.frames import FrameReader, encode
from engine.errors import BusError

REFUSED = (
    "a frame says it has 101 bytes; at most 100 are allowed: "
    "send a little-endian u32 length before each envelope, and smaller envelopes"
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(st.lists(st.binary(max_size=100)), st.lists(st.integers(0, 1 << 30), max_size=30))
def test_payloads_come_out_whole_however_they_were_cut(payloads: list[bytes], places: list[int]) -> None:
    reader = FrameReader(100)
    found = [each for chunk in cut(b"".join(map(encode, payloads)), places) for each in reader.feed(chunk)]
    assert found == payloads
    assert reader.pending == 0


@given(
    st.lists(st.binary(max_size=100), max_size=5),
    st.binary(max_size=300),
    st.lists(st.integers(0, 1 << 30), max_size=30),
)
def test_what_came_before_a_bad_length_comes_out_and_nothing_after(
    payloads: list[bytes], rest: bytes, places: list[int]
) -> None:
    data = b"".join(map(encode, payloads)) + struct.pack("<I", 101) + rest
    reader, found = FrameReader(100), []
    with pytest.raises(BusError) as caught:  # noqa: PT012
        for chunk in [*cut(data, places), b""]:
            found += reader.feed(chunk)
    assert str(caught.value) == REFUSED
    assert found == payloads


@given(st.lists(st.binary(max_size=2000), max_size=20))
def test_random_bytes_never_take_more_than_a_frame_of_memory(chunks: list[bytes]) -> None:
    reader = FrameReader(1000)
    for chunk in chunks:
        try:
            payloads = reader.feed(chunk)
        except BusError:
            break
        assert all(len(payload) <= 1000 for payload in payloads)
        assert reader.pending < 1004


def test_a_refused_connection_stays_refused() -> None:
    reader = FrameReader(100)
    for _ in range(2):
        with pytest.raises(BusError) as caught:
            reader.feed(struct.pack("<I", 101))
        assert str(caught.value) == REFUSED
    assert reader.pending == 0


def test_the_length_is_little_endian_and_an_empty_payload_is_a_payload() -> None:
    assert encode(b"abc") == b"\x03\x00\x00\x00abc"
    assert FrameReader(0).feed(encode(b"")) == [b""]

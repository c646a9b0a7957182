"""What is read of protocol buffers is what google.protobuf reads, to the bit, or both refuse."""

import random
from collections import Counter

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message

from engine import records
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.names import Kind
from engine.ingress.reading import read_batch, read_envelope
from engine.ingress.values import bounds_of
from engine.settings import Limits
from fastpath import layout, wire
from fastpath.ring import ByteRing, Ring
from fastpath.slots import fill_slots
from fastpath.vectors import Batch
from fastpath.wire import Envelope, NotRead
from tests.fastpath.plain_vectors import check, slot_of
from tests.fastpath.wild import Wild, sized, tag, varint

BOUNDS = Limits()
NOW_NS = 1_740_000_000_000_000_000
COMPUTED = ("mid", "spread")  # which of two NaNs a sum of them is, is the compiler's choice


class Desk:
    """A batch, and rings in which its vectors become slots."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.requests = Ring(bytearray(Ring.bytes_needed(64)), layout.request_slot_dtype)
        self.inputs = ByteRing(bytearray(ByteRing.bytes_needed(1 << 16)))

    def slots(self) -> np.ndarray:
        """Every vector's, as if all were good."""
        decisions = self.batch.decisions.copy()
        decisions["reason"] = 0
        decisions["history_count"] = 240
        for decision, parsed in zip(decisions, self.parsed.feature_vectors, strict=True):
            decision["history_count"] = len(parsed.price_history.mid_prices)
        head = records.Head(kind=Kind.VECTOR, count=len(decisions), decisions=len(decisions))
        size = records.bytes_needed(decisions.tobytes(), [b""] * 7, b"")
        records.write(self.inputs.view(0, size), head, decisions.tobytes(), [b""] * 7, b"")
        self.requests.slots.view(np.uint8)[:] = 0
        fill_slots(self.requests, self.inputs, 0, self.batch)
        self.decisions = decisions
        return self.requests.slots[: len(decisions)]

    def compare(self, parsed: FeatureVectorBatch) -> None:
        batch, self.parsed = self.batch, parsed
        vectors = parsed.feature_vectors
        assert (len(batch), batch.user_id, batch.company_id) == (len(vectors), parsed.user_id, parsed.company_id)
        names = [(vector.symbol, vector.timestamp_ns) for vector in vectors]
        assert batch.repeats_itself() == (len(set(names)) < len(names))
        batch.check(NOW_NS, frozenset(), bounds_of(BOUNDS))
        judged = [(int(each["reason"]), int(each["flags"])) for each in batch.decisions]
        assert judged == [tuple(map(int, check(vector, NOW_NS, BOUNDS))) for vector in vectors]
        if not vectors or any(too_long(vector) for vector in vectors):
            return
        for slot, vector, decision in zip(self.slots(), vectors, self.decisions, strict=True):
            expected = slot_of(vector, decision)
            for name in ("index", "count", "kind"):
                expected[name] = slot[name]
            for name in COMPUTED:
                assert slot[name] == expected[name] or np.isnan([slot[name], expected[name]]).all()
                slot[name] = expected[name] = 0
            assert slot.tobytes() == expected.tobytes()


def too_long(vector: FeatureVector) -> bool:
    lists = (vector.cross_asset.correlation_scores, vector.extra, vector.price_history.mid_prices)
    return any(len(each) > most for each, most in zip(lists, (64, 64, 240), strict=True))


def parsed_by_google(kind: type[Message], raw: bytes) -> Message | None:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


@pytest.fixture
def seed() -> int:
    drawn = random.SystemRandom().randrange(1 << 32)
    print(f"seed {drawn}")
    return drawn


def is_read(read, *arguments: object) -> bool:
    try:
        read(*arguments)
    except NotRead:
        return False
    return True


def compare_batch(desk: Desk, raw: bytes, counts: Counter) -> None:
    expected = parsed_by_google(FeatureVectorBatch, raw)
    plain = is_read(desk.batch.read, raw)
    counts["plain" if plain else "refused" if expected is None else "by google.protobuf"] += 1
    if expected is None:
        assert not plain, raw
        with pytest.raises(DecodeError):
            read_batch(desk.batch, raw)
        return
    read_batch(desk.batch, raw)
    desk.compare(expected)


def compare_envelope(raw: bytes, counts: Counter) -> None:
    expected = parsed_by_google(MLProcessingEnvelope, raw)
    plain = is_read(Envelope, raw)
    counts["plain" if plain else "refused" if expected is None else "by google.protobuf"] += 1
    if expected is None:
        assert not plain, raw
        with pytest.raises(DecodeError):
            read_envelope(raw)
        return
    made = read_envelope(raw)
    for name in (
        "message_type", "user_id", "company_id", "payload", "timestamp", "service_source", "correlation_id", "epoch",
        "sequence",
    ):  # fmt: skip
        assert getattr(made, name) == getattr(expected, name), name
    trace = expected.trace_context
    assert (made.token, made.traceparent, made.tracestate) == (
        expected.auth_token.jwt,
        trace.traceparent,
        trace.tracestate,
    )
    kept = MLProcessingEnvelope.FromString(made.without_token())
    for each in (kept, expected):
        each.DiscardUnknownFields()
    expected.ClearField("auth_token")
    assert kept.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    expected.ClearField("payload")
    made.leave_name()
    left = MLProcessingEnvelope.FromString(made.without_token())
    left.DiscardUnknownFields()
    assert left.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert (made.payload, made.token) == (b"", "")


def test_whatever_a_producer_may_write_is_read_without_google_protobuf(seed: int) -> None:
    desk, wild, counts = Desk(), Wild(seed), Counter[str]()
    for _ in range(1500):
        compare_batch(desk, wild.message(FeatureVectorBatch.DESCRIPTOR), counts)
        compare_envelope(wild.message(MLProcessingEnvelope.DESCRIPTOR), counts)
    assert counts == {"plain": 3000}


def test_damaged_vectors_are_read_as_google_protobuf_reads_them_or_both_refuse(seed: int) -> None:
    desk, wild, counts = Desk(), Wild(seed, bad_texts=0.01), Counter[str]()
    for _ in range(800):
        whole = wild.message(FeatureVectorBatch.DESCRIPTOR)
        for _ in range(20):
            compare_batch(desk, wild.damaged(whole), counts)
    print(dict(counts))
    assert counts["plain"] > 1000
    assert counts["refused"] > 1000


def test_damaged_envelopes_are_read_as_google_protobuf_reads_them_or_both_refuse(seed: int) -> None:
    wild, counts = Wild(seed, bad_texts=0.01), Counter[str]()
    for _ in range(500):
        whole = wild.message(MLProcessingEnvelope.DESCRIPTOR)
        for _ in range(20):
            compare_envelope(wild.damaged(whole), counts)
    print(dict(counts))
    assert counts["plain"] > 1000
    assert counts["refused"] > 1000


def test_texts_are_utf8_as_python_knows_it(seed: int) -> None:
    chance = random.Random(seed)
    edges = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5]
    found = [bytes([first, *chance.choices(edges, k=chance.randrange(5))]) for first in range(256) for _ in range(60)]
    for text in found:
        try:
            expected = text.decode()
        except UnicodeDecodeError:
            assert not is_read(Envelope, sized(2, text)), text
        else:
            assert Envelope(sized(2, text)).user_id == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00",
        b"\x02\x00",  # field 0
        tag(1, 6),
        tag(1, 7),
        tag(20, 4),  # the end of a group that did not begin
        tag(20, 3) + tag(21, 4),
        tag(20, 3),
        tag(5, 0) + b"\xff" * 10 + b"\x01",  # of eleven bytes
        tag(1, 2) + b"\xff\xff\xff\xff\x0f",
        tag(1, 2) + b"\xff" * 9 + b"\x01",
        tag(1, 2) + b"\x05abc",
        b"\xff\xff\xff\xff\xff\x01\x00",  # a tag beyond 32 bits
        sized(5, sized(7, b"1234567")),  # packed numbers and a rest
        sized(5, sized(6, sized(1, b"123456789"))),
        sized(5, tag(7, 1) + b"1234567"),
        sized(3, b"\xff"),  # the correlation id, which nobody reads here
    ],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    counts = Counter[str]()
    compare_batch(Desk(), raw, counts)
    assert counts == {"refused": 1}


@pytest.mark.parametrize("levels", [1, 16, 17, 90])
def test_groups_within_groups_are_left_alone(levels: int) -> None:
    counts = Counter[str]()
    unknown = b"".join(tag(20, 3) for _ in range(levels)) + b"".join(tag(20, 4) for _ in range(levels))
    vector = FeatureVector(symbol="EURUSD", timestamp_ns=NOW_NS)
    compare_batch(Desk(), sized(5, unknown + vector.SerializeToString()) + unknown, counts)
    compare_envelope(unknown + sized(3, b"acme"), counts)
    assert counts == {"plain" if levels <= 16 else "by google.protobuf": 2}


def test_the_last_byte_of_a_long_number_has_one_bit() -> None:
    counts = Counter[str]()
    for last in (0, 1, 2, 0x7F):
        compare_envelope(tag(5, 0) + b"\xff" * 9 + bytes([last]), counts)
    assert counts["plain"] == 2


def test_more_vectors_than_are_kept_are_counted_and_read() -> None:
    desk = Desk()
    many = FeatureVectorBatch(feature_vectors=[FeatureVector(symbol=f"S{n}") for n in range(1000)])
    raw = many.SerializeToString()
    read_batch(desk.batch, raw)
    assert (len(desk.batch), len(desk.batch.decisions)) == (1000, wire.vectors_max)
    assert not is_read(desk.batch.read, raw + sized(5, sized(1, b"\xff")))
    assert len(desk.batch) == 0


def test_longer_lists_than_a_slot_holds_are_counted_and_never_written() -> None:
    desk, numbers = Desk(), b"\x00" * 8 * 100_000
    read_batch(desk.batch, sized(5, sized(1, b"A") + sized(5, sized(1, numbers)) + sized(7, numbers)))
    desk.batch.check(NOW_NS, frozenset(), bounds_of(BOUNDS))
    assert desk.batch.decisions["reason"].tolist() == [10]
    desk.parsed = FeatureVectorBatch(feature_vectors=[FeatureVector()])
    with pytest.raises(RuntimeError) as caught:
        desk.slots()
    assert str(caught.value) == "record 0: its 1 slots do not fit its vectors; the arena is corrupt"


def test_a_token_is_cut_out_wherever_and_however_often_it_stands() -> None:
    token = sized(10, sized(1, b"secret"))
    raw = token + sized(3, b"acme") + token + sized(99, b"kept") + tag(10, 0) + varint(7) + token
    assert Envelope(raw).token == "secret"
    assert Envelope(raw).without_token() == sized(3, b"acme") + sized(99, b"kept")

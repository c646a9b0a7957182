"""Answers are written as google.protobuf writes them, byte by byte, whatever stands in a slot."""

import random

import numpy as np
import pytest

from engine.contract.ml.model_metadata_pb2 import ModelInfo
from engine.contract.names import Reason
from engine.egress.encoding import FLAGGED, REJECTIONS, VECTOR_ADVICE
from fastpath import layout
from fastpath.answers import Answers, Encoder
from tests.fastpath.plain_answers import Names, encode
from tests.fastpath.wild import NUMBERS

NAMES = Names(
    {row: ModelInfo(model_id=f"model_{row}", version="1.0", kind=row % 6, sha256="ab" * 32) for row in range(8)}
    | {8: ModelInfo()},
    {row: [f"feature_{n}" for n in range(255)] for row in range(9)} | {9: ["a", "b"]},
)
TEXTS = ["", "acme", "é", "漢字", "c-" + "x" * 200]
COUNTS = {
    "horizon_count": layout.horizons,
    "pattern_count": layout.patterns_max,
    "contribution_count": layout.contributions_max,
    "shap_count": layout.shap_max,
}


def encoder() -> Encoder:
    models = {row: info.SerializeToString(deterministic=True) for row, info in NAMES.info.items()}
    features = {row: [name.encode() for name in names] for row, names in NAMES.features.items()}
    return Encoder(models, features, REJECTIONS, FLAGGED)


def slots_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Anything in every field, but for what indexes something else."""
    slots = np.zeros(count, layout.answer_slot_dtype)
    for name in slots.dtype.names:
        part = slots[name]
        if part.dtype.kind == "f":
            drawn = np.where(rng.random(part.shape) < 0.3, rng.choice(NUMBERS, part.shape), rng.normal(size=part.shape))
            with np.errstate(over="ignore"):
                slots[name] = drawn
        elif part.dtype.kind in "ui":
            bits = rng.integers(0, 8 * part.dtype.itemsize + 1, part.shape).astype("u8")
            drawn_bits = rng.integers(0, 1 << 64, part.shape, "u8")
            slots[name] = np.where(bits == 0, 0, drawn_bits >> (64 - np.maximum(bits, 1))).astype(part.dtype)
    for name in ("contribution_version", "final_version", "direction_version"):
        slots[name] = rng.integers(0, 9, slots[name].shape)
    for name, most in COUNTS.items():
        slots[name] = rng.choice([0, 1, min(3, most), most], slots[name].shape)
    slots["status"] = rng.integers(1, 6, count)
    slots["reason"] = rng.choice([int(reason) for reason in VECTOR_ADVICE], count)
    slots["symbol"] = rng.choice([b"", b"EURUSD", b"x" * 24], count)
    slots["symbol_bytes"] = np.char.str_len(slots["symbol"])
    slots["taken_ns"] = rng.integers(0, 3, count)
    return slots


def test_any_answer_has_the_bytes_that_google_protobuf_writes() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng, made = np.random.default_rng(seed), encoder()
    for _ in range(1000):
        slots = list(slots_of(rng, int(rng.choice([1, 1, 2, 5]))))
        fields = {
            "timestamp": int(rng.integers(-(1 << 62), 1 << 62)) >> int(rng.integers(0, 63)),
            "service_source": "engine-0",
            "user_id": str(rng.choice(TEXTS)),
            "company_id": str(rng.choice(TEXTS)),
            "correlation_id": str(rng.choice(TEXTS)),
            "traceparent": str(rng.choice(TEXTS)),
            "tracestate": str(rng.choice(TEXTS)),
            "epoch": int(rng.integers(0, 1 << 64, dtype="u8")),
            "sequence": int(rng.integers(0, 3)),
        }
        expired, late, engine_ms = (
            bool(rng.integers(2)),
            bool(rng.integers(2)),
            float(rng.choice([0.0, 1.25, 0.1, 1e9])),
        )
        with np.errstate(over="ignore"):
            expected = encode(slots, NAMES, expired, late, "feed-0", engine_ms, **fields)
        payload = Answers(slots, expired, late, "feed-0", engine_ms)
        assert made.encode("ml_inference", *fields.values(), payload) == expected


def test_an_answer_may_be_larger_than_any_before() -> None:
    slots = slots_of(np.random.default_rng(1), 64)
    slots["status"], slots["has_direction"], slots["shap_count"] = 1, 1, 256
    given = ("engine-0", "trader", "acme", "", "", "", 1, 2, Answers(list(slots), False, False, "feed-0", 0.0))
    assert len(encoder().encode("ml_inference", 3, *given)) > 1 << 18


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_beyond_its_array_reads_nothing_behind_it(name: str) -> None:
    slots = slots_of(np.random.default_rng(2), 2)
    slots["status"], slots["has_pattern"], slots["has_direction"] = 1, 1, 1
    slots[name] = [COUNTS[name], 65535]
    slots[1] = slots[0]
    slots[name][1] = 65535
    answers = [Answers([slot], False, False, "feed-0", 0.0) for slot in slots]
    one, other = (encoder().encode("ml_inference", 3, "", "", "", "", "", "", 1, 2, each) for each in answers)
    assert one == other


def test_what_a_slot_cannot_say_is_told() -> None:
    made = encoder()

    def told(kind: type[Exception], **changes: int) -> str:
        slots = slots_of(np.random.default_rng(3), 1)
        slots["status"], slots["has_direction"] = 1, 1
        for name, value in changes.items():
            slots[name] = value
        with pytest.raises(kind) as caught:
            made.encode("ml_inference", 3, "", "", "", "", "", "", 1, 2, Answers(list(slots), False, False, "", 0.0))
        return str(caught.value)

    assert told(ValueError, status=0) == "an answer's status is from 1 to 5, found 0"
    assert told(ValueError, status=6) == "an answer's status is from 1 to 5, found 6"
    assert told(KeyError, final_version=63) == "63"
    assert told(KeyError, status=5, reason=int(Reason.STALE)) == str(int(Reason.STALE))
    few = {"direction_version": 9, "shap_count": 11}
    assert told(ValueError, **few) == "version 9 has 2 features, its answer 10"

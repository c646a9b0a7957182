"""Bytes and time of a message: this engine's protocol buffers beside google.protobuf and beside JSON by orjson.

Owns the rounds; run as `python -m bench.serialization`, in one process on one core. Prints a table, writes
`bench/results/serialization.json`. Messages: what a producer sends, and the answer to it, with 1 and 10 vectors,
without a token, which is the same text in either.

Each contender begins with what it has and ends with what it gives: the engine with structs in memory, google.protobuf
with its messages, orjson with dicts; whole numbers are numbers in JSON too, and the payload is an object, not text.
What must stay true: all say the same, which is compared before anything is timed.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from bench import host
from bench.figures import microseconds, summarise, table, timed
from bench.load import SYMBOLS, Load, Stream
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.contract.ml.model_metadata_pb2 import ModelInfo
from fastpath import layout
from fastpath.answers import Answers, Encoder
from fastpath.vectors import Batch
from fastpath.wire import Envelope

SIZES = (1, 10)
CALLS = 200  # of each way, in a round
FEATURES = 11  # of the direction's model, with an importance each
MODELS = ("advanced_lstm", "cnn_patterns", "xgboost_direction", "ensemble_meta")
RESULTS = Path(__file__).parent / "results"


class Way(NamedTuple):
    """One contender with one message; None: it never does that."""

    message: str
    contender: str
    size: int
    encode: Callable[[], object] | None
    decode: Callable[[], object] | None


def batches(count: int, seed: int) -> list[Way]:
    """What a producer sends: the engine reads it."""
    stream = Stream(Load("bench", 1, count), "bench", "bench-user", "", seed)
    for _ in SYMBOLS:  # a symbol's first message carries a history, which is rare
        stream.next(time.time_ns())
    raw = Envelope(stream.next(time.time_ns())[1].body).without_token()
    batch = Batch()

    def read() -> None:
        batch.read(Envelope(raw).payload)

    read()
    if len(batch) != count:
        raise RuntimeError(f"expected {count} vectors, read {len(batch)}")
    return ways(f"{count} vectors" if count > 1 else "1 vector", raw, FeatureVectorBatch, None, read)


def answers(count: int, seed: int) -> list[Way]:
    """What a reader gets, of the enterprise tier, with everything in it: the engine writes it."""
    infos = [ModelInfo(model_id=name, version="2.1", kind=1 + n, sha256="ab" * 32) for n, name in enumerate(MODELS)]
    models = {n: info.SerializeToString(deterministic=True) for n, info in enumerate(infos)}
    encoder = Encoder(models, {2: [f"feature_{n}".encode() for n in range(FEATURES)]}, {}, [b""])
    payload = Answers(list(slots_of(count, seed)), False, False, "bench", 0.75)
    texts = ("engine-0", "bench-user", "bench", "bench/bench/1/1", "", "", time.time_ns(), 1, payload)

    def write() -> bytes:
        return encoder.encode("ml_inference", time.time_ns(), *texts)

    return ways(f"answer to {count}", write(), MLPredictionBatch, write, None)


def slots_of(count: int, seed: int) -> np.ndarray:
    """Answer slots with numbers of the kind that models give."""
    rng, slots = np.random.default_rng(seed), np.zeros(count, layout.answer_slot_dtype)
    for name in ("price", "lower", "upper", "base_price", "pattern_target"):
        slots[name] = rng.uniform(1.0, 1.2, slots[name].shape)
    for name in slots.dtype.names:
        if slots[name].dtype == np.float32:
            slots[name] = rng.uniform(0.05, 0.95, slots[name].shape)
    symbols = np.array([f"SYMBOL{n}" for n in range(count)], "S24")
    slots["symbol"], slots["symbol_bytes"] = symbols, np.char.str_len(symbols)
    slots["event_ns"], slots["status"], slots["model_count"] = time.time_ns(), 1, 4
    slots["horizon_count"], slots["horizon_minutes"], slots["horizon_direction"] = 4, (1, 5, 15, 60), 3
    slots["has_pattern"], slots["pattern_count"], slots["pattern_type"], slots["pattern_signal"] = 1, 1, 5, 3
    slots["has_direction"], slots["direction_version"], slots["primary"], slots["shap_count"] = 1, 2, 3, FEATURES + 1
    slots["contribution_count"], slots["contribution_signal"], slots["final_version"] = 3, 3, 3
    slots["contribution_version"][:, :3], slots["ensemble_signal"], slots["trend_signal"] = (0, 1, 2), 3, 3
    return slots


def ways(
    name: str, raw: bytes, kind: type[Message], write: Callable[[], bytes] | None, read: Callable[[], None] | None
) -> list[Way]:
    """All three contenders with one message, once they were seen to say the same."""
    envelope = MLProcessingEnvelope.FromString(raw)
    payload = kind.FromString(envelope.payload)

    def google_encode() -> bytes:
        envelope.payload = payload.SerializeToString()
        return envelope.SerializeToString()

    def google_decode() -> Message:
        return kind.FromString(MLProcessingEnvelope.FromString(raw).payload)

    if google_encode() != raw:
        raise RuntimeError(f"{name}: google.protobuf writes other bytes")
    document = plain(envelope)
    document["payload"] = plain(payload)
    text = orjson.dumps(document)
    if orjson.loads(text) != document:
        raise RuntimeError(f"{name}: what JSON says is not what was to be said")
    return [
        Way(name, "this engine", len(raw), write, read),
        Way(name, "google.protobuf", len(raw), google_encode, google_decode),
        Way(name, "JSON, orjson", len(text), lambda: orjson.dumps(document), lambda: orjson.loads(text)),
    ]


def plain(message: Message) -> dict[str, Any]:
    """As a JSON service would have it: 64-bit numbers as numbers, each field under its own name."""
    whole = {field.name for field in message.DESCRIPTOR.fields if field.cpp_type in (2, 4)}
    found = MessageToDict(message, preserving_proto_field_name=True)
    found = {name: int(value) if name in whole else value for name, value in found.items()}
    for field, value in message.ListFields():
        if field.message_type is not None:
            found[field.name] = [plain(each) for each in value] if field.is_repeated else plain(value)
    return found


def measure(every: Sequence[Way], seconds: float) -> list[dict[str, list[int]]]:
    """ns of each call, by way; rounds until the time is up, one at least, after one that counts for nothing."""
    until, counted = time.monotonic() + seconds, -1
    found: list[dict[str, list[int]]] = [{"encode": [], "decode": []} for _ in every]
    while counted < 1 or time.monotonic() < until:
        counted += 1
        for way, times in zip(every, found, strict=True):
            for name in ("encode", "decode"):
                if (function := getattr(way, name)) is not None:
                    took = [timed(function) for _ in range(CALLS)]
                    times[name] += took if counted else []
    return found


def as_text(every: Sequence[Way], found: Sequence[dict[str, list[int]]]) -> str:
    rows = []
    for way, times in zip(every, found, strict=True):
        cells = []
        for name in ("encode", "decode"):
            told = summarise(times[name]).percentiles_ns if times[name] else {50.0: None, 99.0: None}
            cells += [microseconds(told[50.0]), microseconds(told[99.0])]
        rows.append([f"{way.message}: {way.contender}", str(way.size), *cells])
    return table(("us", "bytes", "encode p50", "p99", "decode p50", "p99"), rows)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.serialization", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of all messages together (default: 20)")
    parser.add_argument("--seed", type=int, default=None, help="of the numbers (default: drawn, and printed)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of serialization.json")
    arguments = parser.parse_args(words)
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    about = host.describe()
    print("a message without its token: bytes and time, from and to what each contender works with")
    print(f"seed {seed}, {arguments.seconds:g} s, orjson {orjson.__version__}")
    print(host.line(about))
    begun_s, busy_s, ours_s = time.monotonic(), host.busy_s(), host.used_s([os.getpid()])
    every = [way for count in SIZES for made in (batches, answers) for way in made(count, seed)]
    found = measure(every, arguments.seconds)
    others = (host.busy_s() - busy_s - (host.used_s([os.getpid()]) - ours_s)) / (time.monotonic() - begun_s)
    print(f"cores busy with other work meanwhile: {max(0.0, others):.2f}")
    print("\n" + as_text(every, found))
    goal = microseconds(summarise(found[3]["encode"]).percentiles_ns[50.0])
    print(f"\ngoal (at most 5 us): an answer written: {goal} us")
    arguments.results.mkdir(parents=True, exist_ok=True)
    told = {"benchmark": "serialization", "seed": seed, "seconds": arguments.seconds, "others_cores": others}
    parts = [
        {"message": way.message, "contender": way.contender, "bytes": way.size, "times_ns": times}
        for way, times in zip(every, found, strict=True)
    ]
    (arguments.results / "serialization.json").write_text(json.dumps({**told, "host": about, "ways": parts}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

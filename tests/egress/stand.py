"""Accepted inputs in a real arena, answered as a worker would, and what of egress a test wants to run over them.

Messages enter through a real sequencer. The worker is stood in for by copies: each answer's numbers follow from its
request, so that who sends it, and when, can be told from what it says.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from engine.bus import local
from engine.bus.frames import encode as frame
from engine.contract.common.user_context_pb2 import AuthToken
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.contract.names import Kind, Status
from engine.egress.delivery import Delivery
from engine.egress.gathering import Gatherer
from engine.egress.nats_out import NatsOut
from engine.shared import Count, Shared

SHARED_FIELDS = (
    "input",
    "record",
    "event_ns",
    "flags",
    "window_gaps",
    "index",
    "count",
    "reason",
    "kind",
    "tier",
)
WITHIN_S = 10.0


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """On the event loop that the engine uses, with an end even where nothing happens."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(coroutine, 60))


async def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives once it is true."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + WITHIN_S
    while not (found := condition()):
        assert loop.time() < deadline_s, f"not within {WITHIN_S:g} s: {what}"
        await asyncio.sleep(0.002)
    return found


def add_versions(shared: Shared) -> None:
    """`basic_lstm` in row 0, `xgboost_direction` with three features in row 1, the vote in row 2."""
    for row, (model_id, version, kind, features) in enumerate(
        (("basic_lstm", "1.0", 1, ()), ("xgboost_direction", "3.2", 3, ("r_1", "sigma", "gap")), ("vote", "1.0", 4, ()))
    ):
        each = shared.versions[row]
        each["taken"], each["kind"] = 1, kind
        each["model_id"], each["version"], each["sha256"] = model_id.encode(), version.encode(), b"ab" * 32
        each["feature_first"], each["feature_count"] = 2, len(features)
        shared.feature_names[2 : 2 + len(features)] = [name.encode() for name in features]


def answer(shared: Shared, worker: int = 0, most: int = 1 << 30, status: Status = Status.OK, repeat: int = 0) -> None:
    """Answers what was published to a worker, from where its answers end; `repeat` slots before that once more."""
    requests, answers = shared.requests[worker], shared.answers[worker]
    done = int(answers.slots[(answers.head - 1) & answers.mask]["request"]) + 1 if answers.head else 0
    for position in range(done - repeat, min(requests.head, done + most)):
        first = answers.claim(1)
        assert first >= 0, "the answers ring is full"
        fill(answers.slots[first & answers.mask], requests.slots[position & requests.mask], position, status)
        answers.publish(first + 1)
    requests.release(max(requests.tail, min(requests.head, done + most)))


def fill(slot: np.void, request: np.void, position: int, status: Status) -> None:
    for name in SHARED_FIELDS:
        slot[name] = request[name]
    slot["request"], slot["taken_ns"], slot["answered_ns"] = position, 1000 + position, request["received_ns"] + 1
    slot["symbol"], slot["symbol_bytes"] = request["symbol"], request["symbol_bytes"]
    slot["inference_ms"] = 0.5
    if request["kind"] != Kind.VECTOR:
        return
    slot["status"] = Status.REJECTED if request["reason"] else status
    slot["base_price"] = request["mid"]
    slot["price"][0], slot["lower"][0], slot["upper"][0] = request["mid"] + 1 / 3, request["mid"], request["mid"] + 1
    slot["horizon_minutes"][0], slot["horizon_direction"][0], slot["horizon_count"] = 1, 3, 1
    slot["ensemble_confidence"], slot["model_count"], slot["final_version"] = 1 / 3, 2, 2


class Inbox:
    """A reader at a real Unix socket: the envelopes it got."""

    def __init__(self) -> None:
        self.envelopes: list[MLProcessingEnvelope] = []
        self.ended = asyncio.Event()
        self._frames = local.FrameReader(1 << 24)

    async def open(self, path: str, token: str = "", **fields: Any) -> "Inbox":
        self._reader, self._writer = await asyncio.open_unix_connection(path)
        envelope = MLProcessingEnvelope(message_type="subscribe", auth_token=AuthToken(jwt=token), **fields)
        self._writer.write(frame(envelope.SerializeToString()))
        self._task = asyncio.get_running_loop().create_task(self._read())
        return self

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def close(self) -> None:
        self._writer.close()
        await self.ended.wait()

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(1 << 16):
                self.envelopes += [MLProcessingEnvelope.FromString(each) for each in self._frames.feed(data)]
        except OSError:
            pass
        finally:
            self._writer.close()
            self.ended.set()

    @property
    def sequences(self) -> list[int]:
        return [envelope.sequence for envelope in self.envelopes]


class Desk:
    """Gathering and delivery over an arena, with readers that are who they say they are; `pass_on` is one turn."""

    def __init__(self, shared: Shared, folder: Path, link: Any = None, outbox_bytes: int = 1 << 20) -> None:
        self.shared = shared
        self.path = str(folder / "out")
        self.counters = np.zeros(64, np.uint64)
        self.readers: dict[str, set[local.Reader]] = {}
        self.gatherers = [Gatherer(worker, ring, shared.inputs) for worker, ring in enumerate(shared.answers)]
        self.unsent_max = 1 << 20
        self.log = logging.getLogger("desk")
        self.nats = NatsOut(link, self.counters, outbox_bytes, self.log) if link is not None else None
        self.delivery = Delivery(
            shared, self.counters, "engine-t", self.nats, None, self.readers, lambda: None, self.log
        )

    async def open(self) -> "Desk":
        def admit(first: bytes) -> tuple[str, float]:
            return MLProcessingEnvelope.FromString(first).company_id, float("inf")

        loop = asyncio.get_running_loop()
        listener = local.bind(self.path)
        self.server = await loop.create_unix_server(
            lambda: local.Reader(4096, admit, self.readers, self.unsent_max, self.log), sock=listener
        )
        return self

    async def close(self) -> None:
        self.server.close()
        for reader in [each for readers in self.readers.values() for each in readers]:
            reader.transport.close()
        local.unbind(self.path)

    async def reader(self, company: str) -> Inbox:
        before = len(self.readers.get(company, ()))
        inbox = await Inbox().open(self.path, company_id=company)
        await until(lambda: len(self.readers.get(company, ())) > before, "the reader is known")
        return inbox

    async def pass_on(self) -> None:
        for gatherer in self.gatherers:
            for gathered in gatherer.drain():
                self.delivery.enter(gathered)
        while not self.delivery.send():
            await asyncio.sleep(0)
        self.delivery.empty_outbox()

    def count(self, name: Count) -> int:
        return int(self.counters[name])


def predictions(envelope: MLProcessingEnvelope) -> MLPredictionBatch:
    return MLPredictionBatch.FromString(envelope.payload)


def comparable(envelope: MLProcessingEnvelope) -> bytes:
    """All of an answer that must be the same however often it is sent."""
    kept = MLProcessingEnvelope()
    kept.CopyFrom(envelope)
    kept.ClearField("timestamp")
    if kept.message_type == "ml_inference":
        batch = predictions(envelope)
        batch.ClearField("performance_metrics")
        kept.payload = batch.SerializeToString(deterministic=True)
    return kept.SerializeToString(deterministic=True)

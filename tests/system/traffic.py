"""A producer and a reader written from the contract alone: nats-py, the protos, and nothing of the engine."""

import asyncio
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import nats

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch

MINUTE_NS = 60 * 10**9
SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD", "NZDUSD", "AUDUSD", "EURJPY", "USDCHF", "USDCAD", "EURGBP")


@dataclass
class Stream:
    """One sender of one company: numbers what it sends, and remembers it."""

    company: str
    stream: str
    token: str
    seed: int = 1
    user: str = "feed"
    epoch: int = field(default_factory=time.time_ns)
    sequence: int = 0
    sent: dict[int, MLProcessingEnvelope] = field(default_factory=dict)
    event_ns: int = field(default_factory=lambda: (time.time_ns() // MINUTE_NS - 100_000) * MINUTE_NS)
    mids: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def subject(self) -> str:
        return f"ml.v1.features.{self.company}.{self.stream}"

    def vector(self, symbol: str, history: int = 0) -> FeatureVector:
        """The next one of a symbol: a random walk of about 1 bp a step."""
        mid = self.mids.get(symbol, 1.0 + 0.1 * (len(symbol) + sum(map(ord, symbol)) % 7))
        past = []
        if history:
            for _ in range(history):
                past.append(mid)
                mid *= math.exp(self.random.gauss(0, 1e-4))
        mid *= math.exp(self.random.gauss(0, 1e-4))
        self.mids[symbol] = mid
        vector = FeatureVector(symbol=symbol, timestamp_ns=self.event_ns)
        vector.price_features.bid, vector.price_features.ask = mid * (1 - 2e-5), mid * (1 + 2e-5)
        vector.price_history.mid_prices.extend(past)
        return vector

    def message(self, vectors: list[FeatureVector], **changes) -> bytes:
        """The next message, numbered and remembered."""
        self.sequence += 1
        batch = FeatureVectorBatch(
            user_id=self.user, company_id=self.company, correlation_id=f"c-{self.sequence}", feature_vectors=vectors
        )
        envelope = MLProcessingEnvelope(
            message_type="feature_vectors",
            user_id=self.user,
            company_id=self.company,
            payload=batch.SerializeToString(),
            timestamp=time.time_ns(),
            service_source=self.stream,
            correlation_id=f"c-{self.sequence}",
            epoch=self.epoch,
            sequence=self.sequence,
        )
        envelope.auth_token.jwt = self.token
        for name, value in changes.items():
            setattr(envelope, name, value)
        self.sent[self.sequence] = envelope
        return envelope.SerializeToString()

    def name(self, sequence: int) -> str:
        return f"{self.company}/{self.stream}/{self.epoch}/{sequence}"

    def heartbeat(self) -> bytes:
        envelope = MLProcessingEnvelope(
            message_type="heartbeat",
            user_id=self.user,
            company_id=self.company,
            timestamp=time.time_ns(),
            service_source=self.stream,
            epoch=self.epoch,
            sequence=self.sequence + 1,
        )
        envelope.auth_token.jwt = self.token
        return envelope.SerializeToString()


def vectors_of(envelope: MLProcessingEnvelope) -> list[FeatureVector]:
    return list(FeatureVectorBatch.FromString(envelope.payload).feature_vectors)


@dataclass
class Answer:
    subject: str
    name: str
    envelope: MLProcessingEnvelope
    arrived_ns: int

    @property
    def batch(self) -> MLPredictionBatch:
        return MLPredictionBatch.FromString(self.envelope.payload)

    @property
    def rejection(self) -> Rejection:
        return Rejection.FromString(self.envelope.payload)

    def comparable(self, intervals: bool = True) -> bytes:
        """What it says, less what may differ when it is given again."""
        if self.envelope.message_type != "ml_inference":
            return self.envelope.payload
        batch = self.batch
        batch.ClearField("performance_metrics")
        batch.ClearField("trace")
        if not intervals:
            for prediction in batch.predictions:
                for each in prediction.price.horizon_predictions:
                    each.ClearField("lower_price")
                    each.ClearField("upper_price")
        return batch.SerializeToString(deterministic=True)


class Reader:
    """All that the engine publishes, in order of arrival."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.by_stream: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        self.reports: list[Answer] = []

    async def open(self, client: nats.NATS) -> "Reader":
        # One subscription for all: between two of them this client does not keep the order of arrival.
        await client.subscribe("ml.v1.>", cb=self._take)
        await client.flush()
        return self

    async def _take(self, message) -> None:
        if message.subject.startswith(("ml.v1.predictions.", "ml.v1.rejections")):
            self.hear(message.subject, (message.headers or {}).get("Nats-Msg-Id", ""), message.data)

    def hear(self, subject: str, name: str, body: bytes) -> None:
        answer = Answer(subject, name, MLProcessingEnvelope.FromString(body), time.monotonic_ns())
        if subject == "ml.v1.rejections":
            self.reports.append(answer)
            return
        self.answers.append(answer)
        _, _, _, company, stream = subject.split(".")
        self.by_stream[company, stream].append(answer)

    def named(self, stream: Stream) -> list[Answer]:
        """Answers of a stream that have a name: heartbeats have none."""
        return [
            answer
            for answer in self.by_stream[stream.company, stream.stream]
            if answer.envelope.message_type != "heartbeat"
        ]

    def answered(self, stream: Stream) -> Counter:
        """How often each sequence was answered."""
        return Counter(answer.envelope.sequence for answer in self.named(stream))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[nats.NATS, Reader]]:
    """A client of the server, and a reader of all that the engine publishes there."""
    client = await nats.connect(url, no_echo=True)
    try:
        yield client, await Reader().open(client)
    finally:
        await client.close()


async def eventually(holds, within_s: float, what: str):
    """Waits for a condition with a deadline."""
    deadline_s = time.monotonic() + within_s
    while not (value := holds()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {within_s} s")
        await asyncio.sleep(0.01)
    return value


async def paced(rate_per_s: float, count: int):
    """Yields 0 .. count - 1 when each is due: open loop."""
    begin = time.monotonic()
    for index in range(count):
        wait_s = begin + index / rate_per_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        yield index

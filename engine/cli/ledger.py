"""The demo's books: what each company sent, what came back, and how long it took.

Owns counts and the last answer for each symbol. Runs in the demo's traffic process; takes names and
envelopes, reads and writes nothing else. What must stay true: it believes the contract alone. An
answer counts once, for the message that it names; whatever else arrives is counted as wrong.
"""

import math
from bisect import insort
from collections.abc import Sequence
from typing import TypedDict

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch, Prediction
from engine.contract.names import Signal, Status
from engine.contract.trading.market_patterns_pb2 import PatternType

QUANTILES = (0.5, 0.9, 0.99, 1.0)


class Horizon(TypedDict):
    minutes: int
    price: float
    lower: float
    upper: float
    direction: str
    confidence: float


class Row(TypedDict):
    """The last answer for a symbol."""

    symbol: str
    event_ns: int
    mid: float
    status: str
    reason: str
    signal: str
    confidence: float
    horizons: list[Horizon]
    patterns: list[tuple[str, float]]  # name and probability, the likeliest first


class Account(TypedDict):
    """What one company's stream came to."""

    company: str
    tier: str
    messages: int
    sent: int  # vectors, as all below
    answers: dict[str, int]  # by status
    unanswered: int
    doubled: int
    disordered: int
    misfit: int  # answers that name no message of the stream, or hold other vectors than it
    heartbeats: int
    latency_ms: list[float]  # at QUANTILES, over answered messages, from due to read
    rows: list[Row]


class Ledger:
    """Of one company's stream. `expect` before a message is sent, `take` for each envelope that comes."""

    def __init__(self, company: str, tier: str, symbols: Sequence[str]) -> None:
        self.company = company
        self.tier = tier
        self.symbols = symbols
        self.latencies_ns: list[int] = []  # rising; from due to read
        self.engine_ns: list[int] = []  # rising; as the answers say: from received to handed to the bus
        self._due: dict[int, tuple[int, list[FeatureVector]]] = {}  # open messages by sequence
        self._last = 0
        self._answers = dict.fromkeys((status.name for status in Status), 0)
        self._counts = dict.fromkeys(("messages", "sent", "doubled", "disordered", "misfit", "heartbeats"), 0)
        self._rows: dict[str, Row] = {}

    @property
    def open(self) -> int:
        """Vectors not answered yet."""
        return sum(len(vectors) for _, vectors in self._due.values())

    @property
    def heartbeats(self) -> int:
        """Of the stream, that came back."""
        return self._counts["heartbeats"]

    def expect(self, sequence: int, due_ns: int, vectors: list[FeatureVector]) -> None:
        self._due[sequence] = due_ns, vectors
        self._counts["messages"] += 1
        self._counts["sent"] += len(vectors)

    def take(self, body: bytes, now_ns: int) -> None:
        """An envelope from the bus, read at `now_ns` (CLOCK_MONOTONIC, as the due times)."""
        envelope = MLProcessingEnvelope.FromString(body)
        if envelope.message_type == "heartbeat":
            self._counts["heartbeats"] += 1
            return
        if envelope.company_id != self.company or not 0 < envelope.sequence <= self._counts["messages"]:
            self._counts["misfit"] += 1
            return
        if envelope.sequence not in self._due:
            self._counts["doubled"] += 1
            return
        due_ns, vectors = self._due.pop(envelope.sequence)
        insort(self.latencies_ns, now_ns - due_ns)
        self._counts["disordered"] += envelope.sequence < self._last
        self._last = max(self._last, envelope.sequence)
        if envelope.message_type == "ml_rejection":
            self._answers["REJECTED"] += len(vectors)
        else:
            batch = MLPredictionBatch.FromString(envelope.payload)
            insort(self.engine_ns, round(batch.performance_metrics.engine_time_ms * 1e6))
            self._enter(vectors, batch)

    def _enter(self, vectors: list[FeatureVector], batch: MLPredictionBatch) -> None:
        names = [(each.symbol, each.timestamp_ns) for each in vectors]
        if names != [(each.symbol, each.timestamp_ns) for each in batch.predictions]:
            self._counts["misfit"] += len(vectors)
            return
        for vector, prediction in zip(vectors, batch.predictions, strict=True):
            self._answers[Status(prediction.status).name] += 1
            self._rows[vector.symbol] = _row(vector, prediction)

    def account(self) -> Account:
        return Account(
            company=self.company,
            tier=self.tier,
            messages=self._counts["messages"],
            sent=self._counts["sent"],
            answers=dict(self._answers),
            unanswered=self.open,
            doubled=self._counts["doubled"],
            disordered=self._counts["disordered"],
            misfit=self._counts["misfit"],
            heartbeats=self._counts["heartbeats"],
            latency_ms=quantiles_ms(self.latencies_ns),
            rows=[self._rows[symbol] for symbol in self.symbols if symbol in self._rows],
        )


def quantiles_ms(rising_ns: Sequence[int]) -> list[float]:
    return [each / 1e6 for each in quantiles(rising_ns, QUANTILES)]


def quantiles(rising: Sequence[int], shares: Sequence[float]) -> list[int]:
    """The values that the given shares do not exceed; nothing where there is nothing to choose from.

    >>> quantiles([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], (0.5, 0.9, 0.99, 1.0))
    [5, 9, 10, 10]
    """
    return [rising[math.ceil(share * len(rising)) - 1] for share in shares] if rising else []


def _row(vector: FeatureVector, prediction: Prediction) -> Row:
    found = sorted(prediction.pattern.detected_patterns, key=lambda each: -each.probability)
    return Row(
        symbol=vector.symbol,
        event_ns=vector.timestamp_ns,
        mid=vector.price_features.mid_price,
        status=Status(prediction.status).name,
        reason=prediction.reason,
        signal=_signal(prediction.ensemble.signal),
        confidence=prediction.ensemble.confidence,
        horizons=[
            Horizon(
                minutes=each.horizon_minutes,
                price=each.predicted_price,
                lower=each.lower_price,
                upper=each.upper_price,
                direction=_signal(each.direction),
                confidence=each.confidence,
            )
            for each in prediction.price.horizon_predictions
        ],
        patterns=[(PatternType.Name(each.pattern_type), each.probability) for each in found],
    )


def _signal(number: int) -> str:
    return Signal(number).name if number else ""

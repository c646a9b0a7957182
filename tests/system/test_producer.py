"""A producer that knows the contract alone gets each vector answered once, in order, with what its tier has."""

import asyncio
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.ml.ml_predictions_pb2 import DEGRADED, OK, Prediction
from engine.contract.ml.model_metadata_pb2 import CNN, ENSEMBLE, LSTM, XGBOOST
from tests.system.servers import EngineProcess, Issuer
from tests.system.traffic import SYMBOLS, Answer, Reader, Stream, connected, eventually, paced, vectors_of

SECONDS = 12
LARGE_PER_S, LARGE_VECTORS = 60, 10
SMALL_PER_S, SMALL_VECTORS = 400, 1
HEARTBEAT_EVERY = 500  # messages
STEP_NS = 20 * 10**9  # of event time between two messages of a stream
UNIVERSE = 5  # cross-asset scores


@dataclass(frozen=True)
class Bought:
    """What the contract's table says of a tier."""

    horizons: list[int]
    members: list[int]
    finals: set[str]


TIERS = {
    "free": Bought([1], [LSTM, CNN], {"vote"}),
    "pro": Bought([1, 5, 15], [LSTM, CNN, XGBOOST], {"vote"}),
    "enterprise": Bought([1, 5, 15, 60], [LSTM, CNN, XGBOOST, ENSEMBLE], {"ensemble_meta", "vote"}),
}
COMPANIES = {"acme": "free", "bolt-2": "free", "crane_3": "pro", "delta": "enterprise", "Echo": "enterprise"}


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    # What is measured here is what comes, not how soon: a busy host shall expire nothing.
    settings = {"engine": {"deadline_ms": 10_000, "max_message_age_ms": 600_000}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


def streams_of(issuer: Issuer, name: str, seed: int) -> list[Stream]:
    return [
        Stream(company, f"{name}-{number}", issuer.token(company, tier), seed=seed + number)
        for company, tier in COMPANIES.items()
        for number in range(2)
    ]


def next_message(stream: Stream, count: int, first: int, history: int = 0) -> bytes:
    stream.event_ns += STEP_NS
    vectors = [stream.vector(SYMBOLS[(first + index) % len(SYMBOLS)], history) for index in range(count)]
    for vector in vectors:
        vector.cross_asset.correlation_scores.extend([0.1 * n - 0.2 for n in range(UNIVERSE)])
    stream.message(vectors)
    envelope = stream.sent[stream.sequence]
    envelope.trace_context.correlation_id = envelope.correlation_id
    envelope.trace_context.traceparent = f"00-{stream.sequence:032x}-{stream.sequence:016x}-01"
    envelope.trace_context.tracestate = "tests=1"
    return envelope.SerializeToString()


async def send_all(url: str, streams: list[Stream]) -> Reader:
    """The whole load, open loop; returns once every stream's last heartbeat came back."""
    async with connected(url) as (client, reader):
        for stream in streams:
            await client.publish(stream.subject, next_message(stream, len(SYMBOLS), 0, history=240))
        await eventually(lambda: len(reader.answers) == len(streams), 30, "windows are full")
        rate = LARGE_PER_S + SMALL_PER_S
        large_every = rate / LARGE_PER_S
        larges = 0
        async for index in paced(rate, rate * SECONDS):
            stream = streams[index % len(streams)]
            is_large = index >= larges * large_every
            larges += is_large
            count = LARGE_VECTORS if is_large else SMALL_VECTORS
            await client.publish(stream.subject, next_message(stream, count, index // len(streams)))
            if index % HEARTBEAT_EVERY == 0:
                await client.publish(stream.subject, stream.heartbeat())
        for stream in streams:
            await client.publish(stream.subject, stream.heartbeat())
        await client.flush()
        last = {(stream.company, stream.stream): stream.sequence + 1 for stream in streams}
        await eventually(
            lambda: all(reader.by_stream[name][-1].envelope.sequence == end for name, end in last.items()),
            60,
            "each stream's last heartbeat comes back",
        )
        return reader


def assert_envelope(answer: Answer, stream: Stream, engine: str) -> None:
    envelope, sent = answer.envelope, stream.sent[answer.envelope.sequence]
    assert answer.subject == f"ml.v1.predictions.{stream.company}.{stream.stream}"
    assert answer.name == f"{engine}/{stream.company}/{stream.stream}/{stream.epoch}/{envelope.sequence}"
    assert (envelope.message_type, envelope.service_source, envelope.epoch) == ("ml_inference", engine, stream.epoch)
    assert (envelope.company_id, envelope.user_id) == (stream.company, stream.user)
    assert envelope.auth_token.jwt == ""
    assert envelope.correlation_id == sent.correlation_id
    assert envelope.trace_context == sent.trace_context
    assert sent.timestamp <= envelope.timestamp
    batch = answer.batch
    assert (batch.user_id, batch.company_id, batch.correlation_id) == (
        stream.user,
        stream.company,
        sent.correlation_id,
    )
    assert (batch.source_id, batch.source_epoch, batch.source_sequence) == (
        stream.stream,
        stream.epoch,
        envelope.sequence,
    )
    assert not batch.late
    assert envelope.model_info == batch.predictions[0].model_info
    assert batch.performance_metrics.engine_time_ms > 0
    assert batch.performance_metrics.inference_time_ms > 0
    vectors = vectors_of(sent)
    assert [(each.symbol, each.timestamp_ns) for each in batch.predictions] == [
        (each.symbol, each.timestamp_ns) for each in vectors
    ]
    for prediction, vector in zip(batch.predictions, vectors, strict=True):
        mid = 0.5 * (vector.price_features.bid + vector.price_features.ask)
        assert_prediction(prediction, TIERS[COMPANIES[stream.company]], mid)


def assert_prediction(prediction: Prediction, bought: Bought, mid: float) -> None:
    """All that the contract promises of a prediction whose windows are full."""
    price, ensemble = prediction.price, prediction.ensemble
    horizons = price.horizon_predictions
    assert [each.horizon_minutes for each in horizons] == bought.horizons
    assert price.base_price == mid
    for each in horizons:
        assert 0 < each.lower_price <= each.predicted_price <= each.upper_price
        assert 0.5 <= each.confidence <= 1
        assert each.direction in (1, 3)
    assert struct.pack("d", prediction.predicted_value) == struct.pack("d", horizons[0].predicted_price)
    assert prediction.confidence == ensemble.confidence
    assert 0 < ensemble.confidence <= 1
    assert -1 <= ensemble.score <= 1
    assert prediction.model_info.kind == ENSEMBLE
    assert prediction.model_info.model_id in bought.finals
    assert [member.model.kind for member in ensemble.contributions] == bought.members
    assert sum(member.weight for member in ensemble.contributions) == pytest.approx(1, abs=1e-5)
    models = [member.model for member in ensemble.contributions if member.model.model_id not in ("vote", "baseline")]
    assert all(len(model.sha256) == 64 for model in models)
    stood_in = any(member.fallback for member in ensemble.contributions)
    assert prediction.status == (DEGRADED if stood_in else OK)
    if ENSEMBLE in bought.members:
        assert ensemble.contributions[-1].model == prediction.model_info
        assert ensemble.contributions[-1].fallback == (prediction.model_info.model_id != "ensemble_meta")
    assert prediction.reason in ("", "flagged: unfamiliar")
    assert prediction.window_gaps == 0
    assert prediction.trend.direction in (1, 2, 3)
    assert 0 <= prediction.trend.strength <= 1
    assert prediction.HasField("pattern")
    assert all(each.probability > 0.3 for each in prediction.pattern.detected_patterns)
    assert_direction(prediction, XGBOOST in bought.members)


def assert_direction(prediction: Prediction, is_bought: bool) -> None:
    assert prediction.HasField("direction") == is_bought
    if not is_bought:
        return
    direction = prediction.direction
    chances = {1: direction.sell_probability, 2: direction.hold_probability, 3: direction.buy_probability}
    assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
    assert direction.confidence == max(chances.values())
    assert chances[direction.primary_direction] == direction.confidence
    names = [each.feature for each in direction.feature_importance]
    assert len(names) == len(set(names)) > 1
    assert names[-1] == "bias"


def assert_order(reader: Reader, stream: Stream) -> None:
    """Every message once, in the order of sending, and each heartbeat behind what came before it."""
    sequences = [answer.envelope.sequence for answer in reader.named(stream)]
    assert sequences == list(range(1, stream.sequence + 1))
    next_sequence = 1
    for answer in reader.by_stream[stream.company, stream.stream]:
        if answer.envelope.message_type == "heartbeat":
            assert answer.name == ""
            assert answer.envelope.sequence == next_sequence
        else:
            next_sequence = answer.envelope.sequence + 1


def print_percentiles(reader: Reader) -> None:
    times = sorted(answer.batch.performance_metrics.engine_time_ms for answer in reader.answers if answer.name)
    shown = {share: times[int(share / 100 * (len(times) - 1))] for share in (50, 90, 99, 99.9)}
    print(f"engine_time_ms of {len(times)} answers: " + ", ".join(f"p{s} {ms:.2f}" for s, ms in shown.items()))


@pytest.mark.timeout(180)
def test_each_vector_is_answered_once_in_order_with_what_its_tier_has(engine, nats_url, issuer, chance):
    accepted_before = engine.metric("tickpath_inputs_accepted_total")
    streams = streams_of(issuer, "feed", chance.randrange(10**6))
    reader = asyncio.run(send_all(nats_url, streams))
    sent = sum(stream.sequence for stream in streams)
    vectors = sum(len(vectors_of(envelope)) for stream in streams for envelope in stream.sent.values())
    assert vectors >= 1000 * SECONDS
    for stream in streams:
        assert_order(reader, stream)
        for answer in reader.named(stream):
            assert_envelope(answer, stream, engine.name)
    assert reader.reports == []
    assert len(reader.by_stream) == len(streams)
    assert engine.metric("tickpath_inputs_accepted_total") - accepted_before == sent
    assert engine.metric("tickpath_dropped_total") == 0
    assert engine.metric("tickpath_missing_total") == 0
    print_percentiles(reader)
    print(f"{sent} messages, {vectors} vectors; {Counter(answer.envelope.message_type for answer in reader.answers)}")


async def same_vectors_with_and_without_scores(url: str, stream: Stream) -> tuple[Prediction, Prediction]:
    async with connected(url) as (client, reader):
        await client.publish(stream.subject, stream.message([stream.vector("EURUSD", 240)]))
        stream.event_ns += STEP_NS
        plain = stream.vector("EURUSD")
        scored = FeatureVector()
        scored.CopyFrom(plain)
        scored.timestamp_ns += 1
        scored.cross_asset.correlation_scores.extend([0.9, -0.9, 0.7])
        await client.publish(stream.subject, stream.message([plain, scored]))
        await eventually(lambda: len(reader.named(stream)) == 2, 10, "both are answered")
        first, second = reader.named(stream)[1].batch.predictions
        return first, second


@pytest.mark.parametrize("company", ["crane_3", "delta"])
def test_cross_asset_scores_reach_the_direction_of_tiers_that_bought_them(engine, nats_url, issuer, company):
    stream = Stream(company, "scores", issuer.token(company, COMPANIES[company]), seed=7)
    plain, scored = asyncio.run(same_vectors_with_and_without_scores(nats_url, stream))
    assert plain.direction.feature_importance != scored.direction.feature_importance
    assert plain.price == scored.price


def test_cross_asset_scores_change_nothing_for_the_free_tier(engine, nats_url, issuer):
    stream = Stream("acme", "scores", issuer.token("acme", "free"), seed=7)
    plain, scored = asyncio.run(same_vectors_with_and_without_scores(nats_url, stream))
    scored.timestamp_ns = plain.timestamp_ns
    scored.pattern.analysis_timestamp_ns = plain.pattern.analysis_timestamp_ns
    assert plain == scored

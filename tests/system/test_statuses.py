"""Every status of a prediction, every code of one vector and every flag, over the wire and whole."""

import asyncio
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import Rejection
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.ml.ml_predictions_pb2 import DEGRADED, EXPIRED, OK, REJECTED, WARMING, Prediction
from tests.system.servers import ROOT, EngineProcess, Issuer, nats_server
from tests.system.traffic import SYMBOLS, Answer, Stream, connected, eventually

MINUTE_NS = 60 * 10**9
CORRELATIONS, HISTORY, EXTRA = 8, 240, 4


def without_direction(folder: Path) -> Path:
    """A model store in which nothing but a baseline can answer for the direction."""
    store = folder / "models"
    for name in ("basic_lstm", "simple_pattern"):
        shutil.copytree(ROOT / "models" / name, store / name)
    return store


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    settings = {
        "engine": {"deadline_ms": 10_000, "symbols": list(SYMBOLS)},
        "limits": {"correlations": CORRELATIONS, "extra": EXTRA},
        "models": {"path": str(without_direction(folder))},
    }
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


async def answers_to(url: str, stream: Stream, bodies: list[bytes]) -> list[Answer]:
    async with connected(url) as (client, reader):
        for body in bodies:
            await client.publish(stream.subject, body)
        await eventually(lambda: len(reader.named(stream)) == len(bodies), 15, "everything is answered")
        assert reader.reports == []
        return reader.named(stream)


def warm(stream: Stream, symbols: tuple[str, ...] = ("EURUSD",)) -> bytes:
    return stream.message([stream.vector(symbol, 240) for symbol in symbols])


def later(stream: Stream) -> FeatureVector:
    """The next minute's vector."""
    stream.event_ns += MINUTE_NS
    return stream.vector("EURUSD")


def set_price(**values: float) -> Callable[[FeatureVector], None]:
    def change(vector: FeatureVector) -> None:
        for name, value in values.items():
            setattr(vector.price_features, name, value)

    return change


def scale_bid(bp: float) -> Callable[[FeatureVector], None]:
    """A bid above its ask by so many basis points of their mid."""

    def change(vector: FeatureVector) -> None:
        mid = 0.5 * (vector.price_features.bid + vector.price_features.ask)
        set_price(bid=mid * (1 + bp / 2e4), ask=mid * (1 - bp / 2e4))(vector)

    return change


def set_trend(**values: float) -> Callable[[FeatureVector], None]:
    def change(vector: FeatureVector) -> None:
        for name, value in values.items():
            setattr(vector.technical_indicators.trend, name, value)

    return change


NON_FINITE = "non_finite: every number must be finite; leave an unknown indicator out"
OUT_OF_RANGE = "out_of_range: a price, indicator, count or event time lies outside the contract's limits"
UNKNOWN = "unknown_symbol: the symbol is not among those that this engine answers"
NAN, INFINITY = math.nan, math.inf

REJECTED_VECTORS: dict[str, tuple[Callable[[FeatureVector], object], str]] = {
    "unknown symbol": (lambda vector: setattr(vector, "symbol", "BTCUSD"), UNKNOWN),
    "bid NaN": (set_price(bid=NAN), NON_FINITE),
    "ask infinite": (set_price(ask=INFINITY), NON_FINITE),
    "mid NaN": (set_price(mid_price=NAN), NON_FINITE),
    "spread infinite": (set_price(spread=-INFINITY), NON_FINITE),
    "indicator NaN": (set_trend(ema_12=NAN), NON_FINITE),
    "score NaN": (lambda vector: vector.cross_asset.correlation_scores.append(NAN), NON_FINITE),
    "history infinite": (lambda vector: vector.price_history.mid_prices.append(INFINITY), NON_FINITE),
    "extra NaN": (lambda vector: vector.extra.append(NAN), NON_FINITE),
    "event time before all": (lambda vector: setattr(vector, "timestamp_ns", 0), OUT_OF_RANGE),
    "event time in the future": (
        lambda vector: setattr(vector, "timestamp_ns", time.time_ns() + 62 * 10**9),
        OUT_OF_RANGE,
    ),
    "no bid": (set_price(bid=0.0), OUT_OF_RANGE),
    "negative ask": (set_price(ask=-1.0), OUT_OF_RANGE),
    "absurd price": (set_price(bid=2e12, ask=2e12), OUT_OF_RANGE),
    "crossed by 6 bp": (scale_bid(6.0), OUT_OF_RANGE),
    "negative average": (set_trend(sma_20=-0.1), OUT_OF_RANGE),
    "strength over 100": (
        lambda vector: setattr(vector.technical_indicators.momentum, "rsi_14", 100.5),
        OUT_OF_RANGE,
    ),
    "negative range": (lambda vector: setattr(vector.technical_indicators.volatility, "atr", -1e-9), OUT_OF_RANGE),
    "score over one": (lambda vector: vector.cross_asset.correlation_scores.append(1.1), OUT_OF_RANGE),
    "too many scores": (
        lambda vector: vector.cross_asset.correlation_scores.extend([0.0] * (CORRELATIONS + 1)),
        OUT_OF_RANGE,
    ),
    "too much history": (lambda vector: vector.price_history.mid_prices.extend([1.0] * (HISTORY + 1)), OUT_OF_RANGE),
    "negative history": (lambda vector: vector.price_history.mid_prices.append(-1.0), OUT_OF_RANGE),
    "too many extras": (lambda vector: vector.extra.extend([0.0] * (EXTRA + 1)), OUT_OF_RANGE),
}


def test_a_bad_vector_is_rejected_alone_and_leaves_its_window_alone(engine, nats_url, issuer):
    """All of them in two messages beside a good vector each, and the same good ones without them."""
    disturbed, plain = (Stream(f"vectors-{n}", "feed", issuer.token(f"vectors-{n}", "free"), seed=3) for n in (0, 1))
    bodies, expected = [warm(disturbed)], []
    names = list(REJECTED_VECTORS)
    for part in (names[:12], names[12:]):
        vectors = [later(disturbed)]
        for number, name in enumerate(part):
            bad = FeatureVector()
            bad.CopyFrom(vectors[0])
            bad.timestamp_ns += 1 + number
            REJECTED_VECTORS[name][0](bad)
            vectors.append(bad)
            reason = REJECTED_VECTORS[name][1]
            expected.append(
                Prediction(symbol=bad.symbol, timestamp_ns=bad.timestamp_ns, status=REJECTED, reason=reason)
            )
        bodies.append(disturbed.message(vectors))
    bodies.append(disturbed.message([later(disturbed)]))
    answers = asyncio.run(answers_to(nats_url, disturbed, bodies))
    found = [prediction for answer in answers[1:3] for prediction in answer.batch.predictions[1:]]
    for name, expected_one, found_one in zip(names, expected, found, strict=True):
        assert found_one == expected_one, name
    good = [answer.batch.predictions[0] for answer in answers]
    assert [each.status for each in good] == [OK] * 4
    twin_bodies = [warm(plain), *(plain.message([later(plain)]) for _ in range(3))]
    twin = asyncio.run(answers_to(nats_url, plain, twin_bodies))
    assert good == [answer.batch.predictions[0] for answer in twin]


def test_flags_stand_in_the_reason_of_a_prediction(engine, nats_url, issuer):
    stream = Stream("flags", "feed", issuer.token("flags", "free"))
    bodies = [warm(stream)]
    crossed, same = later(stream), FeatureVector()
    scale_bid(3.0)(crossed)
    same.CopyFrom(crossed)
    bodies += [stream.message([crossed]), stream.message([same])]
    stream.sequence += 2
    bodies.append(stream.message([later(stream)]))
    both = later(stream)
    scale_bid(3.0)(both)
    bodies.append(stream.message([both]))
    answers = asyncio.run(answers_to(nats_url, stream, bodies))
    predictions = [answer.batch.predictions[0] for answer in answers]
    assert [each.status for each in predictions] == [OK] * 5
    assert [each.reason for each in predictions] == [
        "",
        "flagged: crossed",
        "flagged: crossed, old",
        "flagged: gap",
        "flagged: crossed, gap",
    ]
    assert [each.window_gaps for each in predictions] == [0, 0, 0, 2, 2]
    assert all(each.HasField("price") for each in predictions)


def test_a_market_beyond_all_that_training_saw_is_flagged_unfamiliar(engine, nats_url, issuer):
    stream = Stream("unfamiliar", "feed", issuer.token("unfamiliar", "free"))
    vector = stream.vector("EURUSD", 240)
    for number in range(0, 240, 2):
        vector.price_history.mid_prices[number] *= 2
    (answer,) = asyncio.run(answers_to(nats_url, stream, [stream.message([vector])]))
    prediction = answer.batch.predictions[0]
    assert (prediction.status, prediction.reason) == (OK, "flagged: unfamiliar")


def test_a_message_of_long_ago_is_answered_expired_and_enters_its_windows(engine, nats_url, issuer):
    late, plain = (Stream(f"age-{n}", "feed", issuer.token(f"age-{n}", "free"), seed=5) for n in (0, 1))
    old = late.message([late.vector("EURUSD", 240)], timestamp=time.time_ns() - 11 * 10**9)
    event_ns = late.event_ns
    answers = asyncio.run(answers_to(nats_url, late, [old, late.message([later(late)])]))
    assert list(answers[0].batch.predictions) == [Prediction(symbol="EURUSD", timestamp_ns=event_ns, status=EXPIRED)]
    assert answers[0].subject == "ml.v1.predictions.age-0.feed"
    assert answers[0].envelope.message_type == "ml_inference"
    assert not answers[0].envelope.HasField("model_info")
    twin = asyncio.run(answers_to(nats_url, plain, [warm(plain), plain.message([later(plain)])]))
    found, expected = answers[1].batch.predictions[0], twin[1].batch.predictions[0]
    assert (found.status, found.trend, found.pattern) == (OK, expected.trend, expected.pattern)
    medians = [each.predicted_price for each in found.price.horizon_predictions]
    assert medians == [each.predicted_price for each in expected.price.horizon_predictions]


def test_windows_warm_until_every_model_of_the_tier_has_its_minutes(engine, nats_url, issuer):
    """The LSTM answers from its 49th closed minute on, the CNN from its 64th."""
    stream = Stream("warming", "feed", issuer.token("warming", "free"))
    bodies = [stream.message([stream.vector("EURUSD")])] + [stream.message([later(stream)]) for _ in range(66)]
    answers = asyncio.run(answers_to(nats_url, stream, bodies))
    predictions = [answer.batch.predictions[0] for answer in answers]
    members = [[each.model.model_id for each in prediction.ensemble.contributions] for prediction in predictions]
    assert [each.status for each in predictions] == [WARMING] * 64 + [OK] * 3
    assert members == [[]] * 49 + [["basic_lstm"]] * 15 + [["basic_lstm", "simple_pattern"]] * 3
    assert [each.model_info.model_id for each in predictions] == ["baseline"] * 49 + ["vote"] * 18
    for prediction in predictions[:49]:
        (horizon,) = prediction.price.horizon_predictions
        assert horizon.predicted_price == prediction.price.base_price == prediction.predicted_value
        assert horizon.confidence == 0.5
        assert not prediction.HasField("pattern")
    # Before a model answers, the few minutes there are may look like nothing that it was trained on.
    assert all(each.reason in ("", "flagged: unfamiliar") for each in predictions[:49])
    assert all(each.reason == "" for each in predictions[49:])


@pytest.mark.parametrize("tier", ["pro", "enterprise"])
def test_a_missing_model_is_stood_in_for_and_the_answer_says_so(engine, nats_url, issuer, tier):
    stream = Stream(f"degraded-{tier}", "feed", issuer.token(f"degraded-{tier}", tier))
    (answer,) = asyncio.run(answers_to(nats_url, stream, [warm(stream)]))
    prediction = answer.batch.predictions[0]
    assert (prediction.status, prediction.reason) == (DEGRADED, "")
    found = [(each.model.model_id, each.fallback, each.weight > 0) for each in prediction.ensemble.contributions]
    members = [("basic_lstm", True, True), ("simple_pattern", True, True), ("baseline", True, False)]
    assert found == members + ([("vote", True, False)] if tier == "enterprise" else [])
    direction = prediction.direction
    chances = (direction.sell_probability, direction.hold_probability, direction.buy_probability)
    assert chances == pytest.approx((0.3, 0.4, 0.3))
    assert direction.primary_direction == 2
    assert list(direction.feature_importance) == []


def test_more_than_a_company_may_have_waiting_is_overloaded_then_dropped_and_counted(folder, issuer):
    settings = {
        "engine": {"max_batch": 1, "requests_slots": 256, "deadline_ms": 30_000},
        "limits": {"queue": 1},
    }
    stream = Stream("crowd", "feed", issuer.token("crowd", "free"))
    count = 2000

    async def burst(engine: EngineProcess, url: str) -> list[Answer]:
        async with connected(url) as (client, reader):
            for _ in range(count):
                stream.event_ns += 10**9
                await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
            await client.publish(stream.subject, stream.heartbeat())
            await client.flush()
            await eventually(lambda: engine.metric("tickpath_messages_total") >= count, 30, "all came")
            dropped = int(engine.metric("tickpath_dropped_total"))
            await eventually(lambda: len(reader.named(stream)) >= count - dropped, 30, "the rest is answered")
            assert reader.reports == []
            return reader.named(stream)

    with nats_server() as url, EngineProcess(folder, issuer, url, settings=settings) as engine:
        engine.wait_ready()
        answers = asyncio.run(burst(engine, url))
        dropped, overloaded = (int(engine.metric(f"tickpath_{name}_total")) for name in ("dropped", "overloaded"))
        assert engine.stop() == 0
    sequences = [answer.envelope.sequence for answer in answers]
    assert sequences == sorted(set(sequences))
    assert len(answers) + dropped in (count, count + 1)  # the heartbeat may have been dropped as well
    refused = [answer for answer in answers if answer.envelope.message_type == "ml_rejection"]
    print(f"{count} sent at once: {Counter(each.envelope.message_type for each in answers)}, {dropped} dropped")
    assert len(refused) == overloaded > 0
    assert len(refused) < len(answers)
    for answer in refused:
        assert answer.subject == "ml.v1.rejections.crowd.feed"
        assert answer.rejection == Rejection(
            code="overloaded",
            detail="more was sent than this engine answers in time; send less or later",
            source_id="feed",
            source_epoch=stream.epoch,
            source_sequence=answer.envelope.sequence,
            company_id="crowd",
            verified=True,
        )

"""A step is a minute of event time: how often a vector comes within it changes no closed minute."""

import asyncio
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.ml.ml_predictions_pb2 import OK, WARMING, Prediction
from tests.system.servers import EngineProcess, Issuer
from tests.system.traffic import MINUTE_NS, Stream, connected, eventually

TENTH_NS = 10**8
A_MINUTE = 600  # vectors, at ten a second
BATCH = 60
HISTORY = 70  # minutes: enough for every model
MINUTES = 8
START_MINUTE = 29_000_000


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    settings = {"engine": {"deadline_ms": 60_000, "max_message_age_ms": 600_000}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


def vector(event_ns: int, mid: float, history: list[float] | None = None) -> FeatureVector:
    made = FeatureVector(symbol="EURUSD", timestamp_ns=event_ns)
    made.price_features.bid, made.price_features.ask = mid * (1 - 2e-5), mid * (1 + 2e-5)
    made.price_history.mid_prices.extend(history or [])
    return made


def walk(chance: random.Random, mid: float, count: int, sd: float) -> list[float]:
    path = []
    for _ in range(count):
        mid *= math.exp(chance.gauss(0, sd))
        path.append(mid)
    return path


def tenths(chance: random.Random, minutes: list[int]) -> list[FeatureVector]:
    """Ten vectors a second in each of these minutes (from 0 on), the first one with a history."""
    history = walk(chance, 1.1, HISTORY, 1e-4)
    mids = iter(walk(chance, history[-1], A_MINUTE * len(minutes), 1e-5))
    found = [
        vector((START_MINUTE + minute) * MINUTE_NS + number * TENTH_NS, next(mids))
        for minute in minutes
        for number in range(A_MINUTE)
    ]
    found[0].price_history.mid_prices.extend(history)
    return found


def lasts(vectors: list[FeatureVector]) -> list[FeatureVector]:
    """The last one of each minute, with the history of the first."""
    by_minute = {each.timestamp_ns // MINUTE_NS: each for each in vectors}
    found = []
    for each in by_minute.values():
        copy = FeatureVector()
        copy.CopyFrom(each)
        found.append(copy)
    del found[0].price_history.mid_prices[:]
    found[0].price_history.mid_prices.extend(vectors[0].price_history.mid_prices)
    return found


async def predictions_of(url: str, stream: Stream, vectors: list[FeatureVector], batch: int) -> dict[int, Prediction]:
    """By event time."""
    async with connected(url) as (client, reader):
        for first in range(0, len(vectors), batch):
            await client.publish(stream.subject, stream.message(vectors[first : first + batch]))
            await eventually(lambda: len(reader.named(stream)) >= stream.sequence - 4, 30, "the engine keeps up")
        await eventually(lambda: len(reader.named(stream)) == stream.sequence, 30, "everything is answered")
        return {each.timestamp_ns: each for answer in reader.named(stream) for each in answer.batch.predictions}


def both_ways(
    url: str, issuer: Issuer, name: str, tier: str, vectors: list[FeatureVector]
) -> tuple[dict[int, Prediction], dict[int, Prediction]]:
    often, seldom = (Stream(name, feed, issuer.token(name, tier)) for feed in ("often", "seldom"))
    return (
        asyncio.run(predictions_of(url, often, vectors, BATCH)),
        asyncio.run(predictions_of(url, seldom, lasts(vectors), 1)),
    )


@pytest.mark.parametrize("tier", ["free", "enterprise"])
def test_one_vector_a_minute_and_ten_a_second_close_the_same_minutes(engine, nats_url, issuer, chance, tier):
    """At a minute's last mid both streams know the same, so they are told the same, to the bit."""
    often, seldom = both_ways(nats_url, issuer, f"minutes-{tier}", tier, tenths(chance, list(range(MINUTES))))
    assert len(often) == MINUTES * A_MINUTE
    assert len(seldom) == MINUTES
    assert all(each.status != WARMING for each in often.values())
    for event_ns, expected in seldom.items():
        assert often[event_ns] == expected
    between = {each.predicted_value for each in often.values()}
    assert len(between) > MINUTES * A_MINUTE / 2, "within a minute predictions follow the open mid"


def test_empty_minutes_and_holes_are_the_same_at_either_rate(engine, nats_url, issuer, chance):
    """Minutes 2 and 3 are empty; 6 to 17 are a hole, which is one masked step."""
    minutes = [0, 1, 4, 5, 18, 19]
    often, seldom = both_ways(nats_url, issuer, "holes", "enterprise", tenths(chance, minutes))
    for event_ns, expected in seldom.items():
        assert often[event_ns] == expected


def test_fifty_steps_are_fifty_minutes_whatever_the_rate(engine, nats_url, issuer, chance):
    """A cold stream at ten vectors a minute warms no sooner than one at one a minute."""
    mids = walk(chance, 1.1, 660, 1e-4)
    vectors = [vector(START_MINUTE * MINUTE_NS + number * MINUTE_NS // 10, mid) for number, mid in enumerate(mids)]
    stream = Stream("cold", "feed", issuer.token("cold", "free"))
    found = asyncio.run(predictions_of(nats_url, stream, vectors, BATCH))
    for number, each in enumerate(found[each.timestamp_ns] for each in vectors):
        closed = number // 10
        assert each.status == (OK if closed >= 64 else WARMING), closed
        members = [member.model.kind for member in each.ensemble.contributions]
        assert len(members) == (closed >= 49) + (closed >= 64), closed

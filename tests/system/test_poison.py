"""An input that kills its worker: neighbours and other models answer; after a second death it is poison."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.ml_predictions_pb2 import DEGRADED, OK, REJECTED, Prediction
from tests.system.deadly.sitecustomize import HANG, IN_ANY, IN_ONE, ONE
from tests.system.servers import ROOT, EngineProcess, Issuer, until
from tests.system.traffic import MINUTE_NS, Answer, Reader, Stream, connected, eventually

POISON = "poison: this input crashed a worker and went to the dead letters"
HERE = ROOT / "tests" / "system" / "deadly"


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{HERE}:{ROOT}")
        with EngineProcess(folder, issuer, nats_url, settings={"engine": {"deadline_ms": 60_000}}) as running:
            yield running.wait_ready(90)
            assert running.stop() == 0, running.log()


@pytest.fixture(autouse=True)
def whole(engine: EngineProcess) -> None:
    """The worker and its spare."""

    def ready() -> bool:
        page = engine.get("/metrics")[1].decode()
        return len(re.findall(r'tickpath_process_state\{process="worker-\d",status="ready"\} 1\n', page)) == 2

    until(ready, 60, "worker and spare are ready")


class Letters:
    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []

    async def take(self, message) -> None:
        self.taken.append((message.subject, message.data))


def send(stream: Stream, mids: dict[str, float]) -> bytes:
    """One message: the next minute of each symbol, at about these prices."""
    stream.event_ns += MINUTE_NS
    vectors = []
    for symbol, mid in mids.items():
        cold = symbol not in stream.mids
        if cold or stream.mids[symbol] < mid / 2 or stream.mids[symbol] > 2 * mid:
            stream.mids[symbol] = mid
        vectors.append(stream.vector(symbol, 240 if cold else 0))
    return stream.message(vectors)


async def answered(reader: Reader, stream: Stream, count: int) -> list[Answer]:
    await eventually(lambda: len(reader.named(stream)) >= count, 90, f"{count} messages are answered")
    found = reader.named(stream)
    assert [each.envelope.sequence for each in found] == list(range(1, count + 1)), "once each and in order"
    return found


def fallbacks(prediction: Prediction) -> dict[str, bool]:
    return {each.model.model_id: each.fallback for each in prediction.ensemble.contributions}


async def until_well(
    engine: EngineProcess, client, reader: Reader, stream: Stream, mids: dict[str, float]
) -> Prediction:
    """Sends good vectors until every model is asked again by right."""
    for _ in range(600):
        await client.publish(stream.subject, send(stream, mids))
        last = (await answered(reader, stream, stream.sequence))[-1].batch.predictions[0]
        if last.status == OK and set(engine.health()["circuit_breakers"].values()) == {"closed"}:
            return last
        await asyncio.sleep(0.02)
    raise AssertionError("never OK again")


@pytest.mark.parametrize(("mid", "how"), [(IN_ONE, "ended with SIGSEGV"), (HANG, "while in_model, at most 500")])
def test_a_vector_that_kills_a_worker_in_one_model_is_answered_without_that_model(engine, issuer, nats_url, mid, how):
    company = f"one-{int(mid)}"
    stream = Stream(company, "feed", issuer.token(company))

    async def run() -> None:
        async with connected(nats_url) as (client, reader):
            letters = Letters()
            await client.subscribe("ml.v1.deadletter.>", cb=letters.take)
            good = {"EURUSD": 1.1, "GBPUSD": 1.3}
            await until_well(engine, client, reader, stream, good)
            before = stream.sequence
            # The deadly vector stands between two others of its message, and two more messages come with it.
            for _ in range(3):
                mids = {"EURUSD": 1.1, "DEADLY": 1.1 * mid, "GBPUSD": 1.3} if stream.sequence == before else good
                await client.publish(stream.subject, send(stream, mids))
            found = await answered(reader, stream, before + 3)
            for answer in found[before + 1 :]:  # what was not in hand goes by the breaker
                assert all(prediction.status in (OK, DEGRADED) for prediction in answer.batch.predictions)
            for prediction in found[before].batch.predictions:
                assert prediction.status == DEGRADED
                said = fallbacks(prediction)
                assert ONE not in said, "the model in hand is not asked"
                assert said["advanced_lstm"] is said["cnn_patterns"] is False, "the others are"
            last = await until_well(engine, client, reader, stream, good)
            assert fallbacks(last)[ONE] is False
            assert letters.taken == []

    deaths = engine.log().count(how)
    asyncio.run(run())
    assert engine.log().count(how) == deaths + 1
    assert "closed -> open: a worker died or hung in it" in engine.log()


def test_a_vector_that_kills_twice_is_answered_poison_once_and_its_bytes_go_to_the_dead_letters(
    engine, issuer, nats_url
):
    stream = Stream("poisoner", "feed", issuer.token("poisoner"))
    other = Stream("bystander", "feed", issuer.token("bystander"))
    poisoned, lost = engine.metric("tickpath_poisoned_total"), engine.metric("tickpath_dead_letters_total")

    async def run() -> None:
        async with connected(nats_url) as (client, reader):
            letters = Letters()
            await client.subscribe("ml.v1.deadletter.>", cb=letters.take)
            good = {"EURUSD": 1.1, "GBPUSD": 1.3}
            await client.publish(stream.subject, send(stream, good))
            await client.publish(other.subject, send(other, good))
            await answered(reader, other, 1)
            await client.publish(stream.subject, send(stream, {"EURUSD": 1.1, "DEADLY": 1.2 * IN_ANY, "GBPUSD": 1.3}))
            await client.publish(other.subject, send(other, good))
            await client.publish(stream.subject, send(stream, good))
            found = await answered(reader, stream, 3)
            await answered(reader, other, 2)
            first, deadly, last = found[1].batch.predictions
            assert (deadly.status, deadly.reason) == (REJECTED, POISON)
            assert not deadly.HasField("price")
            for neighbour in (first, last, *found[2].batch.predictions):
                assert neighbour.status in (OK, DEGRADED), neighbour
                assert neighbour.HasField("price")
            await eventually(lambda: letters.taken, 10, "the dead letter is there")
            ((subject, body),) = letters.taken
            assert subject == "ml.v1.deadletter.poisoner.feed"
            expected = MLProcessingEnvelope.FromString(stream.sent[2].SerializeToString())
            expected.ClearField("auth_token")
            assert body == expected.SerializeToString()
            assert stream.token.encode() not in body
            # The next vector of its key finds its window as it was: an input that is poison entered it.
            await until_well(engine, client, reader, stream, {"EURUSD": 1.1, "GBPUSD": 1.3})

    deaths = engine.log().count("ended with SIGSEGV")
    asyncio.run(run())
    assert engine.log().count("ended with SIGSEGV") == deaths + 2
    assert engine.metric("tickpath_poisoned_total") == poisoned + 1
    assert engine.metric("tickpath_dead_letters_total") == lost + 1

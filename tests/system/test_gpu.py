"""An engine that is told to use a GPU: on a host that has one, and on one that has none."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.contract.ml.ml_predictions_pb2 import OK
from engine.gpus import are_there, probed
from tests.system.servers import EngineProcess, Issuer, until
from tests.system.traffic import Answer, Stream, connected, eventually

GPUS = probed()[0] if are_there() else []


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    settings = {"engine": {"device": "cuda", "deadline_ms": 10_000}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        yield running.wait_ready()


async def answer_to(url: str, stream: Stream) -> Answer:
    body = stream.message([stream.vector("EURUSD", 240)])
    async with connected(url) as (client, reader):
        await client.publish(stream.subject, body)
        await eventually(lambda: reader.named(stream), 15, "it is answered")
        return reader.named(stream)[0]


@pytest.mark.skipif(are_there(), reason="this host has a GPU")
def test_without_its_gpu_an_engine_answers_on_the_processor_and_says_so(engine, issuer, nats_url) -> None:
    answer = asyncio.run(answer_to(nats_url, Stream("acme", "ticks", issuer.token("acme"))))
    assert [prediction.status for prediction in answer.batch.predictions] == [OK]
    health = engine.health()
    assert (health["status"], health["gpu_memory"]) == ("degraded", [])
    assert "a GPU is not there for models: there is no GPU here" in engine.log()
    told = "worker-0 runs its models on the processor: its GPU is away"
    until(lambda: told in engine.log(), 5, "the log says so")
    assert engine.metric("tickpath_gpu_away") >= 1


@pytest.mark.skipif(not GPUS, reason="no GPU here that models can run on")
def test_with_a_gpu_an_engine_answers_and_tells_of_its_memory(engine, issuer, nats_url) -> None:
    answer = asyncio.run(answer_to(nats_url, Stream("acme", "ticks", issuer.token("acme"))))
    assert [prediction.status for prediction in answer.batch.predictions] == [OK]
    until(lambda: engine.health()["status"] == "healthy", 60, "the spare has loaded, too")
    health = engine.health()
    assert len(health["gpu_memory"]) >= len(GPUS)
    assert f"2 of 2 graphs run on GPU {GPUS[0]}" in engine.log()
    assert engine.metric("tickpath_gpu_away") == 0

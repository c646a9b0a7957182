"""`top` beside a real engine: what it says of stages is what the slots' stamps say."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.scrape import Samples, parse
from engine.cli.top import FAMILY
from tests.system.servers import ROOT, EngineProcess, Issuer
from tests.system.traffic import MINUTE_NS, SYMBOLS, Stream, connected, eventually, paced

SINGLES, BATCHES = 60, 40
PARTS = ("ring_wait", "worker", "egress")


def total(samples: Samples, kind: str, stage: str) -> float:
    return sum(
        value for (name, labels), value in samples.items() if name == f"{FAMILY}_{kind}" and ("stage", stage) in labels
    )


async def send(url: str, engine: EngineProcess, stream: Stream, count: int, symbols: int) -> None:
    async with connected(url) as (client, reader):
        async for _ in paced(100, count):
            stream.event_ns += MINUTE_NS
            await client.publish(stream.subject, stream.message([stream.vector(each) for each in SYMBOLS[:symbols]]))
        await eventually(lambda: len(reader.named(stream)) >= count, 60, "every message is answered")
    await eventually(lambda: engine.metric("tickpath_inputs_bytes") == 0, 20, "every answer is confirmed")


def test_stages_add_up_to_the_total_of_each_input(folder: Path, issuer: Issuer, nats_url: str) -> None:
    settings = {"engine": {"deadline_ms": 5000}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as engine:
        engine.wait_ready()
        asyncio.run(send(nats_url, engine, Stream("acme", "singles", issuer.token("acme")), SINGLES, 1))
        samples = parse(engine.get("/metrics")[1].decode())
        assert {total(samples, "count", stage) for stage in ("ingress", "engine", *PARTS)} == {SINGLES}
        whole = total(samples, "sum", "engine")
        # With one vector a message a worker's wait is an input's, so these are three clocks of one way.
        assert sum(total(samples, "sum", stage) for stage in PARTS) == pytest.approx(whole, abs=1e-8)
        assert 0 < total(samples, "sum", "ingress") <= total(samples, "sum", "ring_wait")

        asyncio.run(send(nats_url, engine, Stream("acme", "batches", issuer.token("acme")), BATCHES, len(SYMBOLS)))
        command = [sys.executable, "-m", "engine", "top", "--json", "--every", "0.1", "--config", str(engine.config)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    assert (found["inputs"], found["seconds"]) == (SINGLES + BATCHES, 0.0)
    means = [each["mean_us"] for each in found["stages"]]
    assert sum(means) == pytest.approx(found["total"]["mean_us"])
    assert all(mean > 0 for mean in means), found

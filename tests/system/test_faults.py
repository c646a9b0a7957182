"""What the outside sees while something of the engine, or beside it, is broken; `/health` is true throughout."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import limits
from engine.contract.ml.ml_predictions_pb2 import DEGRADED
from tests.system.servers import ROOT, EngineProcess, Issuer, free_port, start_nats, until
from tests.system.test_life import assert_nothing_left, exists
from tests.system.traffic import MINUTE_NS, Reader, Stream, connected, eventually

WORKER_ROW = limits.FIXED_CHILDREN
SPENT = "died 5 times soon after its start; it is not started again"


class Bus:
    """A nats-server that can be stopped, frozen and started again on its port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.server = None

    def start(self) -> "Bus":
        self.server = start_nats(self.port)
        return self

    def stop(self) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGCONT)
        self.server.kill()
        self.server.wait()

    def signal(self, number: int) -> None:
        assert self.server is not None
        self.server.send_signal(number)


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    running = Bus().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, bus: Bus) -> Iterator[EngineProcess]:
    with EngineProcess(folder, issuer, bus.url, settings={"engine": {"deadline_ms": 10_000}}) as running:
        yield running.wait_ready()
        pids = running.children()
        assert running.stop() == 0, running.log()
        assert_nothing_left(running, pids)


def health(engine: EngineProcess) -> tuple[int, str]:
    code, _ = engine.get("/health")
    return code, engine.health().get("status", "")


async def answered(url: str, stream: Stream, count: int = 3, within_s: float = 15) -> Reader:
    """Sends so many of the stream's next vectors and waits until each is answered, once and in order."""
    async with connected(url) as (client, reader):
        first = stream.sequence + 1
        for _ in range(count):
            stream.event_ns += MINUTE_NS
            await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
        await eventually(lambda: len(reader.named(stream)) >= count, within_s, "each is answered")
        assert [answer.envelope.sequence for answer in reader.named(stream)] == list(range(first, first + count))
        return reader


def test_nats_away_and_back_is_told_and_survived_without_a_restart(engine, bus, issuer):
    stream = Stream("away", "feed", issuer.token("away", "free"))
    pids = engine.children()
    until(lambda: health(engine) == (200, "healthy"), 30, "healthy at first")
    asyncio.run(answered(bus.url, stream))
    bus.stop()
    gone_s = time.monotonic()
    until(lambda: health(engine) == (503, "unhealthy"), 5, "no bus is up")
    print(f"the loss is seen after {time.monotonic() - gone_s:.2f} s")
    assert engine.health()["buses"] == {"nats": "down"}
    assert engine.get("/v2/health/ready")[0] == 503
    assert engine.get("/v2/health/live")[0] == 200
    bus.start()
    back_s = time.monotonic()
    until(lambda: health(engine) == (200, "healthy"), 10, "healthy again")
    print(f"back after {time.monotonic() - back_s:.2f} s")
    assert engine.get("/v2/health/ready")[0] == 200
    asyncio.run(answered(bus.url, stream))
    assert engine.children() == pids


def test_a_server_that_says_nothing_any_more_is_noticed_by_pings(engine, bus, issuer):
    stream = Stream("half-open", "feed", issuer.token("half-open", "free"))
    pids = engine.children()
    until(lambda: health(engine) == (200, "healthy"), 30, "healthy at first")
    bus.signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    until(lambda: engine.health().get("buses") == {"nats": "down"}, 5, "the silence is noticed")
    print(f"noticed after {time.monotonic() - stopped_s:.2f} s")
    bus.signal(signal.SIGCONT)
    until(lambda: health(engine) == (200, "healthy"), 10, "healthy again")
    asyncio.run(answered(bus.url, stream))
    assert engine.children() == pids


def serving(engine: EngineProcess) -> str:
    """Name of the worker process that answered last: the one whose counter moved."""
    lines = engine.get("/metrics")[1].decode().splitlines()
    found = [line for line in lines if line.startswith("tickpath_predictions_total{") and not line.endswith(" 0")]
    counts = {line.split('process="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in found}
    return max(counts, key=counts.__getitem__)


def test_a_stopped_worker_is_killed_at_its_limit_and_what_it_had_is_answered(engine, bus, issuer):
    until(lambda: health(engine) == (200, "healthy"), 60, "the spare is ready, too")
    stream = Stream("stopped", "feed", issuer.token("stopped", "free"))
    asyncio.run(answered(bus.url, stream))
    name = serving(engine)
    before = engine.children()
    row = WORKER_ROW + int(name.removeprefix("worker-"))
    pid = before[f"worker-{row}"]
    os.kill(pid, signal.SIGSTOP)
    stopped_s = time.monotonic()
    asyncio.run(answered(bus.url, stream, within_s=10))
    print(f"answered {time.monotonic() - stopped_s:.2f} s after the worker was stopped")
    until(lambda: not exists(pid), 5, "the stopped one is gone")
    assert f'"message":"{name}: silent for ' in engine.log()
    until(lambda: health(engine) == (200, "healthy"), 60, "a new spare is ready")
    after = engine.children()
    assert set(after) == set(before)
    assert {seat for seat in before if before[seat] != after[seat]} == {f"worker-{row}"}


def test_a_worker_that_is_stopped_for_less_than_its_limit_goes_on_where_it_was(engine, bus, issuer):
    until(lambda: health(engine) == (200, "healthy"), 60, "healthy at first")
    stream = Stream("resumed", "feed", issuer.token("resumed", "free"))
    asyncio.run(answered(bus.url, stream))
    before = engine.children()
    pid = before[f"worker-{WORKER_ROW + int(serving(engine).removeprefix('worker-'))}"]

    async def stop_and_go_on() -> None:
        async with connected(bus.url) as (client, reader):
            os.kill(pid, signal.SIGSTOP)
            for _ in range(3):
                stream.event_ns += MINUTE_NS
                await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
            await client.flush()
            os.kill(pid, signal.SIGCONT)
            await eventually(lambda: len(reader.named(stream)) >= 3, 10, "each is answered")
            assert [answer.envelope.sequence for answer in reader.named(stream)] == [4, 5, 6]

    asyncio.run(stop_and_go_on())
    assert engine.children() == before


def test_a_process_that_dies_on_every_start_is_given_up_and_the_others_go_on(folder, issuer, nats_url):
    """The spare, killed by a fault of its own each time; the worker beside it goes on answering."""
    with EngineProcess(folder, issuer, nats_url) as engine:
        engine.wait_ready()
        stream = Stream("spent", "feed", issuer.token("spent", "free"))
        asyncio.run(answered(nats_url, stream))
        seat = f"worker-{WORKER_ROW + (serving(engine) == 'worker-0')}"  # the other one
        others = {name: pid for name, pid in engine.children().items() if name != seat}
        name = f"worker-{int(seat.removeprefix('worker-')) - WORKER_ROW}"
        killed: set[int] = set()

        def spent() -> bool:
            pid = engine.children().get(seat)
            if pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGSEGV)
            return f'"message":"{name} {SPENT}"' in engine.log()

        until(spent, 30, "it is given up")
        assert len(killed) in (5, 6)  # the first one may have been older than what counts
        until(lambda: health(engine) == (503, "unhealthy"), 3, "that is told")
        assert engine.get("/v2/health/live")[0] == 200
        asyncio.run(answered(nats_url, stream))
        assert engine.children() == others
        assert engine.stop() == 0
        assert_nothing_left(engine, others)


def test_an_ingress_that_cannot_open_its_bus_is_given_up_and_the_log_says_why(folder, issuer, nats_url):
    path = folder / "missing" / "bus"
    with EngineProcess(folder, issuer, nats_url, str(path), {"engine": {"drain_s": 1}}) as engine:
        until(lambda: f'"message":"ingress {SPENT}"' in engine.log(), 60, "ingress is given up")
        why = (
            f"bus.local.path: cannot listen at {path}: No such file or directory; its folder must exist and be writable"
        )
        assert why in engine.log()
        until(lambda: health(engine) == (503, "unhealthy"), 30, "that is told")
        assert engine.get("/v2/health/live")[0] == 200
        assert engine.get("/v2/health/ready")[0] == 503
        pids = engine.children()
        assert "control-2" in pids
        engine.stop()
        assert_nothing_left(engine, pids, str(path))


def test_a_model_whose_bytes_changed_is_left_out_and_its_fallback_answers(folder, issuer, nats_url):
    store = folder / "changed"
    shutil.copytree(ROOT / "models", store)
    (artefact,) = (store / "simple_pattern").glob("*/model.onnx")
    content = bytearray(artefact.read_bytes())
    content[len(content) // 2] ^= 1
    artefact.write_bytes(content)
    stream = Stream("changed", "feed", issuer.token("changed", "free"))
    with EngineProcess(folder, issuer, nats_url, settings={"models": {"path": str(store)}}) as engine:
        engine.wait_ready()

        async def one() -> Reader:
            async with connected(nats_url) as (client, reader):
                await client.publish(stream.subject, stream.message([stream.vector("EURUSD", 240)]))
                await eventually(lambda: reader.named(stream), 10, "it is answered")
                return reader

        (answer,) = asyncio.run(one()).named(stream)
        prediction = answer.batch.predictions[0]
        assert prediction.status == DEGRADED
        members = [(each.model.model_id, each.fallback) for each in prediction.ensemble.contributions]
        assert members == [("basic_lstm", False), ("baseline", True)]
        assert f"model simple_pattern {artefact.parent.name} is left out, its fallback answers: " in engine.log()
        assert "sha256" in engine.log()
        health = engine.health()
        assert (health["status"], health["model_simple_pattern"]["status"]) == ("degraded", "unhealthy")
        assert engine.stop() == 0

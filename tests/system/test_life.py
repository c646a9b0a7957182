"""How an engine starts, drains, is refused, and ends: real processes, real signals, nothing left behind."""

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.bus import frames
from tests.system.servers import ROOT, EngineProcess, Issuer, free_port, nats_server, start_nats, until
from tests.system.traffic import MINUTE_NS, SYMBOLS, Reader, Stream, connected, paced

LOAD_PER_S = 400
AT_ONCE_S = 5  # beside a drain of 60 s: killing and reaping five processes takes its time on a busy host
MIB = 1 << 20


def exists(pid: int) -> bool:
    """Whether a process of this id runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def sockets(path: str) -> list[str]:
    return [each for each in (path, f"{path}.out") if os.path.lexists(each)]


def names_held(name: str) -> bool:
    """Whether some process holds the engine's name: an abstract socket, as the kernel lists it."""
    return f"@tickpath/{name}\n" in Path("/proc/net/unix").read_text()


def assert_nothing_left(engine: EngineProcess, pids: dict[str, int], local_path: str = "", within_s: float = 1) -> None:
    until(lambda: not any(map(exists, pids.values())), within_s, f"all of {pids} are gone")
    until(lambda: not names_held(engine.name), within_s, "the name is free")
    assert list(engine.temporary.iterdir()) == []
    if local_path:
        assert sockets(local_path) == []


# -- draining ---------------------------------------------------------------------------------------


async def load_until_the_end(engine: EngineProcess, url: str, streams: list[Stream], number: int) -> tuple[Reader, int]:
    """An open loop of vectors; a signal in the midst of it. (What was answered, the exit status)."""
    assert engine.handle is not None
    async with connected(url) as (client, reader):
        signalled_at: dict[str, int] = {}
        async for index in paced(LOAD_PER_S, 20 * LOAD_PER_S):
            stream = streams[index % len(streams)]
            stream.event_ns += 10**9
            await client.publish(stream.subject, stream.message([stream.vector(SYMBOLS[index % 7])]))
            if index == 2 * LOAD_PER_S:
                await client.flush()
                signalled_at = {stream.company: stream.sequence for stream in streams}
                engine.handle.send_signal(number)
            if engine.handle.poll() is not None:
                break
        status = await asyncio.to_thread(engine.handle.wait, 20)
        await client.flush()
        for stream in streams:
            answered = [answer.envelope.sequence for answer in reader.named(stream)]
            assert answered == list(range(1, len(answered) + 1)), "answered in order, once, without a hole"
            assert len(answered) >= signalled_at[stream.company], "what the server had before the signal is answered"
            assert len(answered) < stream.sequence, "something was sent that was not taken any more"
        return reader, status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_drains_and_all_that_was_taken_is_answered(folder, issuer, number):
    streams = [Stream(f"drain-{n}", "feed", issuer.token(f"drain-{n}", "pro"), seed=n) for n in range(3)]
    settings = {"engine": {"deadline_ms": 10_000}}
    with nats_server() as url, EngineProcess(folder, issuer, url, settings=settings) as engine:
        engine.wait_ready()
        pids = engine.children()
        _, status = asyncio.run(load_until_the_end(engine, url, streams, number))
        assert status == 0, engine.log()
        assert '"message":"drained"' in engine.log()
        assert_nothing_left(engine, pids)


@dataclass
class Stuck:
    engine: EngineProcess
    local_path: str
    pids: dict[str, int]


@contextmanager
def undrainable(folder: Path, issuer: Issuer, drain_s: int) -> Iterator[Stuck]:
    """An engine with accepted input that no bus will ever confirm: NATS went away, nobody reads locally."""
    port = free_port()
    local_path = str(folder / f"bus-{port}")
    stream = Stream("stuck", "feed", issuer.token("stuck", "free"))
    server = start_nats(port)
    settings = {"engine": {"drain_s": drain_s}}
    with EngineProcess(folder, issuer, f"nats://127.0.0.1:{port}", local_path, settings) as engine:
        try:
            engine.wait_ready()
        finally:
            server.terminate()
            server.wait()
        until(lambda: engine.health().get("buses", {}).get("nats") == "down", 5, "the loss of NATS is seen")
        with socket.socket(socket.AF_UNIX) as producer:
            producer.connect(local_path)
            for _ in range(5):
                stream.event_ns += MINUTE_NS
                producer.sendall(frames.encode(stream.message([stream.vector("EURUSD")])))
            until(lambda: engine.metric("tickpath_inputs_accepted_total") == 5, 5, "all are accepted")
        yield Stuck(engine, local_path, engine.children())


def test_a_drain_that_no_bus_confirms_ends_at_its_limit_and_says_why(folder, issuer):
    with undrainable(folder, issuer, drain_s=2) as stuck:
        engine = stuck.engine
        assert engine.handle is not None
        begin_s = time.monotonic()
        engine.handle.send_signal(signal.SIGTERM)
        until(lambda: engine.get("/v2/health/ready")[0] == 503, 2, "not ready any more")
        assert (engine.get("/health")[0], engine.health()["status"]) == (503, "unhealthy")
        assert engine.get("/v2/health/live")[0] == 200
        assert engine.handle.wait(10) == 1
        took_s = time.monotonic() - begin_s
        assert 1.9 < took_s < 8  # the drain, then at most two seconds for the processes to end, on a busy host
        said = re.search(r'"message":"(drain: [^"]*)"', engine.log())
        assert said is not None, engine.log()
        assert re.fullmatch(r"drain: \d+ bytes of accepted input are not confirmed on any bus after 2 s", said.group(1))
        assert_nothing_left(engine, stuck.pids, stuck.local_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(folder, issuer, number):
    with undrainable(folder, issuer, drain_s=60) as stuck:
        engine = stuck.engine
        assert engine.handle is not None
        engine.handle.send_signal(number)
        until(lambda: '"message":"draining for at most 60 s"' in engine.log(), 5, "the drain begins")
        engine.handle.send_signal(number)
        begin_s = time.monotonic()
        assert engine.handle.wait(AT_ONCE_S) == 1
        print(f"ended {time.monotonic() - begin_s:.2f} s after the second signal")
        assert '"message":"second signal: ending at once"' in engine.log()
        assert_nothing_left(engine, stuck.pids, stuck.local_path)


# -- the supervisor ---------------------------------------------------------------------------------


def test_a_killed_supervisor_takes_everybody_with_it_and_a_new_engine_starts_at_once(folder, issuer, nats_url):
    local_path = str(folder / "bus-killed")
    with EngineProcess(folder, issuer, nats_url, local_path) as engine:
        engine.wait_ready()
        pids = engine.children()
        assert len(pids) == 6
        assert engine.handle is not None
        engine.handle.kill()
        killed_s = time.monotonic()
        engine.handle.wait()
        assert_nothing_left(engine, pids, local_path, within_s=1)
        print(f"all gone {1000 * (time.monotonic() - killed_s):.0f} ms after the supervisor")
        engine.start().wait_ready()
        assert engine.stop() == 0


def test_a_second_engine_of_the_same_name_is_refused(folder, issuer, nats_url):
    with EngineProcess(folder, issuer, nats_url) as engine:
        engine.wait_ready()
        second = run(engine.config)
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr == (
            f"run: engine.name: an engine named '{engine.name}' runs on this host already; "
            "end it or choose another name\n"
        )
        assert engine.get("/v2/health/ready")[0] == 200
        assert engine.stop() == 0


def run(config: Path, file_bytes_max: int = resource.RLIM_INFINITY) -> "subprocess.CompletedProcess[str]":
    """`engine run`, of which an error is expected."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

    return subprocess.run(
        [sys.executable, "-m", "engine", "run", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=limit,
    )


# -- memory -----------------------------------------------------------------------------------------

LARGEST = {
    "engine": {"workers": 16, "requests_slots": 65_536, "inputs_mb": 4096},
    "limits": {"keys_total": 65_536, "streams_total": 4096},
}
LARGEST_BYTES = 17 << 30


def memory_available() -> int:
    line = next(each for each in Path("/proc/meminfo").read_text().splitlines() if each.startswith("MemAvailable"))
    return int(line.split()[1]) << 10


@pytest.mark.skipif(memory_available() > LARGEST_BYTES, reason="this host has room for the largest settings there are")
def test_more_shared_memory_than_there_is_is_refused_with_need_and_have(folder, issuer, nats_url):
    engine = EngineProcess(folder, issuer, nats_url, settings=LARGEST)
    refused = run(engine.config)
    assert refused.returncode == 1
    said = re.fullmatch(
        r"run: shared memory: (\d+\.\d) MiB needed, (\d+\.\d) MiB available \(the smaller of MemAvailable and the "
        r"control group's limit less its use\): free memory, raise the limit, or configure smaller rings and windows\n",
        refused.stderr,
    )
    assert said is not None, refused.stderr
    assert float(said.group(1)) > float(said.group(2)) > 0


def test_shared_memory_that_the_system_refuses_is_told_with_need_and_have(folder, issuer, nats_url):
    engine = EngineProcess(folder, issuer, nats_url)
    refused = run(engine.config, file_bytes_max=64 * MIB)
    assert refused.returncode == 1
    said = re.fullmatch(
        r"run: shared memory: (\d+\.\d) MiB refused by the system \(File too large\) though (\d+\.\d) MiB were "
        r"available: free memory or raise the limit\n",
        refused.stderr,
    )
    assert said is not None, refused.stderr
    assert float(said.group(1)) > 64


# -- models -----------------------------------------------------------------------------------------


def test_an_empty_model_store_is_refused(folder, issuer, nats_url):
    empty = folder / "no-models"
    empty.mkdir()
    engine = EngineProcess(folder, issuer, nats_url, settings={"models": {"path": str(empty)}})
    refused = run(engine.config)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"run: {empty}: expected at least one model, found none; set `models.path` or restore the bundled `models`\n"
    )

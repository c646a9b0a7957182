"""More work than the engine can do: queues stay bounded, memory flat, and it is over when it is over."""

import asyncio
import contextlib
import time
from collections import Counter
from pathlib import Path

from engine.contract.ml.ml_predictions_pb2 import PredictionStatus
from tests.system.servers import EngineProcess, Issuer, nats_server
from tests.system.traffic import MINUTE_NS, Answer, Reader, Stream, connected, eventually, paced

QUIET_PER_S, QUIET_S = 50, 4
VECTORS = 64  # of each of the hog's messages
BURSTS_PER_S, BURST = 20, 20  # of so many messages: many times the vectors that one worker answers one by one
GROWTH_BYTES_MAX = 48 << 20


def private_bytes(pids: dict[str, int]) -> int:
    """Memory that is nobody else's, of all these processes together."""
    found = 0
    for pid in pids.values():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                found += int(line.split()[1]) << 10
    return found


def p99(answers: list[Answer]) -> float:
    """Of the engine's own time on an input, from its receipt to its encoding, in milliseconds."""
    times = sorted(answer.batch.performance_metrics.engine_time_ms for answer in answers)
    return times[int(0.99 * (len(times) - 1))]


async def quietly(client, reader: Reader, stream: Stream) -> list[Answer]:
    """Open loop at a modest rate; the answers to just these."""
    begin = len(reader.named(stream))
    async for _ in paced(QUIET_PER_S, QUIET_PER_S * QUIET_S):
        stream.event_ns += MINUTE_NS
        await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
    await eventually(lambda: len(reader.named(stream)) >= stream.sequence, 60, "each quiet vector is answered")
    return reader.named(stream)[begin:]


async def flood(client, stream: Stream) -> None:
    """As much as ten others together, and more, until it is cancelled."""
    symbols = [f"HOG{n}" for n in range(VECTORS)]
    async for _ in paced(BURSTS_PER_S, 1 << 40):
        stream.event_ns += MINUTE_NS
        vectors = [stream.vector(symbol) for symbol in symbols]  # costs more than sending them
        for _ in range(BURST):
            await client.publish(stream.subject, stream.message(vectors))


def test_more_work_than_can_be_done_is_answered_expired_or_overloaded_and_memory_stays_flat(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    quiet, hog = (Stream(name, "feed", issuer.token(name, "pro")) for name in ("quiet", "hog"))

    async def run(engine: EngineProcess, url: str) -> None:
        pids = engine.children()
        async with connected(url) as (client, reader), connected(url) as (hog_client, hog_reader):
            await quietly(client, reader, quiet)  # warms its window
            alone = p99(await quietly(client, reader, quiet))
            before = private_bytes(pids)
            flooding = asyncio.create_task(flood(hog_client, hog))
            began_s = time.monotonic()
            beside = await quietly(client, reader, quiet)
            flooding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flooding
            await hog_client.publish(hog.subject, hog.heartbeat())
            await hog_client.flush()
            took_s = time.monotonic() - began_s
            await eventually(lambda: engine.metric("tickpath_inputs_bytes") == 0, 90, "all that was taken is answered")
            await hog_client.flush()
            grown = private_bytes(pids) - before
            answers = hog_reader.named(hog)
            whole = [each for each in answers if each.envelope.message_type == "ml_inference"]
            refused = [each for each in answers if each.envelope.message_type == "ml_rejection"]
            dropped = int(engine.metric("tickpath_dropped_total"))
            statuses = Counter(PredictionStatus.Name(p.status) for each in whole for p in each.batch.predictions)
            print(f"hog: {len(hog.sent) * VECTORS / took_s:.0f} vectors a second; {dict(statuses)}, ", end="")
            print(f"{len(refused)} messages overloaded, {dropped} dropped, p99 {p99(whole):.1f} ms")
            print(f"quiet: p99 alone {alone:.2f} ms, beside the hog {p99(beside):.2f} ms; memory +{grown >> 20} MiB")
            assert {each.rejection.code for each in refused} <= {"overloaded"}
            assert len(answers) + dropped >= len(hog.sent), "what was not dropped is answered"
            assert set(statuses) <= {"OK", "DEGRADED", "WARMING", "EXPIRED"}
            assert statuses["EXPIRED"] + len(refused) + dropped > 0, "the hog did not send more than could be answered"
            assert grown < GROWTH_BYTES_MAX
            after = await quietly(client, reader, quiet)
            print(f"quiet: p99 afterwards {p99(after):.2f} ms")
            assert p99(after) < p99(beside), "nothing of it is left"
        assert engine.children() == pids

    settings = {"engine": {"workers": 1, "max_batch": 1}, "limits": {"queue": 64}}
    with nats_server() as url, EngineProcess(tmp_path, issuer, url, settings=settings) as engine:
        engine.wait_ready(90)
        asyncio.run(run(engine, url))
        assert engine.stop() == 0

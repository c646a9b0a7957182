"""A tenant that sends ten times its share waits for itself: what another one sends is taken after a turn of it."""

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import numpy as np

from engine.contract.ml.ml_predictions_pb2 import PredictionStatus
from engine.contract.names import Tier
from engine.ingress.queues import QUANTUM
from engine.limits import UNRELEASED_BATCHES
from engine.replay.reading import Tape, Taped
from engine.watch import tape
from fastpath import layout
from tests.system.servers import EngineProcess, Issuer, nats_server
from tests.system.traffic import MINUTE_NS, Reader, Stream, connected, eventually, paced

QUIET_PER_S, QUIET_COUNT = 40, 160
VECTORS = 64  # of each of the loud one's messages
BURST, BURSTS_PER_S, BURSTS = 120, 10, 60  # so many of them at once: far more than one worker answers in between
MAX_BATCH = 4
# What may be taken between a quiet vector's arrival and itself: what the ring held, one input more than its bound at
# most; and one turn, which may end in debt by one message.
RING = UNRELEASED_BATCHES * MAX_BATCH - 1 + VECTORS
TURN = QUANTUM[Tier.PRO] + VECTORS
QUEUE = 64
SETTINGS = {
    "engine": {"workers": 1, "max_batch": MAX_BATCH, "deadline_ms": 20_000, "max_message_age_ms": 60_000},
    "limits": {"queue": QUEUE},
}


def made(stream: Stream) -> list[bytes]:
    """Before they are sent, so that the sending costs next to nothing."""
    bodies = []
    for _ in range(BURST * BURSTS):
        stream.event_ns += MINUTE_NS
        bodies.append(stream.message([stream.vector(f"LOUD{n}") for n in range(VECTORS)]))
    return bodies


async def flood(client, stream: Stream, bodies: list[bytes], sent: list[int]) -> None:
    """Until it is cancelled."""
    async for burst in paced(BURSTS_PER_S, BURSTS):
        for body in bodies[burst * BURST : (burst + 1) * BURST]:
            await client.publish(stream.subject, body)
            sent[0] += 1


async def quietly(client, reader: Reader, stream: Stream, count: int) -> None:
    async for _ in paced(QUIET_PER_S, count):
        stream.event_ns += MINUTE_NS
        await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
    await eventually(lambda: len(reader.named(stream)) >= stream.sequence, 60, "each quiet vector is answered")


def taken_before(path: Path) -> list[int]:
    """For each quiet vector: vectors of the loud one that the worker took after it had come, and before it."""
    quiet, loud = [], []
    for each in Tape(path).open().inputs():
        if not isinstance(each, Taped):
            continue
        record = np.frombuffer(each.record, layout.input_record_dtype, 1)[0]
        (company, _), *_ = tape.name_of_record(each.record)
        for slot in each.answers if each.answers is not None else ():
            (quiet if company == "quiet" else loud).append((int(record["received_ns"]), int(slot["taken_ns"])))
    times = np.sort([taken_ns for _, taken_ns in loud])
    return [int(np.searchsorted(times, taken) - np.searchsorted(times, came, "right")) for came, taken in quiet]


def test_one_tenant_sends_ten_times_its_share_and_only_its_own_vectors_wait(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    quiet, loud = (Stream(name, "feed", issuer.token(name, "pro")) for name in ("quiet", "loud"))

    bodies = made(loud)

    async def run(engine: EngineProcess, url: str) -> None:
        async with connected(url) as (client, reader), connected(url) as (loud_client, loud_reader):
            await quietly(client, reader, quiet, 10)
            sent = [0]
            flooding = asyncio.create_task(flood(loud_client, loud, bodies, sent))
            await eventually(lambda: engine.metric("tickpath_queued") >= QUEUE, 30, "the loud one's queue is full")
            await quietly(client, reader, quiet, QUIET_COUNT)
            flooding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flooding
            await loud_client.flush()
            await eventually(lambda: engine.metric("tickpath_inputs_bytes") == 0, 90, "all that was taken is answered")
            await loud_client.flush()
            answers = loud_reader.named(loud)
            codes = Counter(a.rejection.code for a in answers if a.envelope.message_type == "ml_rejection")
            dropped = int(engine.metric("tickpath_dropped_total"))
            whole = len(answers) - codes.total()
            print(f"loud: {sent[0]} messages sent, {whole} answered, {dict(codes)}, {dropped} dropped")
            assert set(codes) == {"overloaded"}
            assert len(answers) + dropped == sent[0], "what was not dropped is answered"
            assert sent[0] >= 10 * whole / 2, "it sent ten times its share, which is a half"
            assert reader.answered(quiet) == Counter(range(1, quiet.sequence + 1))
            statuses = Counter(p.status for a in reader.named(quiet) for p in a.batch.predictions)
            assert set(statuses) <= {PredictionStatus.OK, PredictionStatus.DEGRADED, PredictionStatus.WARMING}

    folder = tmp_path / "tape"
    settings = {**SETTINGS, "tape": {"path": str(folder)}}
    with nats_server() as url, EngineProcess(tmp_path, issuer, url, settings=settings) as engine:
        engine.wait_ready(90)
        asyncio.run(run(engine, url))
        assert engine.stop() == 0
    between = taken_before(folder)
    print(f"vectors of the loud one between: {dict(sorted(Counter(between).items()))}; at most {RING + TURN}")
    assert len(between) == quiet.sequence
    assert max(between) <= RING + TURN
    assert sum(count > 0 for count in between) > QUIET_COUNT / 2, "the quiet one never had to wait: it shows nothing"

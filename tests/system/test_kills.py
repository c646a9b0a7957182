"""Any child process may be killed at any instant: what ingress accepted is answered, and answered the same."""

import asyncio
import os
import random
import signal
import time

import nats
import pytest

from tests.system.servers import EngineProcess, Issuer, nats_server, until
from tests.system.traffic import MINUTE_NS, SYMBOLS, Reader, Stream, eventually

KILLS = 50
VECTORS_PER_S = 200
SETTINGS = {"engine": {"deadline_ms": 5000, "max_message_age_ms": 600_000}}
PATIENT = {"engine": {**SETTINGS["engine"], "deadline_ms": 60_000}}  # the twin is fed as fast as it goes


def comparable(answer) -> bytes:
    """What an answer says, less what may differ when it is given again."""
    batch = answer.batch
    batch.ClearField("performance_metrics")
    batch.ClearField("trace")
    return batch.SerializeToString(deterministic=True)


async def send_until(stop: asyncio.Event, client, streams: list[Stream]) -> None:
    """Open loop at the test's rate, each stream in its turn; half of the vectors open a new minute."""
    begin, sent = time.monotonic(), 0
    while not stop.is_set():
        stream = streams[sent % len(streams)]
        stream.event_ns += MINUTE_NS // 2
        await client.publish(stream.subject, stream.message([stream.vector(SYMBOLS[sent // len(streams) % 3])]))
        sent += 1
        await asyncio.sleep(max(0.0, begin + sent / VECTORS_PER_S - time.monotonic()))


def is_whole(engine: EngineProcess) -> bool:
    """Everybody is ready, the spare too."""
    return engine.health().get("status") == "healthy"


def kill_one(engine: EngineProcess, chance: random.Random, what: str) -> tuple[float, str]:
    """Kills one child and waits until all are back: how long that took, and who it was."""
    children = engine.children()
    victim = chance.choice(sorted(children))
    os.kill(children[victim], signal.SIGKILL)
    killed_s = time.monotonic()
    until(lambda: children[victim] not in engine.children().values(), 5, f"{what} of {victim}: reaped")
    until(lambda: is_whole(engine), 60, f"{what} of {victim}: everybody is back")
    return time.monotonic() - killed_s, victim


async def disturbed(engine: EngineProcess, url: str, streams: list[Stream], seed: int) -> Reader:
    """The run with the kills; every answer that came."""
    chance = random.Random(seed)
    client = await nats.connect(url)
    reader = await Reader().open(client)
    stop = asyncio.Event()
    traffic = asyncio.create_task(send_until(stop, client, streams))
    recoveries = []
    for number in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        recoveries.append(await asyncio.to_thread(kill_one, engine, chance, f"kill {number}"))
    stop.set()
    await traffic
    await client.flush()
    await eventually(lambda: engine.metric("tickpath_inputs_bytes") == 0, 20, "everything accepted is confirmed")
    await client.flush()
    recoveries.sort()
    median_s, longest = recoveries[len(recoveries) // 2][0], recoveries[-1]
    print(f"seed {seed}; all back after a kill: median {median_s:.2f} s, longest {longest[0]:.2f} s ({longest[1]})")
    await client.close()
    return reader


async def undisturbed(url: str, bodies: list[tuple[str, bytes]], count: int) -> Reader:
    client = await nats.connect(url)
    reader = await Reader().open(client)
    for sent, (subject, body) in enumerate(bodies, 1):
        await client.publish(subject, body)
        if sent % 20 == 0:
            await eventually(lambda: len(reader.answers) >= sent - 40, 30, "the undisturbed run goes on")  # noqa: B023
    await eventually(lambda: len(reader.answers) >= count, 30, "the undisturbed run is answered")
    await client.close()
    return reader


@pytest.mark.timeout(900)
def test_fifty_kills_at_random_lose_nothing_accepted_and_change_no_answer(tmp_path):
    seed = int(os.environ.get("TICKPATH_TEST_SEED", time.time_ns() % 10**6))
    issuer = Issuer(tmp_path)
    streams = [
        Stream(f"company-{n}", "feed-0", issuer.token(f"company-{n}", tier), seed=n)
        for n, tier in enumerate(("free", "pro", "enterprise"))
    ]
    with nats_server() as url:
        with EngineProcess(tmp_path, issuer, url, settings=SETTINGS) as engine:
            engine.wait_ready()
            reader = asyncio.run(disturbed(engine, url, streams, seed))
            accepted = int(engine.metric("tickpath_input_position"))
            assert engine.stop() == 0
        answered = {(stream.company, sequence) for stream in streams for sequence in reader.answered(stream)}
        sent = sum(len(stream.sent) for stream in streams)
        repeated = len(reader.answers) - len(answered)
        print(f"sent {sent}, accepted {accepted}, answered {len(answered)}, answers repeated {repeated}")
        assert len(answered) == accepted, "an accepted input was lost"
        assert accepted > sent / 2, "the engine was away for most of the time"

        in_order = sorted(answered, key=lambda name: (name[1], name[0]))
        by_company = {stream.company: stream for stream in streams}
        bodies = [
            (by_company[company].subject, by_company[company].sent[sequence].SerializeToString())
            for company, sequence in in_order
        ]
        with EngineProcess(tmp_path, issuer, url, settings=PATIENT) as engine:
            engine.wait_ready()
            twin = asyncio.run(undisturbed(url, bodies, accepted))
            assert engine.stop() == 0
    for stream in streams:
        expected = {answer.envelope.sequence: comparable(answer) for answer in twin.named(stream)}
        order = [answer.envelope.sequence for answer in reader.named(stream)]
        first_seen = list(dict.fromkeys(order))
        assert first_seen == sorted(first_seen), f"{stream.company}: first answers out of order"
        for answer in reader.named(stream):
            assert all(prediction.status not in (4, 5) for prediction in answer.batch.predictions), (
                "a restart expired something"
            )
            assert comparable(answer) == expected[answer.envelope.sequence], (
                f"{stream.company} {answer.envelope.sequence} changed"
            )

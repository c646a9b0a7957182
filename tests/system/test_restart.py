"""An engine that is stopped on purpose and started again goes on as if it had not been."""

import asyncio

from tests.system.checker import input_of
from tests.system.servers import EngineProcess
from tests.system.traffic import MINUTE_NS, SYMBOLS, Stream, connected, eventually

PATIENT = {"engine": {"deadline_ms": 10_000, "max_message_age_ms": 600_000}}
HALF = 300  # messages of each stream before the restart, and as many after it


def made(issuer) -> tuple[list[Stream], list[bytes]]:
    """Streams, and their messages in turn; half of them open a new minute."""
    tiers = ("free", "pro", "enterprise")
    streams = [Stream(f"restarted-{tier}", "feed", issuer.token(f"restarted-{tier}", tier), seed=3) for tier in tiers]
    bodies = []
    for number in range(2 * HALF):
        for stream in streams:
            stream.event_ns += MINUTE_NS // 2
            bodies.append(stream.message([stream.vector(SYMBOLS[number % 2])]))
    return streams, bodies


async def answers_to(url: str, streams: list[Stream], bodies: list[bytes]) -> dict[str, bytes]:
    async with connected(url) as (client, reader):
        for number, body in enumerate(bodies):
            await client.publish(streams[number % len(streams)].subject, body)
            await eventually(lambda: len(reader.answers) >= number - 40, 20, "it keeps up")  # noqa: B023
        await eventually(lambda: len(reader.answers) >= len(bodies), 20, "everything is answered")
        await client.flush()
        assert len(reader.answers) == len(bodies)
        return {input_of(answer): answer.comparable() for answer in reader.answers}


def test_a_drained_engine_goes_on_with_its_windows_and_sequences_to_the_bit(folder, issuer, nats_url):
    streams, bodies = made(issuer)
    middle = HALF * len(streams)
    kept = folder / "engine.state"
    settings = {"engine": {**PATIENT["engine"], "state_path": str(kept)}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as engine:
        engine.wait_ready()
        assert f"0 windows go on from {kept}" in engine.log()
        said = asyncio.run(answers_to(nats_url, streams, bodies[:middle]))
        assert engine.stop() == 0
        assert f"6 windows are kept in {kept}" in engine.log()
        engine.start().wait_ready()
        assert f"6 windows go on from {kept}" in engine.log()
        # What was answered before is known still: only the new messages are answered.
        said |= asyncio.run(after_a_repeat(nats_url, streams, bodies, middle))
        assert engine.metric("tickpath_duplicates_total") == len(streams)
        assert engine.stop() == 0
    with EngineProcess(folder, issuer, nats_url, settings=PATIENT) as other:
        other.wait_ready()
        undisturbed = asyncio.run(answers_to(nats_url, streams, bodies))
        assert other.stop() == 0
    assert said == undisturbed


async def after_a_repeat(url: str, streams: list[Stream], bodies: list[bytes], middle: int) -> dict[str, bytes]:
    async with connected(url) as (client, _):
        for stream, body in zip(streams, bodies[middle - len(streams) : middle], strict=True):
            await client.publish(stream.subject, body)
        await client.flush()
        return await answers_to(url, streams, bodies[middle:])


def test_a_state_that_is_torn_is_told_and_the_engine_starts_cold(folder, issuer, nats_url):
    kept = folder / "torn.state"
    kept.write_bytes(b"PK\x03\x04" + bytes(1000))
    settings = {"engine": {**PATIENT["engine"], "state_path": str(kept)}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as engine:
        engine.wait_ready()
        assert f"{kept}: expected the state of a drained engine, found " in engine.log()
        streams, bodies = made(issuer)
        assert len(asyncio.run(answers_to(nats_url, streams, bodies[:3]))) == 3
        assert engine.stop() == 0
    assert kept.read_bytes()[:4] == b"PK\x03\x04"
    assert kept.stat().st_size > 1000, "the next stop writes a whole one"

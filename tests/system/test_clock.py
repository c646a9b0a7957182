"""The host's clock steps by an hour: deadlines do not move, event times are as given."""

import asyncio
import shutil

import pytest

from engine.contract.ml.ml_predictions_pb2 import OK
from tests.system.servers import ROOT, EngineProcess, Issuer
from tests.system.traffic import MINUTE_NS, Stream, connected, eventually

HOUR_S = 3600


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_a_clock_that_steps_by_an_hour_expires_nothing_and_moves_no_event_time(
    tmp_path, nats_url, monkeypatch, step_s
) -> None:
    issuer = Issuer(tmp_path)
    shutil.copy(ROOT / "tests" / "system" / "stepped" / "sitecustomize.py", tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    ahead = tmp_path / "ahead_s"
    company = f"clock-{step_s + HOUR_S}"
    ahead.write_text(str(max(0, -step_s)))  # a clock that is set back was ahead
    stream = Stream(company, "feed", issuer.token(company, "pro", valid_s=10 * HOUR_S))

    async def run() -> None:
        async with connected(nats_url) as (client, reader):

            async def send(count: int) -> None:
                for _ in range(count):
                    stream.event_ns += MINUTE_NS
                    body = stream.message([stream.vector("EURUSD", 0 if stream.sequence else 240)])
                    stamped = stream.sent[stream.sequence]
                    stamped.timestamp += int(ahead.read_text()) * 10**9  # the producer's host is the same
                    body = stamped.SerializeToString()
                    await client.publish(stream.subject, body)

            await send(20)
            await eventually(lambda: len(reader.named(stream)) == 20, 15, "answered before the step")
            replaced = tmp_path / "ahead_s.new"
            replaced.write_text(str(max(0, step_s)))
            replaced.rename(ahead)
            await send(20)
            await eventually(lambda: len(reader.named(stream)) == 40, 15, "answered after the step")
            answers = reader.named(stream)
            assert [each.envelope.sequence for each in answers] == list(range(1, 41))
            predictions = [p for each in answers for p in each.batch.predictions]
            assert [p.status for p in predictions] == [OK] * 40
            assert [p.reason for p in predictions] == [""] * 40
            first_ns = stream.event_ns - 39 * MINUTE_NS
            assert [p.timestamp_ns for p in predictions] == [first_ns + n * MINUTE_NS for n in range(40)]
            moved_s = (answers[-1].envelope.timestamp - answers[19].envelope.timestamp) / 1e9
            assert abs(moved_s - step_s) < 60, "the engine's clock did step"

    # Long enough for a busy host, and nothing beside an hour.
    with EngineProcess(tmp_path, issuer, nats_url, settings={"engine": {"deadline_ms": 20_000}}) as engine:
        engine.wait_ready(90)
        asyncio.run(run())
        assert "silent for" not in engine.log(), "nobody was taken for hung"
        assert engine.stop() == 0

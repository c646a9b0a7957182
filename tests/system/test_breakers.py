"""A model that raises, gives NaN or the wrong shape, is slow or hangs: fallback, breaker open, half open, closed."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from engine import limits
from engine.contract.ml.ml_predictions_pb2 import DEGRADED, OK, Prediction
from tests.system import moody
from tests.system.servers import ROOT, EngineProcess, Issuer, until
from tests.system.traffic import MINUTE_NS, Reader, Stream, connected, eventually

RAISES, UNUSABLE = "it raises errors", "its numbers cannot be used"
SLOW = f"it takes more than {limits.VECTOR_BUDGET_US} us a vector"
GOOD = [0.0] * len(moody.VICES)
# company -> (its own numbers that bring out the vice, what the log says of it)
VICES = {
    "raising": ([0.0, 5.0, 0.0, 0.0], RAISES),
    "misshapen": ([0.0, 0.0, 1.0, 0.0], RAISES),
    "nan": ([-2.0, 0.0, 0.0, 0.0], UNUSABLE),
    "slow": ([0.0, 0.0, 0.0, 4000.0], SLOW),
}
HANGING = [0.0, 0.0, 0.0, 120_000.0]  # for seconds, where half a second is allowed
SHARED = "xgboost_direction"


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str) -> Iterator[EngineProcess]:
    """Bundled models, a moody one for each company, and a moody newer version of a shared one."""
    store = folder / "models"
    shutil.copytree(ROOT / "models", store)
    for company in (*VICES, "hanging"):
        moody.put(store, f"{company}_own", "1.0", moody.own(), list(moody.VICES), company)
    moody.put(store, SHARED, "9.9", moody.shared(), ["correlation_mean"])
    settings = {"engine": {"deadline_ms": 20_000}, "models": {"path": str(store)}}
    with EngineProcess(folder, issuer, nats_url, settings=settings) as running:
        running.wait_ready(90)
        until(lambda: running.health().get("status") == "healthy", 60, "the spare is ready, too")
        yield running
        assert running.stop() == 0, running.log()


class Caller:
    """Asks one vector at a time and looks at who answered the direction."""

    def __init__(self, client, reader: Reader, stream: Stream) -> None:
        self.client, self.reader, self.stream = client, reader, stream
        self.asked = 0

    async def ask(self, extra: list[float] = GOOD, scores: list[float] | None = None) -> Prediction:
        stream, history = self.stream, 0 if self.asked else 240
        stream.event_ns += MINUTE_NS
        vector = stream.vector("EURUSD", history)
        vector.extra.extend(extra)
        vector.cross_asset.correlation_scores.extend(scores or [])
        self.asked += 1
        await self.client.publish(stream.subject, stream.message([vector]))
        await eventually(lambda: len(self.reader.named(stream)) >= self.asked, 20, f"vector {self.asked} is answered")
        answers = self.reader.named(stream)
        assert [each.envelope.sequence for each in answers] == list(range(1, self.asked + 1))
        (prediction,) = answers[-1].batch.predictions
        return prediction


def by_fallback(prediction: Prediction) -> set[str]:
    return {each.model.model_id for each in prediction.ensemble.contributions if each.fallback}


def answering(prediction: Prediction) -> set[tuple[str, str]]:
    """Who answered as the one that was wanted."""
    return {(e.model.model_id, e.model.version) for e in prediction.ensemble.contributions if not e.fallback}


def moves(engine: EngineProcess, name: str) -> list[str]:
    """What the log says of a version's breaker."""
    begin = f'"message":"breaker of {name}: '
    return [line.split(begin)[1].split('"')[0] for line in engine.log().splitlines() if begin in line]


async def until_closed(engine: EngineProcess, caller: Caller, name: str, **numbers: object) -> Prediction:
    """Good vectors, until the model is asked again by right."""
    last = await caller.ask(**numbers)
    for _ in range(600):
        if moves(engine, name)[-1].endswith("-> closed"):
            return await caller.ask(**numbers)
        await asyncio.sleep(0.02)
        last = await caller.ask(**numbers)
        assert last.status in (OK, DEGRADED)
    raise AssertionError(f"the breaker of {name} did not close: {moves(engine, name)}")


@pytest.mark.parametrize("company", VICES)
def test_a_companys_own_bad_model_is_stood_in_for_opens_and_closes_once_it_is_well(engine, issuer, nats_url, company):
    numbers, why = VICES[company]
    own, name = f"{company}_own", f"{company}_own 1.0"

    async def run() -> None:
        async with connected(nats_url) as (client, reader):
            caller = Caller(client, reader, Stream(company, "feed", issuer.token(company)))
            first = await caller.ask()
            assert (first.status, (own, "1.0") in answering(first)) == (OK, True)
            asked = 0
            while not moves(engine, name):
                bad = await caller.ask(numbers)
                asked += 1
                assert asked <= limits.FAILURES_TO_OPEN + 20, engine.log()
                if why == SLOW:  # late, and right
                    assert bad.status in (OK, DEGRADED)
                else:
                    assert (bad.status, own in by_fallback(bad), SHARED in by_fallback(bad)) == (DEGRADED, False, True)
            print(f"{company}: open after {asked} bad ones")
            assert asked >= limits.FAILURES_TO_OPEN
            assert moves(engine, name)[0].startswith(f"closed -> open: {why}; it is asked again in 1.")
            good = await caller.ask()
            assert (good.status, SHARED in by_fallback(good)) == (DEGRADED, True), "an open breaker costs no try"
            last = await until_closed(engine, caller, name)
            assert (last.status, (own, "1.0") in answering(last)) == (OK, True)
            assert [each.split(":")[0] for each in moves(engine, name)] == [
                "closed -> open",
                "open -> half_open",
                "half_open -> closed",
            ]

    asyncio.run(run())
    told = engine.get("/health")[1] + engine.get("/metrics")[1]
    assert own.encode() not in told, "a company's own model is nobody else's business"


def test_a_model_that_is_still_bad_when_it_is_probed_stays_open_for_longer(engine, issuer, nats_url):
    company, name = "nan", "nan_own 1.0"
    before = len(moves(engine, name))

    async def run() -> None:
        async with connected(nats_url) as (client, reader):
            caller = Caller(client, reader, Stream(company, "again", issuer.token(company)))
            for _ in range(600):
                assert (await caller.ask(VICES[company][0])).status == DEGRADED
                if len(moves(engine, name)) >= before + 3:
                    break
                await asyncio.sleep(0.02)
            found = moves(engine, name)[before:]
            assert found[0].startswith(f"closed -> open: {UNUSABLE}; it is asked again in 1.")
            assert found[1] == "open -> half_open"
            assert found[2].startswith(f"half_open -> open: {UNUSABLE}; it is asked again in 2.")
            assert (await until_closed(engine, caller, name)).status == OK

    asyncio.run(run())


def test_a_shared_models_breaker_is_told_to_everybody(engine, issuer, nats_url):
    name, bad = f"{SHARED} 9.9", [-1.0]

    def told(state: str, status: str) -> bool:
        health = engine.health()
        assert health[f"model_{SHARED}"]["version"] == "9.9"
        return (health["circuit_breakers"][SHARED], health["status"]) == (state, status)

    async def run() -> None:
        async with connected(nats_url) as (client, reader):
            caller = Caller(client, reader, Stream("anybody", "feed", issuer.token("anybody")))
            first = await caller.ask()
            assert (SHARED, "9.9") in answering(first)
            assert engine.health()["circuit_breakers"][SHARED] == "closed"
            while not moves(engine, name):
                assert (await caller.ask(scores=bad)).status == DEGRADED
                assert caller.asked <= limits.FAILURES_TO_OPEN + 20
            await eventually(lambda: told("open", "degraded"), 2, "told by /health")
            assert engine.health()[f"model_{SHARED}"] == {"status": "unhealthy", "version": "9.9", "breaker": "open"}
            page = engine.get("/metrics")[1].decode()
            assert f'tickpath_breaker_state{{model="{SHARED}",status="open"}} 1\n' in page
            assert f'tickpath_breaker_opened_total{{model="{SHARED}",cause="unsound"}} 1\n' in page
            good = await caller.ask()
            assert {(e.model.model_id, e.model.version) for e in good.ensemble.contributions if e.fallback} == {
                (SHARED, "3.2")
            }, "the version before stands in"
            last = await until_closed(engine, caller, name)
            assert (SHARED, "9.9") in answering(last)
            await eventually(lambda: told("closed", "healthy"), 2, "told by /health")

    asyncio.run(run())


def test_a_model_that_hangs_is_ended_with_its_worker_its_input_answered_and_its_breaker_open(engine, issuer, nats_url):
    until(lambda: engine.health().get("status") == "healthy", 60, "healthy at first")
    company, own, name = "hanging", "hanging_own", "hanging_own 1.0"
    before = engine.children()

    async def run() -> None:
        async with connected(nats_url) as (client, reader):
            caller = Caller(client, reader, Stream(company, "feed", issuer.token(company)))
            assert (await caller.ask()).status == OK
            hung = await caller.ask(HANGING)
            assert (hung.status, SHARED in by_fallback(hung)) == (DEGRADED, True)
            assert moves(engine, name)[0].startswith(
                "closed -> open: a worker died or hung in it; it is asked again in"
            )
            last = await until_closed(engine, caller, name)
            assert (last.status, (own, "1.0") in answering(last)) == (OK, True)

    asyncio.run(run())
    assert f"while in_model, at most {limits.IN_MODEL_LIMIT_MS} are allowed; killing it" in engine.log()
    after = engine.children()
    assert len([name for name in before if before[name] != after.get(name)]) == 1, "one worker was replaced"

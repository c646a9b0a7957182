"""Ten thousand messages of junk on each bus change nothing for a good stream, and cost no memory."""

import asyncio
import random
import re
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest

from engine.contract.ml.ml_predictions_pb2 import DEGRADED, OK
from tests.system.junk import junk
from tests.system.servers import EngineProcess, Issuer
from tests.system.traffic import MINUTE_NS, SYMBOLS, Answer, Stream, connected, eventually, paced

COUNT = 10_000
WARM_UP = 2_000
JUNK_PER_S, GOOD_PER_S = 2_000, 100
REPORTS_PER_S = 200  # the default of limits.junk_per_s
# About 7 MB of junk come after the warm-up on each bus, so memory that kept it, or a decoded copy of it,
# would grow by more than this. Allocators round up to whole arenas of 1 MiB, and may take one or two more.
GROWTH_MAX_BYTES = 3 << 20

SUMMARY = re.compile(r"(\d+) further messages were refused in the last second and are not reported one by one")
Send = Callable[[bytes], Awaitable[None]]


@pytest.fixture(scope="module")
def path(folder: Path) -> str:
    return str(folder / "bus-junk")


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, nats_url: str, path: str) -> Iterator[EngineProcess]:
    with EngineProcess(folder, issuer, nats_url, path, {"engine": {"deadline_ms": 10_000}}) as running:
        yield running.wait_ready()


def private_bytes(pid: int) -> int:
    """Resident memory of a process, less files and the engine's shared memory: that is all there from the start."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"no RssAnon of process {pid}")


def counts(engine: EngineProcess) -> dict[str, int]:
    names = ("messages", "inputs_accepted", "heartbeats", "duplicates", "conflicts", "unverified", "dropped")
    return {name: int(engine.metric(f"tickpath_{name}_total")) for name in names}


def real_messages(issuer: Issuer, company: str) -> list[bytes]:
    """Of a company that is nobody's in these tests: whatever a mutation of one says, it is not of a good stream."""
    stream = Stream(company, "feed", issuer.token(company, "enterprise"))
    found = []
    for number in range(200):
        stream.event_ns += MINUTE_NS
        vectors = [stream.vector(symbol, 10 * (number % 4)) for symbol in SYMBOLS[: 1 + number % 5]]
        found.append(stream.message(vectors))
    return [*found, stream.heartbeat()]


async def send_good(stream: Stream, send: Send, stop: asyncio.Event) -> None:
    async for _ in paced(GOOD_PER_S, 10**6):
        if stop.is_set():
            return
        stream.event_ns += MINUTE_NS
        await send(stream.message([stream.vector("EURUSD")]))


async def send_junk(bodies: list[bytes], send: Send) -> None:
    async for number in paced(JUNK_PER_S, len(bodies)):
        await send(bodies[number])


def told(reports: list[Answer]) -> tuple[int, int]:
    """(messages reported one by one, messages of which only the number was told)."""
    summaries = [SUMMARY.fullmatch(report.rejection.detail) for report in reports]
    return sum(each is None for each in summaries), sum(int(each.group(1)) for each in summaries if each)


@dataclass
class Siege:
    """What came of it. `warm` and `after`: private bytes by process, early and at the end."""

    reports: list[Answer]
    answers: list[Answer]
    warm: dict[str, int]
    after: dict[str, int]


def over_nats(client: nats.NATS, subjects: tuple[str, ...]) -> Send:
    chance = random.Random(1)

    async def send(body: bytes) -> None:
        await client.publish(chance.choice(subjects), body)

    return send


def over_socket(writer: asyncio.StreamWriter) -> Send:
    async def send(body: bytes) -> None:
        writer.write(struct.pack("<I", len(body)) + body)
        await writer.drain()

    return send


async def besiege(engine: EngineProcess, url: str, path: str, good: Stream, bodies: list[bytes], bus: str) -> Siege:
    """Junk and the good stream over the same bus, the good one's own subject included."""
    async with connected(url) as (client, reader):
        if bus == "nats":
            subjects = (good.subject, "ml.v1.features.mutants.feed", "ml.v1.features.nobody.nothing")
            send, send_the_good = over_nats(client, subjects), over_nats(client, (good.subject,))
        else:
            writers = [(await asyncio.open_unix_connection(path))[1] for _ in range(2)]
            send, send_the_good = map(over_socket, writers)
        before, pids, stop = counts(engine), processes(engine), asyncio.Event()
        going_on = asyncio.create_task(send_good(good, send_the_good, stop))
        await send_junk(bodies[:WARM_UP], send)
        await all_came(engine, before, WARM_UP)
        warm = {name: private_bytes(pid) for name, pid in pids.items()}
        await send_junk(bodies[WARM_UP:], send)
        await all_came(engine, before, len(bodies))
        stop.set()
        await going_on
        await eventually(lambda: len(reader.named(good)) >= good.sequence - 1, 15, "every good vector is answered")
        unverified = counts(engine)["unverified"] - before["unverified"]
        await eventually(lambda: sum(told(reader.reports)) >= unverified, 5, "all junk is told of")
        assert processes(engine) == pids, "the same processes are alive"
        after = {name: private_bytes(pid) for name, pid in pids.items()}
        return Siege(reader.reports, reader.named(good), warm, after)


def processes(engine: EngineProcess) -> dict[str, int]:
    assert engine.handle is not None
    return {**engine.children(), "supervisor": engine.handle.pid}


async def all_came(engine: EngineProcess, before: dict[str, int], count: int) -> None:
    await eventually(lambda: counts(engine)["messages"] - before["messages"] >= count, 60, f"{count} messages came")


@pytest.mark.parametrize("bus", ["nats", "local"])
def test_junk_changes_nothing_for_a_good_stream(engine, issuer, nats_url, path, chance, bus):
    real = real_messages(issuer, "mutants")
    bodies = junk(chance, real, COUNT)
    good = Stream(f"good-{bus}", "feed", issuer.token(f"good-{bus}", "free"))
    good.message([good.vector("EURUSD", 240)])
    asyncio.run(warm_up(nats_url, good, real_messages(issuer, f"warm-{bus}")))
    before = counts(engine)
    siege = asyncio.run(besiege(engine, nats_url, path, good, bodies, bus))
    reports, answers = siege.reports, siege.answers

    assert [answer.envelope.sequence for answer in answers] == list(range(2, good.sequence + 1))
    predictions = [answer.batch.predictions[0] for answer in answers]
    assert {each.status for each in predictions} <= {OK, DEGRADED}
    assert not any(each.window_gaps for each in predictions)
    assert not any(answer.batch.late for answer in answers)

    grown = {name: value - before[name] for name, value in counts(engine).items()}
    assert grown["messages"] == COUNT + len(answers)
    outcomes = ("inputs_accepted", "heartbeats", "duplicates", "unverified", "dropped")
    # Other bytes under a known name are a duplicate, and reported besides.
    assert sum(grown[name] for name in outcomes) - grown["conflicts"] == grown["messages"]
    one_by_one, in_summaries = told(reports)
    assert one_by_one + in_summaries == grown["unverified"]
    seconds = (reports[-1].arrived_ns - reports[0].arrived_ns) / 1e9
    assert one_by_one <= REPORTS_PER_S * (seconds + 2)
    assert in_summaries > 0
    assert all(report.subject == "ml.v1.rejections" and not report.rejection.verified for report in reports)

    growth = {name: siege.after[name] - siege.warm[name] for name in siege.warm}
    print(f"{bus}: {grown}; {one_by_one} reports, {in_summaries} more in summaries, in {seconds:.1f} s")
    print(Counter(report.rejection.code for report in reports))
    print("growth in KiB: " + ", ".join(f"{name} {value >> 10}" for name, value in growth.items()))
    assert max(growth.values()) <= GROWTH_MAX_BYTES, growth


async def warm_up(url: str, good: Stream, others: list[bytes]) -> None:
    """Fills the good stream's window, and has every model and buffer used once before memory is compared."""
    async with connected(url) as (client, reader):
        await client.publish(good.subject, good.sent[1].SerializeToString())
        for body in others:
            subject = good.subject.replace(good.company, good.company.replace("good", "warm"))
            await client.publish(subject, body)
        await eventually(lambda: len(reader.answers) == 1 + len(others), 20, "all are answered")


def test_an_engine_full_of_junk_still_drains(engine):
    assert engine.stop() == 0, engine.log()
    for word in ("Traceback", '"level":"error"'):
        assert word not in engine.log()

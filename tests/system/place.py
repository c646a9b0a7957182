"""An engine between two buses, with a proxy before each: where the tests of the buses' faults happen.

Runs in the test's process. The test's own clients go past the proxies, so that they hear what the engine says while
it has lost a bus. What must stay true: whatever a test did to a bus, `whole` is again true at its end.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.buses import Both, on_both
from tests.system.checker import Found, check, twin_of
from tests.system.kafka import Broker, kafka_broker
from tests.system.proxy import Proxy
from tests.system.servers import EngineProcess, Issuer, nats_server, until
from tests.system.test_faults import Bus
from tests.system.traffic import MINUTE_NS, SYMBOLS, Stream, eventually, paced

PATIENT = {"deadline_ms": 5000, "max_message_age_ms": 600_000}
Send = Callable[[Stream, int, bytes], Awaitable[None]]


@dataclass
class Place:
    issuer: Issuer
    bus: Bus
    broker: Broker
    to_nats: Proxy
    to_kafka: Proxy
    engine: EngineProcess

    def whole(self) -> bool:
        health = self.engine.health()
        return health.get("status") == "healthy" and set(health["buses"].values()) == {"up"}

    def buses(self) -> dict[str, str]:
        return self.engine.health().get("buses", {})

    def streams(self, name: str, count: int = 3) -> list[Stream]:
        tiers = ("free", "pro", "enterprise")
        companies = [f"{name}-{number}" for number in range(count)]
        return [
            Stream(company, "feed", self.issuer.token(company, tiers[number % 3]), seed=number)
            for number, company in enumerate(companies)
        ]

    def check(
        self, streams: list[Stream], both: Both, twin: dict[str, bytes] | None = None, engine_lost: bool = False
    ) -> Found:
        found = check(streams, both.readers, self.engine.name, twin, engine_lost)
        print(found.summary())
        return found


@contextmanager
def a_place(folder: Path, issuer: Issuer, **settings: dict) -> Iterator[Place]:
    bus = Bus().start()
    try:
        with Proxy(bus.port) as to_nats, Proxy() as to_kafka, kafka_broker(proxy_port=to_kafka.port) as broker:
            to_kafka.target_port = broker.behind_port
            sections = {"engine": PATIENT, "bus.kafka": {"bootstrap": f"127.0.0.1:{to_kafka.port}"}, **settings}
            url = f"nats://127.0.0.1:{to_nats.port}"
            with EngineProcess(folder, issuer, url, settings=sections) as engine:
                engine.wait_ready()
                place = Place(issuer, bus, broker, to_nats, to_kafka, engine)
                until(place.whole, 60, "everything is up")
                yield place
    finally:
        bus.stop()


def next_message(stream: Stream) -> tuple[int, bytes]:
    """Half of a stream's vectors open a new minute; no symbol is quiet for five, so lost windows can be whole again."""
    turn, place = divmod(stream.sequence, 3)
    stream.event_ns += MINUTE_NS // 2
    body = stream.message([stream.vector(random.Random(turn).sample(SYMBOLS[:3], 3)[place])])
    return stream.sequence, body


async def traffic(streams: list[Stream], send: Send, rate_per_s: float, count: int) -> None:
    """Open loop, each stream in its turn."""
    async for index in paced(rate_per_s, count):
        stream = streams[index % len(streams)]
        await send(stream, *next_message(stream))


@asynccontextmanager
async def under_load(place: Place, streams: list[Stream], rate_per_s: float) -> AsyncIterator[Both]:
    """Each message goes over both buses while the body runs; in the end all are answered, and that is confirmed."""
    ending = asyncio.Event()
    async with on_both(place.bus.url, place.broker.bootstrap) as both:

        async def send() -> None:
            async for index in paced(rate_per_s, 10**9):
                if ending.is_set():
                    return
                stream = streams[index % len(streams)]
                await both.over_both(stream, *next_message(stream))

        sending = asyncio.create_task(send())
        try:
            yield both
        finally:
            ending.set()
            await sending
        assert await asyncio.to_thread(both.kafka.flush, 20) == 0
        await both.all_answered(streams, 30)
        await eventually(
            lambda: place.engine.metric("tickpath_inputs_bytes") == 0, 20, "everything accepted is confirmed"
        )


def undisturbed(
    folder: Path, issuer: Issuer, streams: list[Stream], both: Both, intervals: bool = True, **settings: dict
) -> dict[str, bytes]:
    """What an engine of its own says, that is fed as fast as it goes, on one bus, after however long a run."""
    patient = {"engine": {"deadline_ms": 60_000, "max_message_age_ms": 86_400_000}, **settings}
    with nats_server() as url, EngineProcess(folder, issuer, url, settings=patient) as engine:
        engine.wait_ready()
        twin = twin_of(url, streams, both.readers, intervals)
        assert engine.stop() == 0
    return twin


async def told(place: Place, buses: dict[str, str], within_s: float) -> float:
    """Waits until `/health` says this of the buses: how long that took."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    await asyncio.to_thread(until, lambda: place.buses() == buses, within_s, f"/health says {buses}")
    return loop.time() - begin_s


async def whole_again(place: Place, within_s: float = 30) -> None:
    await asyncio.to_thread(until, place.whole, within_s, "everything is up again")

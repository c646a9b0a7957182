"""What the outside sees while a bus is away, silent, slow or careless: the rows of the failure table about buses."""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.buses import Both, on_both
from tests.system.checker import twin_of
from tests.system.place import PATIENT, Place, a_place, next_message, told, traffic, whole_again
from tests.system.proxy import Proxy
from tests.system.servers import EngineProcess, Issuer, nats_server
from tests.system.traffic import Stream, eventually, paced

PER_S = 150
UP, NO_NATS, NO_KAFKA = {"nats": "up", "kafka": "up"}, {"nats": "down", "kafka": "up"}, {"nats": "up", "kafka": "down"}
NEITHER = {"nats": "down", "kafka": "down"}


@pytest.fixture(scope="module")
def place(folder: Path, issuer: Issuer) -> Iterator[Place]:
    with a_place(folder, issuer) as made:
        yield made
        assert made.engine.stop() == 0, made.engine.log()


async def on_kafka_alone(both: Both, stream: Stream, sequence: int, body: bytes) -> None:
    both.kafka.send(stream, sequence, body)


def first_after(both: Both, bus: str, begin_ns: int) -> float | None:
    """Seconds until the first answer that came there after this instant."""
    times = [answer.arrived_ns - begin_ns for answer in both.readers[bus].answers if answer.arrived_ns > begin_ns]
    return min(times) / 1e9 if times else None


@pytest.mark.parametrize("fault", ["refuse", "half_open"])
def test_while_nats_is_away_or_silent_what_is_on_kafka_is_answered_once_and_nats_has_it_afterwards(place, fault):
    streams = place.streams(f"no-nats-{fault}")

    async def main() -> None:
        async with on_both(place.bus.url, place.broker.bootstrap) as both:
            await traffic(streams, both.over_both, PER_S, PER_S)
            await both.all_answered(streams, 10)
            before = {stream.company: stream.sequence for stream in streams}
            getattr(place.to_nats, fault)()
            fault_ns = time.monotonic_ns()
            seeing = asyncio.create_task(told(place, NO_NATS, 5))
            await traffic(streams, lambda *message: on_kafka_alone(both, *message), PER_S, 2 * PER_S)
            seen_s = await seeing
            assert seen_s < 1.5, "silence is noticed within a second, and told at once"
            status, _ = place.engine.get("/health")
            assert (status, place.engine.health()["status"]) == (200, "degraded")
            await both.all_answered(streams, 10)
            first_s = first_after(both, "kafka", fault_ns)
            assert first_s is not None
            assert first_s < 1.5
            print(f"{fault}: told after {seen_s:.2f} s, the first answer on Kafka {first_s:.2f} s after the fault")
            place.to_nats.resume()
            await whole_again(place)
            await traffic(streams, both.over_both, PER_S, PER_S)
            await both.all_answered(streams, 10)
            written = 0 if fault == "refuse" else PER_S  # a second's answers may have gone into a dead connection
            for stream in streams:
                wanted = set(range(before[stream.company] + 1 + written, stream.sequence + 1))
                await eventually(lambda: wanted <= set(both.readers["nats"].answered(stream)), 10, "NATS has the rest")  # noqa: B023
            assert place.check(streams, both).bad() == {}

    asyncio.run(main())


async def latencies(both: Both, stream: Stream, count: int) -> list[float]:
    """Milliseconds from when each message was due until its answer over NATS, in order."""
    due: dict[int, int] = {}
    begin_ns = time.monotonic_ns()
    async for index in paced(PER_S, count):
        sequence, body = next_message(stream)
        due[sequence] = begin_ns + index * 10**9 // PER_S
        await both.over_nats(stream, sequence, body)
    reader = both.readers["nats"]
    await eventually(lambda: due.keys() <= reader.answered(stream).keys(), 10, "each is answered over NATS")
    return [(a.arrived_ns - due[a.envelope.sequence]) / 1e6 for a in reader.named(stream) if a.envelope.sequence in due]


@pytest.mark.parametrize("fault", ["refuse", "half_open", "stop", "kill"])
def test_without_kafka_nats_goes_on_undisturbed_and_kafka_has_every_answer_afterwards(place, fault):
    (stream,) = place.streams(f"no-kafka-{fault}".replace("_", "-"), 1)
    where = place.to_kafka if fault in ("refuse", "half_open") else place.broker
    back = {"refuse": "resume", "half_open": "resume", "stop": "cont", "kill": "start"}[fault]

    async def main() -> None:
        async with on_both(place.bus.url, place.broker.bootstrap) as both:
            await latencies(both, stream, PER_S)  # a first second warms
            before = await latencies(both, stream, 2 * PER_S)
            getattr(where, fault)()
            seeing = asyncio.create_task(told(place, NO_KAFKA, 20))
            during = await latencies(both, stream, 3 * PER_S)
            # Quartiles: stalls of a busy host come and go, a wait for Kafka would be in all of them.
            quartiles = statistics.quantiles(before)[0], statistics.quantiles(during)[0]
            seen_s = await seeing
            assert place.engine.health()["status"] == "degraded"
            print(f"{fault}: p25 {quartiles[0]:.2f} ms before, {quartiles[1]:.2f} ms during; told after {seen_s:.1f} s")
            assert quartiles[1] < quartiles[0] + 100, "what waited for Kafka would wait as long as its timeouts"
            await asyncio.to_thread(getattr(where, back))
            await whole_again(place)
            on_kafka = both.readers["kafka"]
            await eventually(lambda: set(stream.sent) <= set(on_kafka.answered(stream)), 20, "Kafka has the outbox")
            found = place.check([stream], both)
            assert found.bad() == {}
            assert found.late == found.unpredicted == 0

    asyncio.run(main())


def resident_mb(place: Place) -> float:
    """Of all processes of the engine, the supervisor too."""
    assert place.engine.handle is not None
    pids = [place.engine.handle.pid, *place.engine.children().values()]
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return sum(pages) * 4096 / 1e6


def test_without_any_bus_it_is_unhealthy_and_keeps_its_size_then_goes_on_with_all_that_kafka_kept(place):
    streams = place.streams("neither")

    async def main() -> None:
        async with on_both(place.bus.url, place.broker.bootstrap) as both:
            await traffic(streams, both.over_both, PER_S, 2 * PER_S)
            await both.all_answered(streams, 10)
            pids, before_mb = place.engine.children(), resident_mb(place)
            place.to_nats.refuse()
            place.to_kafka.refuse()
            seeing = asyncio.create_task(told(place, NEITHER, 10))
            await traffic(streams, both.over_both, PER_S, 5 * PER_S)
            seen_s = await seeing
            assert place.engine.get("/health")[0] == 503
            assert place.engine.health()["status"] == "unhealthy"
            assert place.engine.get("/v2/health/ready")[0] == 503
            grown_mb = resident_mb(place) - before_mb
            place.to_nats.resume()
            place.to_kafka.resume()
            begin_s = time.monotonic()
            await whole_again(place)
            await both.all_answered(streams, 20)
            print(
                f"told after {seen_s:.2f} s; {grown_mb:+.1f} MB of {before_mb:.0f}; "
                f"all answered {time.monotonic() - begin_s:.1f} s after the return"
            )
            assert grown_mb < 20
            assert place.check(streams, both).bad() == {}
            assert place.engine.children() == pids, "nothing was restarted"

    asyncio.run(main())


class Careless:
    """An A/B feed: each side loses 5 % (never both the same), says 5 % twice and brings each up to 3 ms later."""

    def __init__(self, both: Both, seed: int) -> None:
        self.both, self.seed = both, seed
        self.sending: set[asyncio.Task] = set()

    def fate(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    def lost_on(self, name: str) -> str:
        return self.fate(name).choices(("nats", "kafka", ""), (0.05, 0.05, 0.9))[0]

    def drops(self, message: bytes) -> bool:
        """What the proxy before NATS asks of each message."""
        _, found, rest = message.partition(b"Nats-Msg-Id: ")
        return bool(found) and self.lost_on(rest.partition(b"\r\n")[0].decode()) == "nats"

    async def send(self, stream: Stream, sequence: int, body: bytes) -> None:
        name = stream.name(sequence)
        chance = self.fate(f"copies {name}")
        for side in (self.both.over_nats, self._over_kafka):
            for _ in range(1 + (chance.random() < 0.05)):
                task = asyncio.create_task(self._later(chance.uniform(0, 0.003), side, stream, sequence, body))
                self.sending.add(task)
                task.add_done_callback(self.sending.discard)

    async def _later(self, delay_s: float, side, *message) -> None:
        await asyncio.sleep(delay_s)
        await side(*message)

    async def _over_kafka(self, stream: Stream, sequence: int, body: bytes) -> None:
        if self.lost_on(stream.name(sequence)) != "kafka":
            self.both.kafka.send(stream, sequence, body)


def test_two_careless_buses_together_lose_nothing_and_every_answer_is_in_order_and_said_once(place, issuer, chance):
    streams = place.streams("careless")
    seed = chance.getrandbits(32)

    async def main(to_server: Proxy) -> Both:
        async with on_both(f"nats://127.0.0.1:{to_server.port}", place.broker.bootstrap) as both:
            feed = Careless(both, seed)
            to_server.drop = feed.drops
            await traffic(streams, feed.send, 2 * PER_S, 20 * PER_S)
            await asyncio.gather(*feed.sending)
            # A last one of each stream on both sides, for a loss before it to show.
            for stream in streams:
                await both.over_both(stream, *next_message(stream))
            await both.all_answered(streams, 15)
            assert place.check(streams, both).bad() == {}
            assert to_server.dropped > 10
            return both

    with Proxy(place.bus.port) as to_server:
        both = asyncio.run(main(to_server))
    with (
        nats_server() as url,
        EngineProcess(
            place.engine.folder, issuer, url, settings={"engine": {**PATIENT, "deadline_ms": 60_000}}
        ) as other,
    ):
        other.wait_ready()
        twin = twin_of(url, streams, both.readers)
    found = place.check(streams, both, twin)
    assert found.bad() == {}
    assert found.late < 0.01 * found.sent, "the gap wait is long enough for the other bus, but for a stall of the host"

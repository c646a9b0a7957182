"""Producer and Reader on real servers: kills, returns, losses, restarts; names are compared, nothing is believed."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from signal import SIGCONT, SIGKILL, SIGSTOP

import nats
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka import Producer as Bare

from engine.client import Answer, Gap, Producer, Reader
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from tests.client.making import answer, heartbeat, token
from tests.system.kafka import any_kafka
from tests.system.servers import EngineProcess, free_port, start_nats
from tests.system.traffic import eventually

SENT = 1400
VECTORS = [FeatureVector(symbol="EURUSD")]


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with any_kafka() as found:
        yield found


class Watcher:
    """The names of what arrives on each bus, for one stream."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.nats: Counter[str] = Counter()
        self.kafka: Counter[str] = Counter()
        self.bodies: dict[str, set[bytes]] = {}
        self.order: list[str] = []

    async def watch(self, url: str) -> nats.NATS:
        async def keep(message) -> None:
            if message.headers:
                self.take(self.nats, message.headers["Nats-Msg-Id"], message.data)

        client = await nats.connect(url, reconnect_time_wait=0.02, max_reconnect_attempts=-1)
        await client.subscribe(f"ml.v1.features.acme.{self.stream}", cb=keep)
        await client.flush()
        return client

    def take(self, names: Counter[str], name: str, body: bytes) -> None:
        if not self.nats[name] + self.kafka[name]:
            self.order.append(name)
        names[name] += 1
        self.bodies.setdefault(name, set()).add(body)

    def read_kafka(self, bootstrap: str) -> None:
        """All of the topic, up to where it ends now."""
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.partition.eof": True})
        partitions = consumer.list_topics("ml.v1.features", timeout=20).topics["ml.v1.features"].partitions
        consumer.assign([TopicPartition("ml.v1.features", each, OFFSET_BEGINNING) for each in partitions])
        ended: set[int] = set()
        deadline_s = time.monotonic() + 60
        while len(ended) < len(partitions):
            assert time.monotonic() < deadline_s, f"Kafka's partitions are read to their ends: {ended}"
            record = consumer.poll(0.1)
            if record is None:
                continue
            if record.error() is not None:
                assert record.error().code() == KafkaError._PARTITION_EOF, record.error()
                ended.add(record.partition())
            elif record.key() == f"acme/{self.stream}".encode() and record.headers():
                self.take(self.kafka, dict(record.headers())["msg-id"].decode(), record.value())
        consumer.close()


async def send_through_an_outage(
    watcher: Watcher, bootstrap: str, publish: str, is_stopped: bool
) -> tuple[list[str], Producer]:
    port = free_port()
    url = f"nats://127.0.0.1:{port}"
    server = start_nats(port)
    client = await watcher.watch(url)
    names: list[str] = []
    try:
        producer = Producer(stream=watcher.stream, token=token(), nats=url, kafka=bootstrap, publish=publish)
        async with producer:
            await eventually(lambda: producer.buses["nats"] == "up", 10, "NATS is up, which failover prefers")
            for each in range(SENT):
                if each == 300:
                    server.send_signal(SIGSTOP if is_stopped else SIGKILL)
                if each == 600 and is_stopped:
                    server.send_signal(SIGCONT)
                elif each == 600:
                    server.wait()
                    server = start_nats(port)
                if each == 600:
                    await eventually(lambda: producer.buses["nats"] == "up", 10, "NATS is back")
                names.append(await producer.send(VECTORS))
                await asyncio.sleep(0.002)
            await producer.flush()
        await client.flush()
    finally:
        await client.close()
        server.kill()
        server.wait()
    return names, producer


@pytest.mark.parametrize(("publish", "is_stopped"), [("both", False), ("failover", False), ("failover", True)])
def test_a_killed_or_silent_nats_loses_no_message_of_a_producer_that_has_kafka(bootstrap, publish, is_stopped):
    watcher = Watcher(f"kill-{publish}-{is_stopped}-{os.getpid()}")
    names, producer = asyncio.run(send_through_an_outage(watcher, bootstrap, publish, is_stopped))
    watcher.read_kafka(bootstrap)
    assert [name.rsplit("/", 1)[1] for name in names] == [str(each) for each in range(1, SENT + 1)]
    assert set(watcher.nats) | set(watcher.kafka) == set(names)
    assert {name for name, bodies in watcher.bodies.items() if len(bodies) > 1} == set()
    assert producer.unconfirmed == []
    if publish == "both":
        assert set(watcher.kafka) == set(names)
    else:
        # The outage, what was open at its begin, and a second of both at its end; so nothing of the begin or the end.
        assert set(names[350:600]) <= set(watcher.kafka)
        assert not set(names[:200] + names[-100:]) & set(watcher.kafka)
        assert set(names[700:]) <= set(watcher.nats)
    print(f"{publish}: nats {len(watcher.nats)}, kafka {len(watcher.kafka)}, resent {producer.resent}")


class TwoBuses:
    """Answers of a stream on both buses, each copy where it is wanted."""

    def __init__(self, client: nats.NATS, bootstrap: str, stream: str, epoch: int) -> None:
        self.client, self.stream, self.epoch = client, stream, epoch
        self.kafka = Bare({"bootstrap.servers": bootstrap, "linger.ms": 1})

    async def put(self, body: bytes, on: tuple[str, ...] = ("nats", "kafka")) -> None:
        if "nats" in on:
            await self.client.publish(f"ml.v1.predictions.acme.{self.stream}", body)
        if "kafka" in on:
            self.kafka.produce("ml.v1.predictions", body, f"acme/{self.stream}")

    async def end(self) -> None:
        await self.client.flush()
        await asyncio.to_thread(self.kafka.flush, 10)


async def take(reader: Reader, count: int) -> list[Answer]:
    found: list[Answer] = []
    while len(found) < count and (each := await reader.receive(15)) is not None:
        found.append(each)
    return found


@pytest.mark.parametrize("epoch", [7])
def test_a_reader_of_both_buses_gets_each_answer_once_in_order_though_each_bus_loses_some(
    bootstrap, nats_url, chance, epoch
):
    stream, count = f"ab-{os.getpid()}", 2000

    async def run() -> tuple[list[Answer], list[object], Reader]:
        client = await nats.connect(nats_url)
        events: list[object] = []
        reader = Reader(
            company="acme", streams=[stream], nats=nats_url, kafka=bootstrap, gap_wait_s=2, gap_wait_max_s=5,
            on_event=events.append,
        )  # fmt: skip
        async with reader:
            assert reader.buses == {"nats": "up", "kafka": "up"}
            buses = TwoBuses(client, bootstrap, stream, epoch)
            await buses.put(answer(epoch, 1, stream))
            reading = asyncio.create_task(take(reader, count))
            for sequence in range(2, count + 1):
                on = chance.choices((("nats",), ("kafka",), ("nats", "kafka")), (5, 5, 90))[0]
                await buses.put(answer(epoch, sequence, stream), on)
                if sequence % 50 == 0:
                    await asyncio.sleep(0.01)
            await buses.end()
            found = await reading
            assert await reader.receive(0.5) is None
        await client.close()
        return found, events, reader

    found, events, reader = asyncio.run(run())
    assert [each.sequence for each in found] == list(range(1, count + 1))
    assert events == []
    assert not any(each.late for each in found)
    assert reader.counts["missing"] == 0
    assert reader.counts["duplicates"] > count * 0.8
    print(reader.counts)


def test_a_reader_that_starts_again_at_its_position_gets_what_it_had_not_and_nothing_twice(bootstrap, chance):
    stream, count = f"again-{os.getpid()}", 1200
    producer = Bare({"bootstrap.servers": bootstrap})

    async def run() -> list[int]:
        got: list[int] = []
        position: dict | None = None
        for part in range(4):
            reader = Reader(company="acme", streams=[stream], kafka=bootstrap)
            if position is not None:
                reader.resume(position)
            async with reader:
                for sequence in range(part * count // 4 + 1, (part + 1) * count // 4 + 1):
                    producer.produce("ml.v1.predictions", answer(7, sequence, stream), f"acme/{stream}")
                await asyncio.to_thread(producer.flush, 10)
                wanted = count - len(got) if part == 3 else chance.randrange(250)
                found = await take(reader, wanted)
                got += [each.sequence for each in found]
                position = json.loads(json.dumps(reader.position()))  # whatever else it had read is forgotten
        return got

    got = asyncio.run(run())
    assert got == list(range(1, count + 1))


def test_a_heartbeat_reveals_that_the_last_answers_are_lost(bootstrap, nats_url):
    stream = f"tail-{os.getpid()}"

    async def run() -> list[object]:
        client = await nats.connect(nats_url)
        events: list[object] = []
        async with Reader(company="acme", streams=[stream], nats=nats_url, on_event=events.append) as reader:
            subject = f"ml.v1.predictions.acme.{stream}"
            await client.publish(subject, answer(7, 1, stream))
            await client.publish(subject, heartbeat(7, 4))
            assert [each.sequence for each in await take(reader, 1)] == [1]
            assert await reader.receive(1) is None
        await client.close()
        return events

    assert asyncio.run(run()) == [Gap("acme", stream, 7, 2, 3)]


def test_a_group_goes_on_where_it_committed(bootstrap):
    stream, group = f"group-{os.getpid()}", f"desk-{os.getpid()}"
    producer = Bare({"bootstrap.servers": bootstrap})

    async def run() -> list[int]:
        got: list[int] = []
        for _ in range(2):
            async with Reader(company="acme", streams=[stream], kafka=bootstrap, group=group) as reader:
                if not got:
                    for sequence in range(1, 101):
                        producer.produce("ml.v1.predictions", answer(7, sequence, stream), f"acme/{stream}")
                    await asyncio.to_thread(producer.flush, 10)
                got += [each.sequence for each in await take(reader, 60 if not got else 40)]
                await reader.commit()
        return got

    assert asyncio.run(run()) == list(range(1, 101))


def test_an_engine_answers_a_producer_on_two_buses_once_and_both_copies_agree(folder, issuer, nats_url):
    count, path, events = 300, str(folder / "two.sock"), []
    signed = issuer.token("acme", user="ann")

    async def run() -> tuple[list[str], list[Answer], dict[str, int]]:
        buses = {"nats": nats_url, "local": path}
        async with (
            Reader(token=signed, on_event=events.append, **buses) as reader,
            Producer(stream="two", token=signed, **buses) as producer,
        ):
            reading = asyncio.create_task(take(reader, count))
            names = []
            for number in range(count):
                vector = FeatureVector(symbol="EURUSD", timestamp_ns=(1_700_000_000 + number * 60) * 10**9)
                vector.price_features.bid, vector.price_features.ask = 1.08, 1.0801
                names.append(await producer.send([vector]))
                await asyncio.sleep(0.002)
            found = await reading
            await eventually(lambda: reader.counts["duplicates"] >= count, 10, "the other bus's copies come")
            await eventually(lambda: reader.counts["heartbeats"] > 0, 10, "an idle producer's heartbeat comes")
            return names, found, reader.counts

    settings = {"engine": {"deadline_ms": 10_000}}
    with EngineProcess(folder, issuer, nats_url, path, settings) as engine:
        engine.wait_ready()
        names, found, counts = asyncio.run(run())
    assert [each.input_name for each in found] == names
    assert all(each.batch is not None for each in found)
    assert events == []
    assert (counts["missing"], counts["unchecked"], counts["foreign"]) == (0, 0, 0)
    assert counts["heartbeats"] > 0

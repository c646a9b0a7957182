"""Kafka beside NATS, with a real broker: taken, answered, committed, begun again.

Each test has a broker of its own where it hurts it, an engine of its own where it ends it.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from tests.system.kafka import Broker, kafka_broker
from tests.system.servers import EngineProcess, Issuer, nats_server, until
from tests.system.traffic import MINUTE_NS, Stream

FEATURES, PREDICTIONS = "ml.v1.features", "ml.v1.predictions"
MANY = 200


class Wire:
    """A producer and a reader of Kafka from the contract alone."""

    def __init__(self, bootstrap: str) -> None:
        options: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200}
        self.producer = Producer({**options, "enable.idempotence": True, "linger.ms": 0})
        self.consumer = Consumer({**options, "group.id": "reader", "auto.offset.reset": "earliest"})
        topics = self.consumer.list_topics(timeout=10).topics
        self.consumer.assign([
            TopicPartition(PREDICTIONS, partition, 0) for partition in topics[PREDICTIONS].partitions
        ])  # fmt: skip
        self.answers: list[tuple[str, MLProcessingEnvelope]] = []

    def send(self, stream: Stream, body: bytes) -> None:
        name = f"{stream.company}/{stream.stream}/{stream.epoch}/{stream.sequence}"
        key = f"{stream.company}/{stream.stream}"
        self.producer.produce(FEATURES, body, key, headers=[("msg-id", name)])
        self.producer.poll(0)

    def flush(self) -> None:
        assert self.producer.flush(20) == 0

    def read(self) -> None:
        for message in self.consumer.consume(500, 0.05):
            if message.error() is None:
                headers = dict(message.headers() or [])
                envelope = MLProcessingEnvelope.FromString(message.value())
                self.answers.append((headers.get("msg-id", b"").decode(), envelope))

    def answered(self, stream: Stream) -> Counter:
        prefix = f"{stream.company}/{stream.stream}/"
        return Counter(each.sequence for name, each in self.answers if prefix in name)

    def until_answered(self, stream: Stream, last: int, within_s: float = 20) -> None:
        def all_there() -> bool:
            self.read()
            return set(self.answered(stream)) >= set(range(1, last + 1))

        until(all_there, within_s, f"answers 1 to {last} of {stream.company} over Kafka")

    def close(self) -> None:
        self.consumer.close()


@contextmanager
def wired(broker: Broker) -> Iterator[Wire]:
    wire = Wire(broker.bootstrap)
    try:
        yield wire
    finally:
        wire.close()


def stream_of(issuer: Issuer, company: str) -> Stream:
    return Stream(company, "feed", issuer.token(company, "pro"))


def message(stream: Stream) -> bytes:
    body = stream.message([stream.vector("EURUSD", 100 if stream.sequence == 0 else 0)])
    stream.event_ns += MINUTE_NS
    return body


def engine_with(folder: Path, issuer: Issuer, broker: Broker, nats_url: str = "", **bus: Any) -> EngineProcess:
    settings = {"bus.kafka": {"bootstrap": broker.bootstrap}, "bus": bus, "engine": {"deadline_ms": 5000}}
    return EngineProcess(folder, issuer, nats_url, settings=settings)


def test_what_comes_over_kafka_is_answered_over_kafka_once_and_in_order(folder: Path, issuer: Issuer) -> None:
    with kafka_broker() as broker, engine_with(folder, issuer, broker) as engine, wired(broker) as wire:
        engine.wait_ready()
        stream = stream_of(issuer, "acme")
        for _ in range(MANY):
            wire.send(stream, message(stream))
        wire.flush()
        wire.until_answered(stream, MANY)
        assert [each.sequence for _, each in wire.answers] == list(range(1, MANY + 1))
        assert wire.answers[0][0] == f"{engine.name}/acme/feed/{stream.epoch}/1"
        assert engine.health()["buses"] == {"kafka": "up"}
        assert engine.stop() == 0


def test_a_new_start_answers_what_was_not_answered_and_repeats_nothing(folder: Path, issuer: Issuer) -> None:
    with kafka_broker() as broker, wired(broker) as wire:
        stream = stream_of(issuer, "bolt")
        with engine_with(folder, issuer, broker) as engine:
            engine.wait_ready()
            for _ in range(50):
                wire.send(stream, message(stream))
            wire.flush()
            wire.until_answered(stream, 50)
            assert engine.stop() == 0
        for _ in range(30):  # nobody is there
            wire.send(stream, message(stream))
        wire.flush()
        with engine as again:
            again.wait_ready()
            wire.until_answered(stream, 80)
            statuses = Counter()
            for _, envelope in wire.answers[50:]:
                statuses[envelope.message_type] += 1
            assert set(wire.answered(stream).values()) == {1}
            assert statuses == {"ml_inference": 30}
            assert again.stop() == 0


def test_partitions_that_came_while_nobody_was_there_are_read_from_their_beginning(
    folder: Path, issuer: Issuer
) -> None:
    with kafka_broker() as broker, wired(broker) as wire:
        old, new = stream_of(issuer, "dune"), stream_of(issuer, "fern")
        with engine_with(folder, issuer, broker) as engine:
            engine.wait_ready()
            wire.send(old, message(old))
            wire.flush()
            wire.until_answered(old, 1)
            assert engine.stop() == 0
        count = len(wire.consumer.list_topics(FEATURES, timeout=10).topics[FEATURES].partitions)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_partitions([NewPartitions(FEATURES, count + 1)])[FEATURES].result(20)
        with wired(broker) as later:  # which knows the partitions that there are now
            for _ in range(5):
                later.producer.produce(FEATURES, message(new), "fern/feed", partition=count)
            later.flush()
        with engine as again:
            again.wait_ready()
            wire.until_answered(new, 5)
            wire.read()
            assert set(wire.answered(old).values()) == {1}
            assert again.stop() == 0


def test_with_nats_and_kafka_up_each_bus_carries_every_answer_once(folder: Path, issuer: Issuer) -> None:
    with (
        kafka_broker() as broker,
        nats_server() as url,
        engine_with(folder, issuer, broker, url) as engine,
        wired(broker) as wire,
    ):
        engine.wait_ready()
        until(lambda: engine.health().get("buses") == {"nats": "up", "kafka": "up"}, 20, "both buses are up")
        stream = stream_of(issuer, "crane")
        for _ in range(MANY):
            wire.send(stream, message(stream))
        wire.flush()
        wire.until_answered(stream, MANY)
        assert set(wire.answered(stream).values()) == {1}
        until(lambda: engine.metric("tickpath_kafka_published_total") >= MANY, 10, "Kafka confirmed all")
        began = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - began < 8

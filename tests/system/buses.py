"""A producer's and a reader's side of both buses, written from the contract alone: nats-py and confluent-kafka.

Runs in the test's process; the Kafka reader in a thread of its own. What must stay true: each bus has a `Reader` of its
own, so that what one carried is never taken for what the other did; the body of a message is the same bytes on both.
"""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import nats
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.system.kafka import TOPICS
from tests.system.traffic import Reader, Stream, eventually

PATIENT_NATS = {"no_echo": True, "reconnect_time_wait": 0.02, "max_reconnect_attempts": -1, "pending_size": 64 << 20}
# Tries again quickly, and for as long as a test may leave the broker away.
CLIENT = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0, "socket.timeout.ms": 3000}


class KafkaSender:
    """Publishes what a stream made under its name; in order, each once, as soon as a broker is there."""

    def __init__(self, bootstrap: str) -> None:
        delivery = {"acks": "all", "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": 0}
        self._producer = Producer({"bootstrap.servers": bootstrap, **CLIENT, **delivery})
        self.confirmed = 0

    def send(self, stream: Stream, sequence: int, body: bytes) -> None:
        key, headers = f"{stream.company}/{stream.stream}", {"msg-id": stream.name(sequence)}
        self._producer.produce("ml.v1.features", body, key, headers=headers, on_delivery=self._heard)
        self._producer.poll(0)

    def flush(self, within_s: float) -> int:
        """How many are not confirmed."""
        return self._producer.flush(within_s)

    def _heard(self, error, _) -> None:
        assert error is None, error
        self.confirmed += 1


@contextmanager
def kafka_reader(bootstrap: str) -> Iterator[Reader]:
    """All answers that are published from now on."""
    reader, ending, ended = Reader(), threading.Event(), []
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "fetch.wait.max.ms": 20, **CLIENT})
    topics = consumer.list_topics(timeout=20).topics
    places = [TopicPartition(topic, each) for topic in TOPICS[2:4] for each in topics[topic].partitions]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, timeout=20)[1]
    consumer.assign(places)

    def read() -> None:
        with contextlib.closing(consumer):
            while not ending.is_set():
                message = consumer.poll(0.05)
                if message is None or message.error() is not None:  # the broker is away: the client tries again
                    continue
                subject = ".".join((message.topic(), *(message.key() or b"").decode().split("/"))).rstrip(".")
                name = dict(message.headers() or ()).get("msg-id", b"")
                reader.hear(subject, name.decode(), message.value())
        ended.append(True)

    thread = threading.Thread(target=read, name="kafka-reader", daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        ending.set()
        thread.join(20)
        assert ended, "the Kafka reader died: see the traceback above"


@dataclass
class Both:
    """A connection to each bus, and what came on each."""

    nats: nats.NATS
    kafka: KafkaSender
    readers: dict[str, Reader]

    async def over_nats(self, stream: Stream, sequence: int, body: bytes) -> None:
        """While the server is away this client keeps it, and sends it when it is back."""
        await self.nats.publish(stream.subject, body, headers={"Nats-Msg-Id": stream.name(sequence)})

    async def over_both(self, stream: Stream, sequence: int, body: bytes) -> None:
        self.kafka.send(stream, sequence, body)
        await self.over_nats(stream, sequence, body)

    def answered(self, stream: Stream) -> set[int]:
        """Sequences that either bus brought an answer for."""
        return {sequence for reader in self.readers.values() for sequence in reader.answered(stream)}

    async def all_answered(self, streams: list[Stream], within_s: float) -> None:
        def missing() -> list[str]:
            return [s.name(n) for s in streams for n in sorted(set(s.sent) - self.answered(s))]

        try:
            await eventually(lambda: not missing(), within_s, "everything sent is answered")
        except AssertionError as error:
            raise AssertionError(f"{error}; {len(missing())} are missing: {missing()[:10]}") from None


@asynccontextmanager
async def on_both(nats_url: str, bootstrap: str) -> AsyncIterator[Both]:
    client = await nats.connect(nats_url, **PATIENT_NATS)
    try:
        with kafka_reader(bootstrap) as from_kafka:
            readers = {"nats": await Reader().open(client), "kafka": from_kafka}
            yield Both(client, KafkaSender(bootstrap), readers)
    finally:
        await client.close()

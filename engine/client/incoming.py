"""A reader's way in over one bus: bodies as they come, in the bus's order.

Owns one connection a bus. Runs in a reader's process, on its loop; reads answers from NATS, Kafka or the local bus.
What must stay true: whoever takes the bodies sets the pace (`take` is awaited), nothing is confirmed to Kafka that
was not handed over, and a bus that is away is tried again for ever.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg

from engine.bus import frames, kafka
from engine.bus.nats import NatsLink
from engine.client.connecting import BUS_LOG, RETRY_S, check_files
from engine.client.sender import subscription
from engine.client.staying import stay_connected
from engine.client.tokens import Tokens
from engine.contract.names import PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT, is_name
from engine.errors import BusError
from engine.knobs import without_passwords
from engine.settings import Kafka, Local, Nats
from engine.shared import BusState

TOPICS = (PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT)
ANSWER_BYTES_MAX = 8 << 20  # far above any answer; a length beyond it is no frame of ours
POLL_S = 0.1
AT_ONCE = 500  # records taken from librdkafka in one go
NEW_PARTITIONS_S = 10.0


class Spot(NamedTuple):
    """A record's place in Kafka."""

    topic: str
    partition: int
    offset: int


# (body, stream or "", bus, its place in Kafka)
Take = Callable[[bytes, str, str, Spot | None], Awaitable[None]]


class Source(Protocol):
    """What a reader needs of a bus."""

    bus: str
    where: str
    up: bool
    why: str
    changed: Callable[[], None]

    def open(self) -> None: ...

    def absent(self, within_s: float) -> BusError: ...

    async def close(self) -> None: ...


SUBJECTS_PENDING_BYTES = 64 << 20  # of one subscription, before the client drops; drops show as gaps


class NatsSource:
    """Subscribes to the predictions and rejections of a company, of all its streams or of some."""

    bus = "nats"

    def __init__(self, section: Nats, name: str, company: str, streams: Iterable[str], take: Take) -> None:
        check_files(section)
        self.where = without_passwords(section.url)
        self.up = False
        self.why = ""
        self.changed: Callable[[], None] = lambda: None
        self._subjects = [f"{topic}.{company}.{stream}" for stream in streams or (">",) for topic in TOPICS]
        self._take = take
        self._link = NatsLink(section, name, BUS_LOG, self._on_state)
        self._link.on_trouble = self._on_trouble

    def open(self) -> None:
        self._link.open(self._subscribe)

    def absent(self, within_s: float) -> BusError:
        return BusError(
            f"bus.nats.url = {self.where}: no connection within {within_s:g} s ({self.why or 'no answer'}); "
            "start nats-server, or correct the URL"
        )

    async def _subscribe(self, client: Client) -> None:
        for subject in self._subjects:
            await client.subscribe(
                subject, cb=self._deliver, pending_msgs_limit=-1, pending_bytes_limit=SUBJECTS_PENDING_BYTES
            )
        await client.flush()  # whatever is sent from now on is seen

    async def _deliver(self, message: Msg) -> None:
        await self._take(message.data, message.subject.rpartition(".")[2], self.bus, None)

    def _on_state(self, state: BusState) -> None:
        self.up = state == BusState.UP
        self.changed()

    def _on_trouble(self, error: Exception) -> None:
        self.why = str(error) or type(error).__name__

    async def close(self) -> None:
        await self._link.close()


class KafkaSource:
    """Reads both topics, by an assignment of its own or as a member of a group.

    Without a position it begins at the end, as a subscriber of NATS does; a group where it committed.
    """

    bus = "kafka"

    def __init__(
        self, section: Kafka, name: str, company: str, group: str, offsets: dict[tuple[str, int], int], take: Take
    ) -> None:
        self.where = section.bootstrap
        self.up = False
        self.why = ""
        self.changed: Callable[[], None] = lambda: None
        self._section = section
        self._name = name
        self._company = company
        self._group = group
        self._offsets = offsets  # where each partition is to go on
        self._take = take
        self._consumer: Any = None
        self._assigned: set[tuple[str, int]] = set()
        self._thread = ThreadPoolExecutor(1, "tickpath-kafka")
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        from confluent_kafka import Consumer

        options = {
            "group.id": self._group or f"{self._name}-none",  # without a group it is never used
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "allow.auto.create.topics": False,
            "topic.metadata.refresh.interval.ms": int(NEW_PARTITIONS_S * 1000),
            **kafka.options(self._section, self._name),
            "error_cb": self._on_error,
            "logger": BUS_LOG,
        }
        self._consumer = Consumer(options)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def absent(self, within_s: float) -> BusError:
        return BusError(
            f"bus.kafka.bootstrap = {self.where}: no broker that has {' and '.join(TOPICS)} answers within "
            f"{within_s:g} s ({self.why or 'no answer'}); start the broker, correct the address, or make the topics"
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = 0.0
        if self._group:
            self._consumer.subscribe(list(TOPICS), on_assign=self._on_assign, on_revoke=self._on_revoke)
        while True:
            if not self._group and loop.time() >= look_at:
                await loop.run_in_executor(self._thread, self._assign)
                look_at = loop.time() + (NEW_PARTITIONS_S if self._assigned else RETRY_S)
            if self.up != bool(self._assigned):
                self.up = bool(self._assigned)
                self.changed()
            for record in await loop.run_in_executor(self._thread, self._batch):
                if record.error() is not None:
                    self.why = record.error().str()
                    continue
                company, _, stream = (record.key() or b"").decode(errors="replace").partition("/")
                if company == self._company and is_name(stream):
                    spot = Spot(record.topic(), record.partition(), record.offset())
                    await self._take(record.value() or b"", stream, self.bus, spot)

    def _batch(self) -> list[Any]:
        """In the thread: as soon as there is one, with those that came together with it."""
        first = self._consumer.poll(POLL_S)
        return [] if first is None else [first, *self._consumer.consume(AT_ONCE, 0)]

    def _assign(self) -> None:
        """In the thread: partitions that are not read yet; those that come into being later from their beginning."""
        from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

        try:
            listed = self._consumer.list_topics(timeout=2.0).topics
            found = {
                (topic, partition)
                for topic in TOPICS
                if topic in listed and listed[topic].error is None
                for partition in listed[topic].partitions
            }
            is_first = not self._assigned
            new = []
            for topic, partition in sorted(found - self._assigned):
                offset = self._offsets.get((topic, partition))
                if offset is None and is_first and not self._offsets:
                    # The end as it is now: "at the end" would be wherever it is when the first fetch succeeds.
                    offset = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=2.0)[1]
                new.append(TopicPartition(topic, partition, OFFSET_BEGINNING if offset is None else offset))
            if new and {each.topic for each in new} | {topic for topic, _ in self._assigned} == set(TOPICS):
                self._consumer.incremental_assign(new)
                self._assigned |= {(each.topic, each.partition) for each in new}
        except KafkaException as error:
            self.why = error.args[0].str()

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        for each in partitions:
            each.offset = self._offsets.get((each.topic, each.partition), each.offset)
        consumer.assign(partitions)
        self._assigned = {(each.topic, each.partition) for each in partitions}

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        self._assigned -= {(each.topic, each.partition) for each in partitions}

    def _on_error(self, error: Any) -> None:
        self.why = error.str()

    async def commit(self, offsets: dict[tuple[str, int], int]) -> None:
        """For a group: where it goes on after a restart."""
        from confluent_kafka import KafkaException, TopicPartition

        own = self._assigned  # another member's are not ours to say
        places = [TopicPartition(*place, offset) for place, offset in offsets.items() if place in own]
        if not places:
            return
        try:
            await asyncio.to_thread(self._consumer.commit, offsets=places, asynchronous=False)
        except KafkaException as error:
            raise BusError(
                f"bus.kafka.bootstrap = {self.where}: the group {self._group} could not commit "
                f"({error.args[0].str()}); commit again later"
            ) from error

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._consumer.close)
        self._thread.shutdown()


class LocalSource:
    """Reads its company's answers from the socket of readers, which wants a token."""

    bus = "local"

    def __init__(self, section: Local, name: str, company: str, user: str, tokens: Tokens, take: Take) -> None:
        self.where = f"{section.path}.out"
        self.up = False
        self.why = ""
        self.changed: Callable[[], None] = lambda: None
        self._tokens = tokens
        self._who = (company, user, name)
        self._take = take
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(stay_connected(self.where, self._read, self._left))

    def absent(self, within_s: float) -> BusError:
        return BusError(
            f"bus.local.path + .out = {self.where}: nobody answers within {within_s:g} s ({self.why or 'no answer'}); "
            "start the engine with the same configuration"
        )

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        incoming = frames.FrameReader(ANSWER_BYTES_MAX)
        writer.write(frames.encode(subscription(*self._who, self._tokens.current)))
        self._turn(True)
        while data := await reader.read(1 << 18):
            for body in incoming.feed(data):
                await self._take(body, "", self.bus, None)
        return "it closed the connection; see whether the token is valid, and the engine's log"

    def _left(self, why: str) -> None:
        self.why = why
        if self.up:
            self._turn(False)

    def _turn(self, up: bool) -> None:
        self.up = up
        self.changed()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

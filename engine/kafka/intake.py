"""Kafka to ingress: records of the features topic into `kafka_in`, and commits of what is done.

Owns the consumer, the ring's head and the partition rows' `placed`, `noted_end`, `answered`. Runs in a thread of
the kafka process. What must stay true: records of a partition go into the ring in order, each once while this
process lives, and the arbiter takes each once; committed is what ingress calls done and never more; nothing is
skipped without a word.

After the loss of the whole engine it begins at the offset that the last commit's metadata names, from which live
windows can be filled; what lies below the commit is marked as answered.
"""

import json
import threading
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from engine import limits
from engine.bus import kafka
from engine.child import Child
from engine.shared import INGRESS, Count

BATCH = 256
POLL_S = 0.05
REQUEST_S = 5.0
FULL_WAIT_S = 0.001
LOOK_MS = 200
OUTSIDE = ("statistics.interval.ms", "stats_cb", "error_cb")


class Intake:
    """`run` until `ending` is set; `broken` holds what ended it before."""

    def __init__(self, child: Child, ending: threading.Event) -> None:
        self.child = child
        self.shared = child.shared
        assert child.shared.kafka_in is not None, "this process runs where Kafka is configured"
        self.ring = child.shared.kafka_in
        self.counters = child.counters
        self.ending = ending
        self.up = False
        self.broken: Exception | None = None
        self._number = 0
        self._committed: dict[int, tuple[int, int]] = {}
        self._told = ""

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:
            self.broken = error

    def _run(self) -> None:
        settings = self.child.settings
        common = kafka.options(settings.bus.kafka, f"{settings.engine.name}-in")
        consumer = Consumer({
            "group.id": f"tickpath-{settings.engine.name}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 100,
            "fetch.min.bytes": 1,
            "fetch.error.backoff.ms": 50,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 16_384,
            "statistics.interval.ms": LOOK_MS,
            "stats_cb": self._look,
            "error_cb": self._failed,
            **common,
        })  # fmt: skip
        admin = AdminClient(common)
        try:
            while not self.ending.is_set() and not self._begin(consumer, admin):
                consumer.poll(0.25)
            looked_s = committed_s = time.monotonic()
            while not self.ending.is_set():
                first = consumer.poll(POLL_S)
                if first is not None:
                    for message in (first, *consumer.consume(BATCH - 1, 0)):
                        self._place(message)
                    self.shared.bells[INGRESS.row].ring()
                now_s = time.monotonic()
                if now_s - committed_s > limits.KAFKA_COMMIT_S:
                    committed_s = now_s
                    self._commit(consumer, wait=False)
                if now_s - looked_s > limits.KAFKA_LOOK_S:
                    looked_s = now_s
                    self._take_new_partitions(consumer)
            self._commit(consumer, wait=True)
        finally:
            consumer.close()

    def _begin(self, consumer: Consumer, admin: AdminClient) -> bool:
        """Finds where to read from and begins. False: ask again."""
        try:
            count = self._partitions(consumer, admin)
            if count == 0:
                return False
            if not int(self.shared.kafka[0]["partitions"]):
                places = [TopicPartition(kafka.FEATURES_TOPIC, each) for each in range(count)]
                commits = consumer.committed(places, timeout=REQUEST_S)
                is_new = all(each.offset < 0 for each in commits)
                marks = []
                for found in commits:
                    begin = self._begin_cold(consumer, found, is_new)
                    if found.offset < 0:
                        marks.append(_mark(found.partition, begin, begin))
                if marks:  # in one request: a group that has some of them is not new
                    consumer.commit(offsets=marks, asynchronous=False)
                self.shared.kafka[0]["partitions"] = count
            count = int(self.shared.kafka[0]["partitions"])
            rows = self.shared.partitions
            consumer.assign([
                TopicPartition(kafka.FEATURES_TOPIC, each, int(rows[each]["placed"])) for each in range(count)
            ])  # fmt: skip
        except KafkaException as error:
            self._tell(f"kafka: {error.args[0].str()}; asking again")
            return False
        self.child.log.info("kafka: reads %d partitions of %s", count, kafka.FEATURES_TOPIC)
        return True

    def _begin_cold(self, consumer: Consumer, found: TopicPartition, is_new: bool) -> int:
        """Where to begin with a partition that no process of this engine read. `found`: its commit; `is_new`: the group
        has none for any partition."""
        partition = found.partition
        place = TopicPartition(kafka.FEATURES_TOPIC, partition)
        low, high = consumer.get_watermark_offsets(place, timeout=REQUEST_S)
        row = self.shared.partitions[partition]
        if found.offset < 0:  # what was there before this group is not its business; else the topic grew without it
            commit = begin = high if is_new else low
        else:
            commit = min(found.offset, high)
            begin = min(max(_rewind(found), low), commit) if found.offset >= low else low
            if found.offset < low:
                self.child.log.error(
                    "kafka: records %d to %d of partition %d were deleted there before they were answered",
                    found.offset, low - 1, partition,
                )  # fmt: skip
            if found.offset > high:
                self.child.log.error(
                    "kafka: partition %d ends at %d, before this engine's commit %d: it was made anew",
                    partition, high, found.offset,
                )  # fmt: skip
        row["noted_end"], row["answered"] = high, commit
        row["settled"] = row["done"] = row["rewind"] = begin
        row["placed"] = begin
        return begin

    def _partitions(self, consumer: Consumer, admin: AdminClient) -> int:
        """How many the features topic has; topics that are missing are made where that is allowed."""
        there = consumer.list_topics(timeout=REQUEST_S).topics
        missing = [topic for topic in (kafka.FEATURES_TOPIC, *kafka.TOPICS) if topic not in there]
        if missing:
            for topic, future in admin.create_topics([NewTopic(each) for each in missing]).items():
                try:
                    future.result(REQUEST_S)
                    self.child.log.info("kafka: made topic %s", topic)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        self._tell(
                            f"kafka: topic {topic} is missing and cannot be made: {error.args[0].str()}; "
                            "make it, or let this engine do so"
                        )
            there = consumer.list_topics(timeout=REQUEST_S).topics
        topic = there.get(kafka.FEATURES_TOPIC)
        return min(len(topic.partitions), limits.PARTITIONS_MAX) if topic is not None and topic.error is None else 0

    def _take_new_partitions(self, consumer: Consumer) -> None:
        """A topic may grow; a new partition is read from its beginning, for all of it is new."""
        try:
            topic = consumer.list_topics(kafka.FEATURES_TOPIC, timeout=1.0).topics[kafka.FEATURES_TOPIC]
        except KafkaException:
            return  # it is away, which the state tells
        known = int(self.shared.kafka[0]["partitions"])
        count = min(len(topic.partitions), limits.PARTITIONS_MAX)
        if count > known:
            consumer.incremental_assign([
                TopicPartition(kafka.FEATURES_TOPIC, each, 0) for each in range(known, count)
            ])  # fmt: skip
            self.shared.kafka[0]["partitions"] = count
            self.child.log.info("kafka: %d more partitions", count - known)

    def _place(self, message: Any) -> None:
        """Into the ring; where it is full Kafka waits, nobody else."""
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise RuntimeError(f"kafka: {error.str()}; records that were not read are gone there")
            self._tell(f"kafka: {error.str()}")
            return
        row = self.shared.partitions[message.partition()]
        raw, key = message.value() or b"", message.key() or b""
        most = self.child.settings.limits.message_bytes + 1  # enough to be found too large
        answered = message.offset() < int(row["answered"])
        self._number += 1
        arguments = self._number, message.partition(), message.offset(), answered, key[:256], raw[:most]
        while not kafka.put_input(self.ring, *arguments):
            self.shared.bells[INGRESS.row].ring()
            if self.ending.wait(FULL_WAIT_S):
                return
        row["placed"] = message.offset() + 1
        self.counters[Count.KAFKA_TAKEN] += 1

    def _commit(self, consumer: Consumer, wait: bool) -> None:
        """What ingress says is done."""
        marks = []
        for partition in range(int(self.shared.kafka[0]["partitions"])):
            row = self.shared.partitions[partition]
            done, rewind = int(row["done"]), int(row["rewind"])
            if done > int(row["answered"]) and self._committed.get(partition) != (done, rewind):
                marks.append(_mark(partition, done, rewind))
                self._committed[partition] = done, rewind
        if not marks:
            return
        try:
            if wait:
                consumer.commit(offsets=marks, asynchronous=False)
            else:
                consumer.commit(offsets=marks)
        except KafkaException as error:
            self._committed.clear()
            self._tell(f"kafka: not committed: {error.args[0].str()}")

    def _look(self, text: str) -> None:
        state = json.loads(text)
        up = any(each["state"] == "UP" for each in state["brokers"].values())
        if up != self.up:
            self.up = up
            self._committed.clear()  # a commit may have been lost with the connection
            self.child.log.log(20 if up else 30, "kafka is %s for reading", "up" if up else "away")

    def _failed(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.up = False

    def _tell(self, line: str) -> None:
        if line != self._told:
            self._told = line
            self.child.log.warning("%s", line)


def _mark(partition: int, done: int, rewind: int) -> TopicPartition:
    return TopicPartition(kafka.FEATURES_TOPIC, partition, done, f"rewind={min(rewind, done)}")


def _rewind(found: TopicPartition) -> int:
    """From a commit's metadata; somebody else's commit names none, and is where to begin."""
    name, _, number = (found.metadata or "").partition("=")
    return int(number) if name == "rewind" and number.isdecimal() else int(found.offset)

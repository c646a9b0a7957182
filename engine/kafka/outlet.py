"""Answers to Kafka: from `kafka_out` through an idempotent producer, released once confirmed.

Owns the producer and the ring's tail. Runs in the kafka process. What must stay true: the tail passes a record
only when Kafka confirmed it (acks=all), or will never take it, which is told and counted.
"""

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Producer

from engine.bus import kafka
from engine.child import Child
from engine.shared import EGRESS, Count

LOOK_MS = 200  # how often the client tells which brokers are up
AGAIN_S = 1.0  # after a broker did not take a record that it may take later
NEVER = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD)  # it will not take this one


@dataclass(slots=True)
class Sent:
    """A record on its way."""

    end: int
    confirmed: bool = False  # or never will be
    failed: bool = False  # and is sent again, with all that was sent after it


class Outlet:
    """`open`, then `turn` again and again, `close`."""

    def __init__(self, child: Child) -> None:
        self.child = child
        assert child.shared.kafka_out is not None, "this process runs where Kafka is configured"
        self.ring = child.shared.kafka_out
        self.counters = child.counters
        self.position = self.ring.tail  # what a predecessor sent and was not confirmed is sent again
        self.up = False
        self._sent: deque[Sent] = deque()
        self._failing = False  # until all that is on its way was heard of
        self._again_s = 0.0  # nothing is sent before

    @property
    def unconfirmed(self) -> bool:
        return bool(self._sent)

    def open(self) -> None:
        settings = self.child.settings
        self.producer = Producer({
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 0,
            "message.timeout.ms": 0,  # what a broker does not take waits here; the ring bounds it
            "request.timeout.ms": 3000,
            "message.max.bytes": 10_000_000,
            "queue.buffering.max.messages": 100_000,
            "statistics.interval.ms": LOOK_MS,
            "stats_cb": self._look,
            "error_cb": self._failed,
            **kafka.options(settings.bus.kafka, f"{settings.engine.name}-out"),
        })  # fmt: skip

    def turn(self) -> None:
        """Sends what is new, hears what was confirmed."""
        waits = self._failing or time.monotonic() < self._again_s
        for output in () if waits else kafka.outputs(self.ring, self.position):
            sent = Sent(output.end)
            headers: Any = [(kafka.NAME_HEADER, output.name.encode())] if output.name else []
            try:
                self.producer.produce(
                    output.topic, output.body, output.key, headers=headers, on_delivery=self._heard(sent)
                )
            except BufferError:  # enough is on its way
                break
            self._sent.append(sent)
            self.position = output.end
        self.producer.poll(0)
        end = -1
        while self._sent and self._sent[0].confirmed:
            end = self._sent.popleft().end
        if end >= 0:
            self.ring.release(end)
            self.child.shared.bells[EGRESS.row].ring()
        if self._failing and all(each.failed or each.confirmed for each in self._sent):
            self._failing = False
            self._sent.clear()
            self.position, self._again_s = self.ring.tail, time.monotonic() + AGAIN_S

    def close(self) -> None:
        self.producer.poll(0)

    def _heard(self, sent: Sent) -> Any:
        def heard(error: KafkaError | None, message: Any) -> None:
            if error is None:
                sent.confirmed = True
                self.counters[Count.KAFKA_PUBLISHED] += 1
                return
            if error.fatal():
                raise RuntimeError(f"kafka: {error.str()}; a new producer sends again what was not confirmed")
            sent.confirmed, sent.failed = error.code() in NEVER, error.code() not in NEVER
            self.counters[Count.KAFKA_REFUSED] += sent.confirmed
            if sent.failed and self._failing:
                return  # told of the first
            self._failing |= sent.failed
            will = "does not take" if sent.failed else "will not take"
            self.child.log.error("kafka %s %d bytes for %s: %s", will, len(message), message.topic(), error.str())

        return heard

    def _look(self, text: str) -> None:
        brokers = json.loads(text)["brokers"].values()
        up = any(each["state"] == "UP" for each in brokers) and not self._failing
        if up != self.up:
            self.up = up
            self.child.log.log(20 if up else 30, "kafka is %s for writing", "up" if up else "away")

    def _failed(self, error: KafkaError) -> None:
        if error.fatal():
            raise RuntimeError(f"kafka: {error.str()}; a new producer sends again what was not confirmed")
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.up = False

"""Answers to Kafka: from `kafka_out` through an idempotent producer, released once confirmed.

Owns the producer and the ring's tail. Runs in the kafka process. What must stay true: the tail passes a record
only when Kafka confirmed it (acks=all), or will never take it, which is told and counted.
"""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Producer

from engine.bus import kafka
from engine.child import Child
from engine.shared import EGRESS, Count

LOOK_MS = 200  # how often the client tells which brokers are up


@dataclass(slots=True)
class Sent:
    """A record on its way."""

    end: int
    confirmed: bool = False


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
        for output in kafka.outputs(self.ring, self.position):
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

    def close(self) -> None:
        self.producer.poll(0)

    def _heard(self, sent: Sent) -> Any:
        def heard(error: KafkaError | None, message: Any) -> None:
            sent.confirmed = True
            if error is None:
                self.counters[Count.KAFKA_PUBLISHED] += 1
                return
            if error.fatal():
                raise RuntimeError(f"kafka: {error.str()}; a new producer sends again what was not confirmed")
            self.counters[Count.KAFKA_REFUSED] += 1
            self.child.log.error("kafka will not take %d bytes for %s: %s", len(message), message.topic(), error.str())

        return heard

    def _look(self, text: str) -> None:
        brokers = json.loads(text)["brokers"].values()
        up = any(each["state"] == "UP" for each in brokers)
        if up != self.up:
            self.up = up
            self.child.log.log(20 if up else 30, "kafka is %s for writing", "up" if up else "away")

    def _failed(self, error: KafkaError) -> None:
        if error.fatal():
            raise RuntimeError(f"kafka: {error.str()}; a new producer sends again what was not confirmed")
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.up = False

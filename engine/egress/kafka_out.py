"""Answers to Kafka: into the ring that the kafka process empties.

Owns the head of `kafka_out` and what waits for room there. Runs in egress. What must stay true: egress never
waits for Kafka; what the ring's tail has passed, Kafka confirmed; what waits is bounded, and an overflow told.
"""

from collections import deque
from typing import Any

from engine.bus import kafka
from engine.egress.encoding import Answer
from engine.shared import KAFKA, BusState, Count, Shared

WAITS = -1  # for room in the ring


class KafkaOut:
    """Where Kafka is configured.

    Parameters
    ----------
    both
        Whether every answer goes over Kafka, or only those that NATS does not take.
    waiting_bytes_max
        Of the copies beyond the ring; more pushes the oldest out.
    """

    def __init__(self, shared: Shared, counters: memoryview, both: bool, waiting_bytes_max: int) -> None:
        self.shared = shared
        self.ring: Any = shared.kafka_out
        self.counters = counters
        self.both = both
        self.waiting_bytes_max = waiting_bytes_max
        self.waiting_bytes = 0
        self._waiting: deque[tuple[Answer, Any]] = deque()
        self._number = 0

    @property
    def is_up(self) -> bool:
        return int(self.shared.children[KAFKA.row]["bus_kafka"]) == BusState.UP

    @property
    def takes(self) -> bool:
        """Whether an answer given now is published soon."""
        return self.is_up and not self._waiting

    def confirmed(self, end: int) -> bool:
        return 0 < end <= self.ring.tail

    def offer(self, answer: Answer) -> int:
        """The ring's position after it, 0: no room now."""
        if self._waiting:
            return 0
        return self._put(answer)

    def keep(self, answer: Answer, owner: Any) -> None:
        """For later: once it is in the ring `owner.kafka_end` says where."""
        self._waiting.append((answer, owner))
        self.waiting_bytes += len(answer.body)
        while self.waiting_bytes > self.waiting_bytes_max:
            dropped, whose = self._waiting.popleft()
            self.waiting_bytes -= len(dropped.body)
            whose.kafka_end = 0
            self.counters[Count.OUTBOX_DROPPED] += 1

    def empty(self) -> list[Any]:
        """Moves what waits into the ring as far as there is room. Whose that was."""
        moved = []
        while self._waiting and (end := self._put(self._waiting[0][0])):
            answer, owner = self._waiting.popleft()
            self.waiting_bytes -= len(answer.body)
            owner.kafka_end = end
            moved.append(owner)
        return moved

    def _put(self, answer: Answer) -> int:
        self._number += 1
        topic, key = kafka.place_of(answer.subject)
        end = kafka.put_output(self.ring, self._number, topic, key, answer.name.encode(), answer.body)
        if end < 0:
            return 0
        self.shared.bells[KAFKA.row].ring()
        return end

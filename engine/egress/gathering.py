"""Answer slots to whole answers: an input's slots lie in one ring, one after another.

Owns a read cursor for each worker's ring. Runs in egress. Reads answers rings and `inputs`. What must
stay true: a slot is read again after a restart until its input is done, a repeated slot is dropped,
and answers of one stream come out in the order in which they went in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine import records
from engine.contract.names import Reason
from engine.egress.encoding import Answer
from engine.shared import Stage
from fastpath.answers import words
from fastpath.ring import ByteRing, Ring


@dataclass(slots=True)
class Gathered:
    """All answer slots of one input.

    `end` is the position after its last slot: the ring's tail once the input is done. `taken_ns` and `answered_ns` are
    that slot's stamps. poisoned: a slot of it killed workers.
    """

    worker: int
    end: int
    position: int
    slots: list[np.void]
    record: records.Record
    taken_ns: int
    answered_ns: int
    poisoned: bool

    def spans_ns(self, sent_ns: int) -> tuple[tuple[Stage, int], ...]:
        """Where its time went, by its last slot's stamps. What ENGINE has beyond the others is the way to a worker."""
        return (
            (Stage.WORKER, self.answered_ns - self.taken_ns),
            (Stage.EGRESS, sent_ns - self.answered_ns),
            (Stage.ENGINE, sent_ns - self.record.head.received_ns),
        )


@dataclass(slots=True)
class Pending:
    """One answer between gathering and done."""

    gathered: Gathered
    answer: Answer | None = None
    sent_ns: int = 0
    nats_connection: int = 0  # which one carried it, 0: none
    kafka_end: int = 0  # where the ring to Kafka has it, 0: it has not, WAITS: it will have
    local_sent: bool = False
    done: bool = False


class Gatherer:
    """Reads one worker's answers ring."""

    def __init__(self, worker: int, ring: Ring, inputs: ByteRing) -> None:
        self.worker = worker
        self.ring = ring
        self.inputs = inputs
        self.cursor = ring.tail
        self._parts: list[np.void] = []
        self._poisoned = False
        self._last_request = -1

    def ready(self) -> bool:
        return self.ring.peek(self.cursor) > 0

    def drain(self) -> Iterator[Gathered]:
        """Every input whose last slot was published."""
        ring = self.ring
        for _ in range(ring.peek(self.cursor)):
            place = self.cursor
            self.cursor += 1
            request, index, count, at, expected, taken_ns, answered_ns, reason = words(ring, place)
            if request <= self._last_request:
                continue
            self._last_request = request
            if index != len(self._parts):
                raise RuntimeError(
                    f"answer to request {request}: expected part {len(self._parts)} of its input, "
                    f"found {index}; the arena is corrupt"
                )
            self._parts.append(ring.slots[place & ring.mask])
            self._poisoned = reason == Reason.POISON or (self._poisoned and index > 0)
            if len(self._parts) == count:
                parts, self._parts = self._parts, []
                record = records.read(self.inputs, at, whole=False)
                found = record.head.position
                if found != expected:
                    raise RuntimeError(
                        f"answer of input {expected} points at the record of {found}; the arena is corrupt"
                    )
                yield Gathered(self.worker, self.cursor, expected, parts, record, taken_ns, answered_ns, self._poisoned)

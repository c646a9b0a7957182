"""Answer slots to whole answers: an input's slots lie in one ring, one after another.

Owns a read cursor for each worker's ring. Runs in egress. Reads answers rings and `inputs`. What must
stay true: a slot is read again after a restart until its input is done, a repeated slot is dropped,
and answers of one stream come out in the order in which they went in.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine import records
from engine.egress.encoding import Answer
from engine.shared import Stage
from fastpath.ring import ByteRing, Ring


@dataclass(slots=True)
class Gathered:
    """All answer slots of one input.

    `end` is the position after its last slot: the ring's tail once the input is done.
    """

    worker: int
    end: int
    position: int
    slots: list[np.void]
    record: records.Record

    def spans_ns(self, sent_ns: int) -> dict[Stage, int]:
        """Where its time went, by its last slot's stamps. What ENGINE has beyond the others is the way to a worker."""
        received_ns = int(self.record.head["received_ns"])
        taken_ns, answered_ns = int(self.slots[-1]["taken_ns"]), int(self.slots[-1]["answered_ns"])
        return {
            Stage.WORKER: answered_ns - taken_ns,
            Stage.EGRESS: sent_ns - answered_ns,
            Stage.ENGINE: sent_ns - received_ns,
        }


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
        self._last_request = -1

    def ready(self) -> bool:
        return self.ring.peek(self.cursor) > 0

    def drain(self) -> Iterator[Gathered]:
        """Every input whose last slot was published."""
        ring = self.ring
        for _ in range(ring.peek(self.cursor)):
            slot = ring.slots[self.cursor & ring.mask]
            self.cursor += 1
            if int(slot["request"]) <= self._last_request:
                continue
            self._last_request = int(slot["request"])
            if int(slot["index"]) != len(self._parts):
                raise RuntimeError(
                    f"answer to request {self._last_request}: expected part {len(self._parts)} of its input, "
                    f"found {int(slot['index'])}; the arena is corrupt"
                )
            self._parts.append(slot)
            if len(self._parts) == int(slot["count"]):
                parts, self._parts = self._parts, []
                record = records.read(self.inputs, int(slot["record"]), whole=False)
                found, expected = record.head["position"], int(slot["input"])
                if found != expected:
                    raise RuntimeError(
                        f"answer of input {expected} points at the record of {found}; the arena is corrupt"
                    )
                yield Gathered(self.worker, self.cursor, expected, parts, record)

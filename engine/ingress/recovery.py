"""After a start: Kafka first, and what the other buses bring meanwhile is held.

Owns what is held. Runs in ingress. What must stay true: what Kafka kept of before the start is decided before
anything newer, so that no input is answered twice; what is held is bounded, and the wait for Kafka too.
"""

import time
from collections import deque
from collections.abc import Callable

from engine.contract.names import Bus
from engine.ingress.offsets import Offsets
from engine.shared import KAFKA, BusState, Shared

HELD_BYTES_MAX = 64 << 20
ABSENT_S = 2.0  # a Kafka that cannot be reached for so long is not waited for


class Recovery:
    """From the start until all was read that Kafka had then."""

    def __init__(self, shared: Shared, offsets: Offsets, limit_ms: int) -> None:
        self.shared = shared
        self.offsets = offsets
        self.limit_s = limit_ms / 1000
        self.held: deque[tuple[bytes, str | None, Bus]] = deque()
        self.over = False
        self._held_bytes = 0
        self._began_s = time.monotonic()

    def holds(self, raw: bytes, subject: str | None, bus: Bus) -> bool:
        """False: it was not kept, and has its turn now."""
        if self._held_bytes + len(raw) > HELD_BYTES_MAX:
            return False
        self._held_bytes += len(raw)
        self.held.append((raw, subject, bus))
        return True

    def ended(self) -> bool:
        """Whether the wait ended just now. What comes before all that is held was let in is held, too."""
        waited_s = time.monotonic() - self._began_s
        up = int(self.shared.children[KAFKA.row]["bus_kafka"]) == BusState.UP
        before = self.over
        self.over |= self.offsets.recovered() or waited_s > (self.limit_s if up else min(ABSENT_S, self.limit_s))
        return self.over and not before

    def let_in(
        self, until_ns: int, has_room: Callable[[str], bool], enter: Callable[[bytes, str | None, Bus], str]
    ) -> bool:
        """Enters what is held, as far as there is time, and room for its company. True: nothing is left."""
        while self.held and time.monotonic_ns() < until_ns:
            raw, subject, bus = self.held[0]
            if not has_room(subject.split(".")[-2] if subject else ""):
                break
            self.held.popleft()
            self._held_bytes -= len(raw)
            enter(raw, subject, bus)
        return not self.held

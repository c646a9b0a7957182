"""From where Kafka has to be read again so that nothing is missed.

Owns, for each partition, the records that were read and whose answers were not handed over. Pure. Runs in a reader's
process. What must stay true: a record below the offset that is told was handed over, or was no answer.
"""

from collections import defaultdict, deque
from typing import Any

from engine.client.incoming import Spot
from engine.client.tracks import PositionError, whole

OFFSET_MAX = (1 << 63) - 1
Key = tuple[str, int, int]  # stream, epoch, sequence


class Offsets:
    """By topic and partition.

    Examples
    --------
    >>> offsets = Offsets()
    >>> for offset, key in ((5, ("s", 1, 1)), (6, ("s", 1, 2)), (7, None)):
    ...     offsets.add(Spot("t", 0, offset), key)
    >>> offsets.done(("s", 1, 2)); offsets.next_ones()
    {('t', 0): 5}
    >>> offsets.done(("s", 1, 1)); offsets.next_ones()
    {('t', 0): 8}
    """

    def __init__(self) -> None:
        self._next: dict[tuple[str, int], int] = {}
        self._open: defaultdict[tuple[str, int], deque[tuple[int, Key]]] = defaultdict(deque)
        self._waiting: set[Key] = set()

    def add(self, spot: Spot, key: Key | None) -> None:
        """A record was read; without a key there is nothing to hand over."""
        place = (spot.topic, spot.partition)
        self._next[place] = spot.offset + 1
        if key is not None:
            self._shed(self._open[place])
            self._open[place].append((spot.offset, key))
            self._waiting.add(key)

    def _shed(self, waiting: deque[tuple[int, Key]]) -> None:
        while waiting and waiting[0][1] not in self._waiting:
            waiting.popleft()

    def done(self, key: Key) -> None:
        self._waiting.discard(key)

    def next_ones(self) -> dict[tuple[str, int], int]:
        """Where each partition is to be read from."""
        for waiting in self._open.values():
            self._shed(waiting)
        return {place: self._open[place][0][0] if self._open[place] else after for place, after in self._next.items()}

    def as_dict(self) -> dict[str, dict[str, int]]:
        """For JSON."""
        kept: dict[str, dict[str, int]] = {}
        for (topic, partition), offset in self.next_ones().items():
            kept.setdefault(topic, {})[str(partition)] = offset
        return kept

    @classmethod
    def from_dict(cls, kept: Any) -> "Offsets":
        """As `as_dict` gave it; PositionError where it did not."""
        offsets = cls()
        if not isinstance(kept, dict) or not all(isinstance(each, dict) for each in kept.values()):
            raise PositionError("position.kafka: expected an object of topics with an offset for each partition")
        for topic, partitions in kept.items():
            for partition, offset in partitions.items():
                where = f"position.kafka.{topic}.{partition}"
                if not (isinstance(partition, str) and partition.isascii() and partition.isdecimal()):
                    raise PositionError(f"{where}: expected a partition's number")
                offsets._next[topic, int(partition)] = whole(offset, 0, OFFSET_MAX, where)
        return offsets

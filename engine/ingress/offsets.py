"""Which of Kafka's records are done with: what may be committed, and from where windows could be filled again.

Owns the read position in `kafka_in`, its tail, and the partition rows' `settled`, `done` and `rewind`. Runs in
ingress. What must stay true: a record is done when every input accepted up to its decision is answered and
confirmed, so a duplicate is done no earlier than the copy that stands; a watermark never passes a record that
is not.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine import limits
from engine.bus import kafka
from engine.shared import Shared
from fastpath.ring import ByteRing

UNSETTLED = -1


@dataclass(slots=True)
class Place:
    """Where a message stands in Kafka."""

    end: int  # in the ring
    partition: int
    offset: int
    answered: bool  # before this engine's start
    position: int = UNSETTLED  # of the last input accepted when this one was decided


class Offsets:
    """Reads the ring, and learns what became of each record."""

    def __init__(self, shared: Shared) -> None:
        self.ring: ByteRing | None = shared.kafka_in
        self.rows = shared.partitions
        self.board = shared.kafka[0]
        self.read = 0
        self.begun_at = 0  # what a predecessor left in the ring ends here
        self._unsettled: deque[Place] = deque()
        self._undone: dict[int, deque[tuple[int, int]]] = {}  # by partition: offset after it, position
        self._minutes: dict[int, dict[int, deque[tuple[int, int]]]] = {}  # by partition, stream: minute, offset

    def open(self, last_position: int) -> None:
        """After `Sequencer.open`. What a predecessor settled may not be done yet."""
        if self.ring is None:
            return
        self.read, self.begun_at = self.ring.tail, self.ring.head
        for partition in range(int(self.board["partitions"])):
            row = self.rows[partition]
            if int(row["settled"]) > int(row["done"]):
                self._undone[partition] = deque([(int(row["settled"]), last_position)])
            self._minutes[partition] = {-1: deque([(0, int(row["rewind"]))])}  # until newer minutes push it out

    def waiting(self, has_room: Callable[[str], bool]) -> Iterator[tuple[Place, kafka.Input]]:
        """Records from where the last look ended, up to one whose company has no room for it."""
        if self.ring is None:
            return
        for record in kafka.inputs(self.ring, self.read):
            if not has_room(record.key.partition("/")[0]):
                return
            self.read = record.end
            place = Place(record.end, record.partition, record.offset, record.answered)
            self._unsettled.append(place)
            yield place, record

    def settle(self, place: Place | None, position: int) -> None:
        """The fate of a record, None: of another bus's, is decided: `position` is that of the last accepted input."""
        if place is not None:
            place.position = position

    def note_minute(self, place: Place, stream: int, minute: int) -> None:
        """A window of this row of the stream table reaches up to this minute."""
        streams = self._minutes.setdefault(place.partition, {})
        minutes = streams.setdefault(stream, deque())
        if not minutes or minute > minutes[-1][0]:
            minutes.append((minute, place.offset))
        while len(minutes) > limits.WINDOW_MINUTES:
            minutes.popleft()
            streams.pop(-1, None)  # this process has seen as much as a window holds

    def advance(self, tail_position: int) -> None:
        """`tail_position`: of the oldest input that is not done."""
        end = -1
        while self._unsettled and self._unsettled[0].position != UNSETTLED:
            place = self._unsettled.popleft()
            self.rows[place.partition]["settled"] = place.offset + 1
            self._undone.setdefault(place.partition, deque()).append((place.offset + 1, place.position))
            end = place.end
        if end >= 0 and self.ring is not None:
            self.ring.release(end)
        for partition, undone in self._undone.items():
            done = -1
            while undone and undone[0][1] < tail_position:
                done = undone.popleft()[0]
            if done >= 0:
                self.rows[partition]["done"] = done

    def note_rewinds(self) -> None:
        """Once a second: the oldest record of any live window, for the next commit's metadata."""
        for partition, streams in self._minutes.items():
            oldest = [minutes[0][1] for minutes in streams.values() if minutes]
            if oldest:
                self.rows[partition]["rewind"] = min(oldest)

    @property
    def idle(self) -> bool:
        """Nothing that was taken out of the ring is undone."""
        return not self._unsettled and not any(self._undone.values())

    def recovered(self) -> bool:
        """Whether all was read that was there when the engine, or this process, started."""
        if self.ring is None:
            return True
        count = int(self.board["partitions"])
        behind = any(int(self.rows[n]["settled"]) < int(self.rows[n]["noted_end"]) for n in range(count))
        return count > 0 and not behind and self.ring.tail >= self.begun_at

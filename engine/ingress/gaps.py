"""Messages behind a gap, which another bus may still fill.

Owns what waits, by stream. Runs in ingress, before anything is accepted. What must stay true: a message
waits no longer than it was told, a stream's messages leave in order, and what waits is bounded.
"""

import heapq
from collections.abc import Iterator

from engine.ingress.admission import Message

Name = tuple[str, str]  # company, stream


class GapWait:
    """Keeps messages until the ones before them came, or for as long as the other bus is known to lag.

    Parameters
    ----------
    waiting_max
        Messages of one stream that may wait; one more is not kept, and the stream moves on.
    """

    def __init__(self, waiting_max: int) -> None:
        self.waiting_max = waiting_max
        self.count = 0
        self._order = 0
        self._streams: dict[Name, list[tuple[int, int, int, Message, int]]] = {}

    def hold(self, message: Message, until_ns: int) -> bool:
        """False: too many wait already. Times are of CLOCK_MONOTONIC."""
        envelope = message.envelope
        waiting = self._streams.setdefault((envelope.company_id, envelope.service_source), [])
        if len(waiting) >= self.waiting_max:
            return False  # then the list is there already, and not empty
        self.count += 1
        self._order += 1  # of two with one name the first stays first
        heapq.heappush(waiting, (envelope.epoch, envelope.sequence, self._order, message, until_ns))
        return True

    def first(self, name: Name) -> Message | None:
        """The next of a stream that waits."""
        waiting = self._streams.get(name)
        return waiting[0][3] if waiting else None

    def precedes(self, message: Message) -> bool:
        """Whether one of the message's stream waits that comes before it."""
        envelope = message.envelope
        waiting = self._streams.get((envelope.company_id, envelope.service_source))
        return waiting is not None and waiting[0][:2] < (envelope.epoch, envelope.sequence)

    def pop(self, name: Name) -> None:
        waiting = self._streams[name]
        heapq.heappop(waiting)
        self.count -= 1
        if not waiting:
            del self._streams[name]

    def due(self, now_ns: int) -> Iterator[Name]:
        """Streams with a message that waited long enough: whatever is before it moves on with it."""
        for name, waiting in list(self._streams.items()):
            if min(entry[4] for entry in waiting) <= now_ns:
                yield name

"""Messages that no bus has confirmed yet, under their names.

Owns the bytes that may have to be sent again. Pure: no clock, no I/O. Runs in a producer's process. What must stay
true: a message leaves only when a bus confirmed it, and the room is bounded by count and by bytes.
"""

from engine.client.outgoing import Outgoing


class Backlog:
    """In order of sequence.

    Examples
    --------
    >>> backlog = Backlog(2, 100)
    >>> for sequence in (1, 2):
    ...     backlog.add(Outgoing(sequence, f"n/{sequence}", "s", "k", b"..."))
    >>> backlog.is_full, backlog.after(0).sequence, backlog.confirm(1, True), backlog.after(0).sequence
    (True, 1, 1, 2)
    """

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._open: dict[int, Outgoing] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        return len(self._open) >= self.messages_max or self.bytes >= self.bytes_max

    @property
    def first(self) -> int:
        """The lowest sequence that is open; one beyond the last where none is."""
        return next(iter(self._open), self._last + 1)

    @property
    def last(self) -> int:
        return self._last

    def names(self) -> list[str]:
        return [message.name for message in self._open.values()]

    def add(self, message: Outgoing) -> None:
        self._open[message.sequence] = message
        self.bytes += len(message.body)
        self._last = message.sequence

    def after(self, sequence: int) -> Outgoing | None:
        """The first open one beyond a sequence."""
        for each in range(max(sequence + 1, self.first), self._last + 1):
            if each in self._open:
                return self._open[each]
        return None

    def renew(self, message: Outgoing) -> None:
        """The same message with another token."""
        if message.sequence in self._open:
            self.bytes += len(message.body) - len(self._open[message.sequence].body)
            self._open[message.sequence] = message

    def confirm(self, sequence: int, all_below: bool) -> int:
        """How many are done by it."""
        if not all_below:
            return self._drop(sequence)
        done = 0
        while self._open and self.first <= sequence:
            done += self._drop(self.first)
        return done

    def _drop(self, sequence: int) -> int:
        message = self._open.pop(sequence, None)
        if message is None:
            return 0
        self.bytes -= len(message.body)
        return 1

"""What of one stream was handed over: the next sequence, and which ones below it are missing.

Owns the sequence state of one stream, as a reader sees it. Pure: no clock, no I/O. What must stay true:
`covers` says yes of exactly the names that were handed over or can no longer be; the state is bounded; the
same names in the same order give the same state, so a position can be kept and taken up again.
"""

from collections.abc import Mapping
from typing import Any

from engine.errors import TickpathError

RANGES_MAX = 256  # of missing sequences; beyond, the oldest is given up and counted
UINT64_MAX = (1 << 64) - 1


class PositionError(TickpathError):
    """A kept position cannot be taken up again. The message says what of it is wrong."""


class Track:
    """One stream's epoch, and the epoch before it.

    Examples
    --------
    >>> track = Track(7, 1)
    >>> track.take(7, 1), track.take(7, 3), track.missing
    (False, False, [(2, 2)])
    >>> track.covers(7, 2), track.take(7, 2), track.covers(7, 2)
    (False, True, True)
    """

    def __init__(self, epoch: int, following: int) -> None:
        self.epoch = epoch
        self.next = following
        self.missing: list[tuple[int, int]] = []  # first and last of each range, rising
        self.before: Track | None = None
        self.given_up = 0  # sequences that were missing and are no longer waited for

    @classmethod
    def first_seen(cls, epoch: int, sequence: int) -> "Track":
        """A stream without state starts at the first sequence seen; what lies below it may still come, late."""
        track = cls(epoch, 1)
        track.skip(sequence)
        return track

    def covers(self, epoch: int, sequence: int) -> bool:
        """Whether it was handed over, or is too old to be."""
        if epoch > self.epoch:
            return False
        if epoch < self.epoch:
            return self.before is None or self.before.covers(epoch, sequence)
        return sequence < self.next and self._range_of(sequence) is None

    def begin(self, epoch: int) -> None:
        """A higher epoch starts the sequence anew; the one before it is kept."""
        before = Track(self.epoch, self.next)
        before.missing = [*self.missing, (self.next, UINT64_MAX)]  # how far it went is not known
        before.next = UINT64_MAX + 1
        self.before = before
        self.epoch, self.next, self.missing = epoch, 1, []

    def skip(self, sequence: int) -> None:
        """Everything from the next one up to `sequence`, without it, is missing."""
        if sequence <= self.next:
            return
        self.missing.append((self.next, sequence - 1))
        self.next = sequence
        if len(self.missing) > RANGES_MAX:
            first, last = self.missing.pop(0)
            self.given_up += last - first + 1

    def take(self, epoch: int, sequence: int) -> bool:
        """One is handed over that was not covered; True: late."""
        if epoch > self.epoch:
            self.begin(epoch)
        if epoch < self.epoch:
            assert self.before is not None
            self.before.take(epoch, sequence)
            return True
        if sequence < self.next:
            self._fill(sequence)
            return True
        self.skip(sequence)
        self.next = sequence + 1
        return False

    def _range_of(self, sequence: int) -> int | None:
        return next((index for index, (first, last) in enumerate(self.missing) if first <= sequence <= last), None)

    def _fill(self, sequence: int) -> None:
        index = self._range_of(sequence)
        assert index is not None, "what is covered is not taken again"
        first, last = self.missing[index]
        rest = [(a, b) for a, b in ((first, sequence - 1), (sequence + 1, last)) if a <= b]
        self.missing[index : index + 1] = rest
        if len(self.missing) > RANGES_MAX:
            first, last = self.missing.pop(0)
            self.given_up += last - first + 1

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kept = {"epoch": self.epoch, "next": self.next, "missing": [list(each) for each in self.missing]}
        return kept | ({"before": self.before.as_dict()} if self.before is not None else {})

    @classmethod
    def from_dict(cls, kept: Any, where: str, is_before: bool = False) -> "Track":
        """As `as_dict` gave it; PositionError where it did not."""
        if not isinstance(kept, Mapping):
            raise PositionError(f"{where}: found {type(kept).__name__}; expected an object as `position` gives it")
        epoch = whole(kept.get("epoch"), 0, UINT64_MAX, f"{where}.epoch")
        track = cls(epoch, whole(kept.get("next"), 1, UINT64_MAX + 1, f"{where}.next"))
        ranges = kept.get("missing")
        if not isinstance(ranges, list) or len(ranges) > RANGES_MAX + is_before:
            raise PositionError(f"{where}.missing: expected a list of at most {RANGES_MAX} ranges")
        low = 0
        for each in ranges:
            if not (isinstance(each, list) and len(each) == 2):
                raise PositionError(f"{where}.missing: found {each!r}; expected [first, last]")
            first = whole(each[0], low + 1, track.next - 1, f"{where}.missing")
            low = whole(each[1], first, track.next - 1, f"{where}.missing")
            track.missing.append((first, low))
        if "before" in kept and not is_before:
            track.before = cls.from_dict(kept["before"], f"{where}.before", True)
            if track.before.epoch >= epoch:
                raise PositionError(f"{where}.before.epoch: found {track.before.epoch}; expected less than {epoch}")
        return track


def whole(value: Any, low: int, high: int, where: str) -> int:
    """A whole number of a kept position."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise PositionError(f"{where}: found {value!r}; expected a whole number from {low} to {high}")
    return value

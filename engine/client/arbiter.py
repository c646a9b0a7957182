"""Copies from several buses to one answer a name, in sequence order: a reader's A/B arbitration.

Owns the state of every stream that a reader follows. Pure: times are given, nothing is awaited. What must stay
true: an answer is handed over at most once; in sequence order, late ones excepted; the first copy counts; a gap
is waited for no longer than `wait_ns` says; memory is bounded whatever comes.

    take(copy) -> held until its turn -> handed over; nobody brought what is before it in time -> Gap, handed over
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import replace

from engine.client.answers import Answer, Conflict, Gap, Heartbeat, digest, is_excusable
from engine.client.tracks import Track

HELD_MAX = 1024  # answers of one stream behind a gap; beyond, the gap is waited for no longer
STREAMS_MAX = 4096  # the one that was silent longest is forgotten
REMEMBERED_MAX = 65_536  # answers whose later copies can be compared, all streams together
LAGS_MAX = 256

Item = Answer | Gap | Conflict
NEVER_NS = 1 << 63


class _Stream:
    """What is known of one stream, and what waits for its turn."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self.held: dict[int, tuple[Answer, int]] = {}  # by sequence, in order of arrival: (answer, when it came)
        self.end = 0  # a heartbeat said that this is the next one
        self.end_ns = 0  # when it said so

    @property
    def gap_since_ns(self) -> int:
        """When it was first seen that the next one is missing. All that is held lies behind the same gap."""
        held_ns = next(iter(self.held.values()))[1] if self.held else NEVER_NS
        return min(held_ns, self.end_ns if self.end > self.track.next else NEVER_NS)


class Arbiter:
    """All streams of one company.

    Parameters
    ----------
    company : whose answers are taken
    gap_wait_ns, gap_wait_max_ns
        A gap is waited for as long as the slower bus was seen to lag behind the faster, within these.
    """

    def __init__(self, company: str, gap_wait_ns: int, gap_wait_max_ns: int) -> None:
        self.company = company
        self.gap_wait_ns = gap_wait_ns
        self.gap_wait_max_ns = gap_wait_max_ns
        self.counts = dict.fromkeys(("answers", "late", "duplicates", "unchecked", "missing", "heartbeats"), 0)
        self.streams: OrderedDict[str, _Stream] = OrderedDict()
        self._first: OrderedDict[tuple[str, int, int], tuple[bytes, bool, int, str]] = OrderedDict()
        self._lags_ns: deque[int] = deque(maxlen=LAGS_MAX)
        self._waiting: set[str] = set()

    @property
    def wait_ns(self) -> int:
        lags = sorted(self._lags_ns)
        lag_ns = lags[len(lags) * 99 // 100] if lags else 0
        return min(max(self.gap_wait_ns, lag_ns), self.gap_wait_max_ns)

    @property
    def due_ns(self) -> int | None:
        """When `expire` has something to do next; None: nothing waits."""
        if not self._waiting:
            return None
        return min(self.streams[name].gap_since_ns for name in self._waiting) + self.wait_ns

    def resume(self, tracks: dict[str, Track]) -> None:
        self.streams = OrderedDict((name, _Stream(track)) for name, track in tracks.items())

    def take(self, answer: Answer, bus: str, now_ns: int) -> list[Item]:
        """One copy; what may be handed over because of it."""
        name = answer.stream
        key = (name, answer.epoch, answer.sequence)
        stream = self._stream(name, answer.epoch, answer.sequence)
        track = stream.track
        if track.covers(answer.epoch, answer.sequence) or (
            answer.epoch == track.epoch and answer.sequence in stream.held
        ):
            return self._compare(key, answer, bus, now_ns)
        self._remember(key, (digest(answer), is_excusable(answer), now_ns, bus))
        items: list[Item] = []
        if answer.epoch > track.epoch:
            items += self._begin(name, stream, answer.epoch)
        if answer.epoch < track.epoch or answer.sequence < track.next:
            track.take(answer.epoch, answer.sequence)
            items.append(self._out(answer, late=True))
            return items
        stream.held[answer.sequence] = (answer, now_ns)
        items += self._drain(stream)
        if len(stream.held) > HELD_MAX:
            items += self._give_up(name, stream)
        self._note(name, stream)
        return items

    def take_heartbeat(self, beat: Heartbeat, now_ns: int) -> list[Item]:
        """Everything before it was sent before it, on the bus that brought it."""
        self.counts["heartbeats"] += 1
        name = beat.stream or self._stream_of(beat.epoch)
        if not name:
            return []
        stream = self._stream(name, beat.epoch, beat.sequence)
        items: list[Item] = []
        if beat.epoch > stream.track.epoch:
            items += self._begin(name, stream, beat.epoch)
        if beat.epoch == stream.track.epoch and beat.sequence > max(stream.end, stream.track.next):
            if stream.end <= stream.track.next:
                stream.end_ns = now_ns
            stream.end = beat.sequence
        self._note(name, stream)
        return items

    def expire(self, now_ns: int) -> list[Item]:
        """What was waited for long enough is given up."""
        items: list[Item] = []
        for name in tuple(self._waiting):
            stream = self.streams[name]
            while stream.gap_since_ns + self.wait_ns <= now_ns:
                items += self._give_up(name, stream)
            self._note(name, stream)
        return items

    def _stream(self, name: str, epoch: int, sequence: int) -> _Stream:
        stream = self.streams.get(name)
        if stream is None:
            stream = self.streams[name] = _Stream(Track.first_seen(epoch, sequence))
            silent = next(iter(self.streams))
            if len(self.streams) > STREAMS_MAX and silent not in self._waiting:
                del self.streams[silent]
        self.streams.move_to_end(name)
        return stream

    def _stream_of(self, epoch: int) -> str:
        """The local bus does not say whose heartbeat it is; a producer's start does, where only one started then."""
        names = [name for name, stream in self.streams.items() if stream.track.epoch == epoch]
        return names[0] if len(names) == 1 else ""

    def _begin(self, name: str, stream: _Stream, epoch: int) -> list[Item]:
        """A producer started anew: nothing of the epoch before is waited for any longer."""
        items: list[Item] = []
        while stream.gap_since_ns != NEVER_NS:
            items += self._give_up(name, stream)
        stream.track.begin(epoch)
        stream.end = 0
        return items

    def _drain(self, stream: _Stream) -> Iterator[Item]:
        while stream.track.next in stream.held:
            answer, _ = stream.held.pop(stream.track.next)
            stream.track.take(answer.epoch, answer.sequence)
            yield self._out(answer, late=answer.late)

    def _give_up(self, name: str, stream: _Stream) -> list[Item]:
        """The lowest gap, and what stood behind it."""
        track = stream.track
        ends = [stream.end] if stream.end > track.next else []
        behind = min([*stream.held, *ends])
        gap = Gap(self.company, name, track.epoch, track.next, behind - 1)
        self.counts["missing"] += behind - track.next
        track.skip(behind)
        return [gap, *self._drain(stream)]

    def _note(self, name: str, stream: _Stream) -> None:
        (self._waiting.discard if stream.gap_since_ns == NEVER_NS else self._waiting.add)(name)

    def _out(self, answer: Answer, late: bool) -> Answer:
        self.counts["answers"] += 1
        self.counts["late"] += late
        return answer if answer.late == late else replace(answer, late=late)

    def _remember(self, key: tuple[str, int, int], first: tuple[bytes, bool, int, str]) -> None:
        self._first[key] = first
        if len(self._first) > REMEMBERED_MAX:
            self._first.popitem(last=False)

    def _compare(self, key: tuple[str, int, int], answer: Answer, bus: str, now_ns: int) -> list[Item]:
        """A further copy: never handed over, looked at for what it says."""
        self.counts["duplicates"] += 1
        first = self._first.get(key)
        if first is None:  # of before a restart, or long ago
            self.counts["unchecked"] += 1
            return []
        said, excusable, first_ns, first_bus = first
        if bus != first_bus:
            self._lags_ns.append(now_ns - first_ns)
        if digest(answer) == said:
            return []
        return [Conflict(answer.company, *key, excusable or is_excusable(answer))]

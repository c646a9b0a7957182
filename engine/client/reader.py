"""A reader for programs: one answer for each input, in order, from whichever bus brought it first.

Owns what of each stream was handed over. Runs in a reader's process, on its asyncio loop (`engine.client.sync` for
others); reads every bus that it is given. What must stay true: an answer is handed over once, in sequence order, late
ones excepted; `position` says what was handed over and nothing else; a consumer that is slow makes the buses wait.

    a Source for each bus -> Arbiter -> queue -> async for
"""

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from engine.client.answers import Answer, Conflict, Gap, Heartbeat, read
from engine.client.arbiter import STREAMS_MAX, Arbiter, Item
from engine.client.connecting import CONNECT_S, LOG, kafka_section, local_section, nats_section
from engine.client.incoming import KafkaSource, LocalSource, NatsSource, Source, Spot
from engine.client.offsets import Offsets
from engine.client.tokens import Source as TokenSource
from engine.client.tokens import TokenError, Tokens, claims_of
from engine.client.tracks import PositionError, Track
from engine.contract.names import is_name
from engine.errors import SettingsError
from engine.settings import Kafka, Local, Nats

QUEUE_MAX = 4096  # answers that wait for the consumer; beyond, the buses wait
POSITION_VERSION = 1


class Reader:
    """All answers of a company, or those of some of its streams.

    Parameters
    ----------
    company : the token's where nothing is said
    streams : producers' `service_source`; none: all
    nats, kafka, local : an address, or a section of `engine.settings` with TLS and passwords; at least one
    token : for the local bus, as a producer's
    group : Kafka's consumer group; none: a reader of its own
    gap_wait_s, gap_wait_max_s : a gap is waited for as long as one bus was seen to lag behind the other, within these
    on_event : called with each Gap and Conflict when its turn comes; without it, they are logged

    Examples
    --------
    >>> async def main():
    ...     async with Reader(company="acme", nats="nats://127.0.0.1:4222") as reader:
    ...         async for answer in reader:
    ...             print(answer.input_name, answer.batch or answer.rejection)
    """

    def __init__(
        self,
        *,
        company: str = "",
        streams: Iterable[str] = (),
        nats: str | Nats = "",
        kafka: str | Kafka = "",
        local: str | Local = "",
        token: TokenSource = "",
        user: str = "",
        name: str = "reader",
        group: str = "",
        gap_wait_s: float = 0.02,
        gap_wait_max_s: float = 0.125,
        on_event: Callable[[Gap | Conflict], None] | None = None,
    ) -> None:
        self._buses = (nats_section(nats), kafka_section(kafka), local_section(local))
        if not (self._buses[0].url or self._buses[1].bootstrap or self._buses[2].path):
            raise SettingsError("no bus to read from: give nats, kafka or local")
        self.streams = frozenset(streams)
        for stream in self.streams:
            if not is_name(stream):
                raise SettingsError(f"stream {stream!r}: expected 1 to 64 letters, digits, _ or -")
        if not 0 <= gap_wait_s <= gap_wait_max_s:
            raise SettingsError(
                f"gap_wait_s = {gap_wait_s}, gap_wait_max_s = {gap_wait_max_s}: expected 0 or more, the second no less"
            )
        self.company = company
        self.foreign = 0  # bodies that were no answer of the company's
        self._who = (user, name, group)
        self._waits_ns = (round(gap_wait_s * 1e9), round(gap_wait_max_s * 1e9))
        self._on_event = on_event or (lambda event: LOG.warning("%s", event))
        self._tokens = Tokens(token, self._on_token_trouble)
        self._has_token = bool(token)
        self._kept: dict[str, Any] | None = None
        self._arbiter = Arbiter(company, *self._waits_ns)
        self._handed: OrderedDict[str, Track] = OrderedDict()
        self._offsets = Offsets()
        self._items: deque[Item] = deque()
        self._sources: list[Source] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ready, self._room, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._expire_from_ns = 0  # while nobody reads, nothing is given up for it
        self._is_open = False

    @property
    def counts(self) -> dict[str, int]:
        """answers, late, duplicates, unchecked (copies whose first one is forgotten), missing, heartbeats, foreign."""
        return {**self._arbiter.counts, "foreign": self.foreign}

    @property
    def buses(self) -> dict[str, str]:
        """Each bus: up or down."""
        return {source.bus: "up" if source.up else "down" for source in self._sources}

    def resume(self, position: dict[str, Any]) -> None:
        """Goes on after what `position` said, before `open`; PositionError where it cannot be taken up."""
        if self._is_open:
            raise PositionError('the reader is open already; call "resume" before "open"')
        if not isinstance(position, dict) or position.get("version") != POSITION_VERSION:
            raise PositionError(
                f"position.version: expected {POSITION_VERSION}, as `position` of this version gives it"
            )
        if self.company and position.get("company") != self.company:
            raise PositionError(f"position.company: found {position.get('company')!r}; expected {self.company!r}")
        streams = position.get("streams")
        if not isinstance(streams, dict) or len(streams) > STREAMS_MAX or not all(map(is_name, streams)):
            raise PositionError(f"position.streams: expected an object of at most {STREAMS_MAX} streams")
        tracks = {name: Track.from_dict(kept, f"position.streams.{name}") for name, kept in streams.items()}
        self._offsets = Offsets.from_dict(position.get("kafka"))
        self._handed = OrderedDict(tracks)
        self._kept = position

    def position(self) -> dict[str, Any]:
        """What was handed over, for JSON. Kept together with what an answer led to, no answer counts twice or never.

        What NATS or a socket sent while nobody read is gone, and shows as a gap; Kafka gives it again.
        """
        return {
            "version": POSITION_VERSION,
            "company": self.company,
            "streams": {name: track.as_dict() for name, track in self._handed.items()},
            "kafka": self._offsets.as_dict(),
        }

    async def commit(self) -> None:
        """Tells Kafka how far its group is; the answer that was handed over last counts as done."""
        for source in self._sources:
            if isinstance(source, KafkaSource) and self._who[2]:
                await source.commit(self._offsets.next_ones())

    async def open(self, within_s: float = CONNECT_S) -> None:
        """Returns once every bus is read, or one is and the time is over; BusError where none is."""
        if self._has_token:
            await self._tokens.open()
        user, name, group = self._who
        if not (self.company and (user or not self._has_token)):
            claimed = claims_of(self._tokens.current)
            self.company, user = self.company or claimed[0], user or claimed[1]
        if not is_name(self.company):
            raise SettingsError(f"company {self.company!r}: expected 1 to 64 letters, digits, _ or -")
        if self._kept is not None and self._kept.get("company") != self.company:
            raise PositionError(f"position.company: found {self._kept.get('company')!r}; expected {self.company!r}")
        self._is_open = True
        self._arbiter = Arbiter(self.company, *self._waits_ns)
        kept = self.position()["streams"]  # a copy: what is handed over comes after what is decided
        self._arbiter.resume({each: Track.from_dict(track, each) for each, track in kept.items()})
        self._sources = self._make(user, name, group)
        for source in self._sources:
            source.changed = self._changed.set
            source.open()
        if self._has_token:
            self._tasks.append(asyncio.create_task(self._tokens.keep()))
        deadline = time.monotonic() + within_s
        while not all(source.up for source in self._sources) and (left_s := deadline - time.monotonic()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)
        if not any(source.up for source in self._sources):
            error = self._sources[0].absent(within_s)
            await self.close()
            raise error

    def _make(self, user: str, name: str, group: str) -> list[Source]:
        nats, kafka, local = self._buses
        client = f"tickpath-{name}"
        sources: list[Source] = []
        if nats.url:
            sources.append(NatsSource(nats, client, self.company, sorted(self.streams), self._take))
        if kafka.bootstrap:
            sources.append(KafkaSource(kafka, client, self.company, group, self._offsets.next_ones(), self._take))
        if local.path:
            if not self._has_token:
                raise SettingsError("the local bus wants a token of its readers; give token")
            sources.append(LocalSource(local, name, self.company, user, self._tokens, self._take))
        return sources

    async def close(self) -> None:
        self._is_open = False
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._room.set()
        await asyncio.gather(*(source.close() for source in self._sources), *self._tasks, return_exceptions=True)
        self._ready.set()

    async def __aenter__(self) -> "Reader":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> Answer:
        """The next answer; gaps and conflicts before it are told first. Ends once the reader is closed."""
        while True:
            while self._items:
                item = self._items.popleft()
                self._room.set()
                self._hand_over(item)
                if isinstance(item, Answer):
                    return item
                self._on_event(item)
            if not self._is_open:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()

    async def receive(self, timeout_s: float | None = None) -> Answer | None:
        """The next answer; None: none came within the time, or the reader is closed."""
        try:
            return await asyncio.wait_for(anext(self), timeout_s)
        except (TimeoutError, StopAsyncIteration):
            return None

    def _hand_over(self, item: Item) -> None:
        if isinstance(item, Conflict):
            return
        first = item.sequence if isinstance(item, Answer) else item.first
        track = self._handed.get(item.stream)
        if track is None:
            track = self._handed[item.stream] = Track.first_seen(item.epoch, first)
        self._handed.move_to_end(item.stream)
        silent = next(iter(self._handed))
        if len(self._handed) > STREAMS_MAX and silent not in self._arbiter.streams:
            del self._handed[silent]
        if isinstance(item, Answer):
            track.take(item.epoch, item.sequence)
            self._offsets.done((item.stream, item.epoch, item.sequence))
            return
        if item.epoch > track.epoch:
            track.begin(item.epoch)
        track.skip(item.last + 1)

    async def _take(self, body: bytes, stream: str, bus: str, spot: Spot | None) -> None:
        """One body from a bus, once there is room for what it may let go."""
        while len(self._items) >= QUEUE_MAX and self._is_open:
            self._room.clear()
            await self._room.wait()
            self._expire_from_ns = time.monotonic_ns() + self._arbiter.wait_ns
        said = read(body, self.company, stream)
        key = None
        if said is None or (self.streams and said.stream and said.stream not in self.streams):
            self.foreign += said is None
        elif isinstance(said, Heartbeat):
            self._put(self._arbiter.take_heartbeat(said, time.monotonic_ns()))
        else:
            key = (said.stream, said.epoch, said.sequence)
            self._put(self._arbiter.take(said, bus, time.monotonic_ns()))
        if spot is not None:
            track = None if key is None else self._handed.get(key[0])
            waits = key is not None and not (track is not None and track.covers(key[1], key[2]))
            self._offsets.add(spot, key if waits else None)

    def _put(self, items: list[Item]) -> None:
        if items:
            self._items.extend(items)
            self._ready.set()
        due_ns = self._arbiter.due_ns
        if due_ns is None:
            return
        wait_s = (max(due_ns, self._expire_from_ns) - time.monotonic_ns()) / 1e9
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, wait_s)
        if self._timer is None or self._timer.cancelled() or self._timer.when() > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_ns = time.monotonic_ns()
        if len(self._items) >= QUEUE_MAX:
            self._expire_from_ns = now_ns + self._arbiter.gap_wait_max_ns
        self._put(self._arbiter.expire(now_ns) if now_ns >= self._expire_from_ns else [])

    def _on_token_trouble(self, error: TokenError) -> None:
        LOG.warning("%s", error)

"""What a producer sends in a benchmark: loads, prices, and whole messages made before their time.

Owns the loads and a stream's state: its numbering, its prices, which symbols it has sent. Runs in the
generator's process. Due times are fixed in advance, so timestamps are known and every byte of a
message can be made before a round begins. What must stay true: equal seeds give equal prices; a
symbol's first vector carries 240 mids, so that no window has to fill; event times rise, and are the
times at which the messages are due.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.raw_nats import Connection
from engine.client.sender import Message, Sender
from engine.contract.ml.feature_vectors_pb2 import FeatureVector

SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "NZDUSD", "USDCAD", "USDCHF", "EURGBP", "EURJPY", "XAUUSD")
HISTORY = 240
MINUTE_BP = 1.0  # standard deviation of a minute's move
TICK_BP = 0.1  # of a vector's
SPREAD_BP = 0.5
MINUTE_NS = 60_000_000_000
DAYS_AGO_NS = 5 * 24 * 60 * MINUTE_NS


@dataclass(frozen=True)
class Load:
    """An open-loop load; its name is its stream's too."""

    name: str
    messages_per_s: int
    vectors: int  # in each message

    @property
    def words(self) -> str:
        return f"{self.messages_per_s} messages/s x {self.vectors} vector{'s' if self.vectors > 1 else ''}"

    @property
    def period_ns(self) -> int:
        return 1_000_000_000 // self.messages_per_s


BATCHES = Load("batches", 5, 10)
SINGLES = Load("singles", 500, 1)
LOADS = (BATCHES, SINGLES)
STEADY = Load("steady", 200, 1)
QUIET = Load("quiet", 40, 1)
CROWDS = (Load("crowd", 10, 10), Load("crowd-minutes", 10, 10))  # of each stream; ten vectors a second a key
SIZED = tuple(Load(f"sized-{vectors}", 50, vectors) for vectors in (1, 4, 16, 64))
FLOODS = (Load("flood-singles", 5000, 1), Load("flood-batches", 100, 64))  # either is many times what two cores answer


@dataclass(frozen=True)
class Planned:
    """A message before its time."""

    due_ns: int  # CLOCK_MONOTONIC
    name: str
    symbols: tuple[str, ...]
    wire: bytes  # ready for the socket


class Prices:
    """A symbol's walk."""

    def __init__(self, symbol: str, seed: int) -> None:
        self._random = random.Random(f"{seed} {symbol}")
        self._mid = 1.0 + self._random.random()
        self.history = [self._step(MINUTE_BP) for _ in range(HISTORY)]

    def next(self) -> float:
        return self._step(TICK_BP)

    def _step(self, bp: float) -> float:
        self._mid *= math.exp(self._random.gauss(0.0, bp) * 1e-4)
        return self._mid


class Stream:
    """One load's messages of one producer. `minutes`: each vector is of the next minute, from some days ago on."""

    def __init__(
        self,
        load: Load,
        company: str,
        user: str,
        token: str,
        seed: int,
        name: str = "",
        minutes: bool = False,
        wrap: Callable[[Message], bytes] = Connection.wrap,
    ) -> None:
        self.load = load
        self._wrap = wrap
        self.minutes = minutes
        self._unix_ns = time.time_ns()
        self._event_ns = self._unix_ns - DAYS_AGO_NS
        self.sender = Sender(company, user, name or load.name, token, clock=lambda: self._unix_ns)
        self.minutes_closed = 0  # by a vector that was the first of the next minute
        self._symbols = SYMBOLS + tuple(f"SYMBOL{n}" for n in range(len(SYMBOLS), load.vectors))
        self._prices = {symbol: Prices(symbol, seed) for symbol in self._symbols}
        self._minute: dict[str, int] = {}
        self._turn = 0

    def plan(self, due_ns: int, unix_ns: int) -> Planned:
        """The next message, as it is to leave at `due_ns`, which is `unix_ns` by the calendar."""
        symbols, message = self.next(unix_ns)
        return Planned(due_ns, message.name, symbols, self._wrap(message))

    def next(self, unix_ns: int) -> tuple[tuple[str, ...], Message]:
        """(its symbols, the message)."""
        self._unix_ns = unix_ns
        self._event_ns = self._event_ns + MINUTE_NS if self.minutes else unix_ns
        known = len(self._symbols)
        symbols = tuple(self._symbols[(self._turn + n) % known] for n in range(self.load.vectors))
        self._turn = (self._turn + self.load.vectors) % known
        return symbols, self.sender.features(self._vector(symbol) for symbol in symbols)

    def _vector(self, symbol: str) -> FeatureVector:
        prices, minute = self._prices[symbol], self._event_ns // MINUTE_NS
        vector = FeatureVector(symbol=symbol, timestamp_ns=self._event_ns)
        if symbol not in self._minute:
            vector.price_history.mid_prices.extend(prices.history)
        elif minute > self._minute[symbol]:
            self.minutes_closed += 1
        self._minute[symbol] = minute
        mid = prices.next()
        half = mid * SPREAD_BP * 0.5e-4
        quote = vector.price_features
        quote.bid, quote.ask, quote.spread, quote.mid_price = mid - half, mid + half, 2 * half, mid
        vector.cross_asset.correlation_scores.extend(0.1 * n for n in range(1, 6))
        return vector


class Crowd:
    """As many streams as a rate needs, all of one company, their messages one after another."""

    def __init__(self, load: Load, company: str, user: str, token: str, seed: int) -> None:
        self.load = load
        self.minutes_closed = 0
        self._of_all = (company, user, token, seed)
        self._streams: list[Stream] = []
        self._begin, self._turn = 0, 0

    def use(self, begin: int, end: int) -> None:
        """The next messages are of the streams from `begin` up to `end`, in turn."""
        company, user, token, seed = self._of_all
        for n in range(len(self._streams), end):
            name, minutes = f"{self.load.name}-{n}", self.load is CROWDS[1]
            self._streams.append(Stream(self.load, company, user, token, seed + n, name, minutes))
        self._begin, self._count, self._turn = begin, end - begin, 0

    def plan(self, due_ns: int, unix_ns: int) -> Planned:
        stream = self._streams[self._begin + self._turn % self._count]
        self._turn += 1
        closed = stream.minutes_closed
        planned = stream.plan(due_ns, unix_ns)
        self.minutes_closed += stream.minutes_closed - closed
        return planned

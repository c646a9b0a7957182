"""A service under a given rate of a whole crowd of keys: for benchmarks that push until something gives.

Owns a contender with its generator; run by a benchmark's own process. What must stay true: every key sends ten
vectors a second, so a higher rate means more keys; a stream's first messages, which fill windows, are sent before a
trial and count for nothing.
"""

import time
from typing import Any

from bench import host
from bench.contenders import Contender, Driver
from bench.load import CROWDS, Load
from bench.servers import Place, scraped
from bench.wire import LEAD_NS, say
from engine.cli.scrape import by_label, parse

PER_STREAM = CROWDS[0].messages_per_s * CROWDS[0].vectors  # vectors/s
PLAN_NS = 25_000  # about what making one vector takes, on a busy host
SETTLE_S, QUIET_S = 60.0, 1.0
OPENING_NS = 20_000_000  # between two first messages, each with ten histories
KEYS = 4096
RATE_MAX = KEYS / 2 * CROWDS[0].messages_per_s  # two crowds may be that large at one engine
LIMITS = f"""
[limits]
streams = {KEYS // 10}
keys = {KEYS}
keys_total = {KEYS}
"""


def streams_of(rate: float) -> int:
    """
    >>> streams_of(1000.0), streams_of(140.0)
    (10, 1)
    """
    return max(1, round(rate / PER_STREAM))


class Pushed:
    """`open`, then `send` again and again."""

    def __init__(self, contender: Contender, seed: int) -> None:
        self.contender = contender
        self.driver = Driver(contender, seed)
        self._opened = {load.name: 0 for load in CROWDS}
        self._behind = False  # something of the last messages may still be answered

    def open(self, place: Place) -> None:
        self.place = place
        say(f"starting {self.contender.name}: {self.contender.words}")
        self.contender.start(self.contender, place, {})
        self.driver.open(place)

    def send(self, load: Load, parts: list[tuple[float, float]]) -> dict[str, Any]:
        """Each part's (vectors/s, seconds), one after another without a pause; the fields of `answers.Round`."""
        self._settle(load)
        self._open_streams(load, max(streams_of(rate) for rate, _ in parts))
        self._settle(load)
        offsets, at = list[float](), 0.0
        for rate, seconds in parts:
            per_s = streams_of(rate) * load.messages_per_s
            offsets += [at + n / per_s for n in range(round(seconds * per_s))]
            at += seconds
        start_ns = time.monotonic_ns() + LEAD_NS + PLAN_NS * load.vectors * len(offsets)
        dues_ns = [start_ns + round(offset * 1e9) for offset in offsets]
        self.driver.begin(load, dues_ns, (0, max(streams_of(rate) for rate, _ in parts)))
        return self._ended()

    def _ended(self) -> dict[str, Any]:
        found = self.driver.end()
        self._behind = bool(found["problems"])
        return found

    def _settle(self, load: Load) -> None:
        """After a round that went wrong: until no answer to anything before has come for a while."""
        give_up_s, quiet_s = time.monotonic() + SETTLE_S, time.monotonic()
        while self._behind and time.monotonic() < give_up_s:
            self.driver.begin(load, [], (0, 1))
            if self.driver.end()["problems"]:
                quiet_s = time.monotonic()
            self._behind = time.monotonic() - quiet_s < QUIET_S

    def _open_streams(self, load: Load, count: int) -> None:
        begin = self._opened[load.name]
        if count > begin:
            start_ns = time.monotonic_ns() + LEAD_NS + PLAN_NS * load.vectors * 10 * (count - begin)
            dues_ns = [start_ns + n * OPENING_NS for n in range(count - begin)]
            self.driver.begin(load, dues_ns, (begin, count))
            if problems := self._ended()["problems"]:
                say(f"  first messages of {count - begin} streams: {problems}")
            self._opened[load.name] = count

    def used_s(self) -> dict[str, float]:
        """Processor time by process: an engine's apart, as it tells of them; anyone else's with all below it."""
        name = self.contender.name
        names = ("nats-server", f"{name}-generator", *(() if name in self.place.http else (name,)))
        found = {each: host.used_s([self.place.processes[each].pid]) for each in names}
        if name in self.place.http:
            samples = parse(scraped(self.place.http[name]))
            found |= by_label(samples, "tickpath_process_cpu_seconds_total", "process")
        return found

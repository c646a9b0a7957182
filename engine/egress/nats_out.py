"""Answers to NATS: written, and confirmed by a PONG to a PING sent after them.

Owns what of one connection is known to have arrived, and the outbox: what NATS missed while it was away. Runs
in egress, over its `NatsLink`. What must stay true: a PONG confirms what was written before its PING on the
same connection, and nothing else; the outbox is bounded, and an overflow told.
"""

import asyncio
from collections import deque
from logging import Logger
from typing import Any

from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from engine.bus.nats import NatsLink
from engine.egress.encoding import Answer
from engine.shared import Count

HEADER_BYTES_MAX = 512  # of a NATS message beside its body: the names in it have bounds
CONFIRM_LIMIT_S = 2  # for the PONG; the link's own pings notice a dead server before


class NatsOut:
    """Over a link that is always being kept."""

    def __init__(self, link: NatsLink, counters: memoryview, outbox_bytes_max: int, log: Logger) -> None:
        self.link = link
        self.counters = counters
        self.outbox_bytes_max = outbox_bytes_max
        self.log = log
        self.waiting_bytes = 0
        self.outbox: deque[tuple[Answer, Any]] = deque()
        self._pong: asyncio.Future[bool] | None = None

    @property
    def is_up(self) -> bool:
        return self.link.is_up

    @property
    def takes(self) -> bool:
        """Whether an answer may be written now: what this bus missed goes out before anything newer."""
        return self.link.is_up and not self.outbox

    @property
    def connection(self) -> int:
        """The number of the one that stands, 0: none."""
        return self.link.connections if self.link.is_up else 0

    def beyond_limit(self, answer: Answer) -> int:
        """Bytes by which an answer is too large for the server, 0: it fits, or the server is not known now."""
        return max(0, len(answer.body) + HEADER_BYTES_MAX - self.link.client.max_payload) if self.is_up else 0

    def publish(self, answer: Answer) -> None:
        self.link.publish(answer.subject, answer.body, answer.name)

    async def pinged(self) -> int:
        """The number of the connection on which everything written so far arrived, 0: none."""
        connection = self.link.connections
        if not self.link.is_up:
            return 0
        pong = self._pong = self.link.ping()
        await asyncio.wait({pong}, timeout=CONFIRM_LIMIT_S)
        if not pong.done() or pong.cancelled():  # not cancelled for being slow: the client still takes its PONG
            return 0
        return connection if connection == self.link.connections and self.link.is_up else 0

    def connection_lost(self) -> None:
        """The PONG that is waited for will never come; what it was to confirm is ahead of all that leaves next."""
        if self._pong is not None:
            self._pong.cancel()

    def keep(self, answer: Answer, owner: Any) -> None:
        """For when it is back."""
        self.outbox.append((answer, owner))
        self.waiting_bytes += len(answer.body)
        while self.waiting_bytes > self.outbox_bytes_max:
            self.waiting_bytes -= len(self.outbox.popleft()[0].body)
            self.counters[Count.OUTBOX_DROPPED] += 1

    def empty_outbox(self) -> list[tuple[Any, int]]:
        """Writes what waits, as far as the connection stands. Whose that was, and which connection carried it."""
        written = []
        while self.outbox and self.link.is_up:
            answer, owner = self.outbox[0]
            connection = self.connection
            try:
                self.publish(answer)
            except MaxPayloadError:  # the other bus has it, or will have; nothing behind it may wait for ever
                self.log.error("nats: an answer of %d bytes is more than it takes; dropped", len(answer.body))
                self.counters[Count.OUTBOX_DROPPED] += 1
                connection = 0
            except (NatsError, OSError) as error:
                self.log.warning("nats: %s; the outbox goes out once it is back", error)
                break
            self.outbox.popleft()
            self.waiting_bytes -= len(answer.body)
            if connection:
                written.append((owner, connection))
        return written

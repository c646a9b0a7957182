"""When ingress accepts, and when it reads its buses.

Owns the next turn's time. Runs in ingress. What must stay true: what a turn did not get to has another one soon;
between two turns what came is read, so that messages wait in the queues, where turns are fair, rather than on a
bus, where they are not; accepting has at least as much time as reading, however much comes.
"""

import asyncio
import time
from collections.abc import Callable

SLICE_NS, SLICE_NS_MAX = 1_000_000, 20_000_000  # of accepting: as long as what was read since the last one took
ROUNDS = 4  # of the event loop, in which bytes at a socket become a message in its queue
RETRY_S = 0.002  # while something waits for room and no bell rang


class Turns:
    """`soon`, `read_on` or `retry` has `turn` called, which calls `begin` first."""

    def __init__(self, turn: Callable[[], None]) -> None:
        self._turn = turn
        self._soon: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._reads_since_ns = 0  # 0: the loop may have slept meanwhile

    def soon(self) -> None:
        """Once all was taken that was read together."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._turn)

    def read_on(self) -> None:
        """A turn's time is over; what waits has its next one when the buses were read."""
        if self._soon is None:
            self._reads_since_ns = time.monotonic_ns()
            self._round(ROUNDS)

    def retry(self) -> None:
        """Something waits for room."""
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._turn)

    def begin(self) -> int:
        """For how many nanoseconds this turn may accept."""
        for handle in (self._soon, self._retry):
            if handle is not None:
                handle.cancel()
        self._soon = self._retry = None
        since_ns, self._reads_since_ns = self._reads_since_ns, 0
        return min(max(time.monotonic_ns() - since_ns, SLICE_NS), SLICE_NS_MAX) if since_ns else SLICE_NS

    def _round(self, left: int) -> None:
        loop = asyncio.get_running_loop()
        self._soon = loop.call_soon(self._round, left - 1) if left else loop.call_soon(self._turn)

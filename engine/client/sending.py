"""One bus's turn through what a producer has to send.

Owns the place up to which everything was handed to the bus. Runs in a producer's process, a task a bus. What must
stay true: a bus gets messages in order of sequence; when it comes back it gets all that no bus has confirmed; a
heartbeat overtakes nothing.
"""

import asyncio
import contextlib
from collections.abc import Callable

from engine.client.outgoing import Lane, Outgoing

LOOK_S = 0.25  # at least so often, for a bus whose turn has come by the clock


class Sending:
    """Takes `next_for(cursor)` while `is_wanted(bus)`; tells `on_change` when the bus came or went."""

    def __init__(
        self,
        out: Lane,
        is_wanted: Callable[[str], bool],
        next_for: Callable[[int], Outgoing | None],
        on_change: Callable[[], None],
    ) -> None:
        self.out = out
        self.cursor = 0  # whatever is open up to it was handed to the bus
        self.resent = 0
        self.wake = asyncio.Event()
        self._through = asyncio.Event()  # set: nothing waited when it was last looked
        self._highest = 0
        self._is_wanted = is_wanted
        self._next_for = next_for
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        out.came, out.went = self._came, on_change

    @property
    def is_through(self) -> bool:
        """Whether nothing waits to be handed to the bus."""
        return not self._is_wanted(self.out.bus) or self._next_for(self.cursor) is None

    def open(self) -> None:
        self.out.open()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def beat(self, message: Outgoing) -> bool:
        """Sends a heartbeat behind all that came before it; False: the bus does not take it now."""
        if not self._is_wanted(self.out.bus):
            return False
        if self.is_through:
            return await self.out.send(message)
        self._through.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._through.wait(), LOOK_S)
        return self._through.is_set() and await self.out.send(message)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.out.close()

    def _came(self) -> None:
        self.cursor = 0
        self._on_change()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), LOOK_S)
            self.wake.clear()
            while self._is_wanted(self.out.bus) and (message := self._next_for(self.cursor)) is not None:
                if not await self.out.send(message):
                    break
                self.resent += message.sequence <= self._highest
                self._highest = max(self._highest, message.sequence)
                self.cursor = message.sequence
            if self.is_through:
                self._through.set()

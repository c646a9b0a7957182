"""Where messages come from: NATS and the local bus, opened, paused, closed. Kafka comes by a ring (`offsets`).

Owns the NATS connection and the producers' socket. Runs in ingress. What must stay true: what a bus handed over
already is still taken at the end; a producer that sends too much at once is paused, and loses nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from nats.errors import Error as NatsError

from engine import limits
from engine.bus import local
from engine.bus.nats import NatsLink
from engine.child import Child
from engine.contract.names import FEATURES_SUBJECT, Bus


class Sources:
    """`open`, `check` a few times a second, `stop_taking` at a drain, `close`.

    Parameters
    ----------
    from_nats
        Called with (body, subject) of each message.
    from_local
        Called with each envelope's bytes; gives the company that has no room for more, empty: go on.
    oversized
        Called with a sentence about a frame that is larger than any message may be.
    """

    def __init__(
        self,
        child: Child,
        from_nats: Callable[[bytes, str], None],
        from_local: Callable[[bytes], str],
        oversized: Callable[[str], None],
    ) -> None:
        self.child = child
        self.from_local = from_local
        self.oversized = oversized
        self.producers: set[local.Producer] = set()
        self._server: asyncio.Server | None = None
        self._subscriptions: list[Any] = []
        settings = child.settings
        self._link = NatsLink(
            settings.bus.nats,
            f"{settings.engine.name}-ingress",
            child.log,
            lambda state: child.bus_state(Bus.NATS, state),
            from_nats,
        )

    async def open(self) -> None:
        bus = self.child.settings.bus
        if bus.local.path:
            listener = local.bind(bus.local.path)
            self._server = await asyncio.get_running_loop().create_unix_server(self._producer, sock=listener)
            self.child.bus_state(Bus.LOCAL, True)
        if bus.nats.url:
            self._link.open(self._subscribe)

    def check(self) -> None:
        self._link.check()

    def resume(self, has_room: Callable[[str], bool], reading: bool) -> None:
        """Those go on whose company has room for more."""
        for producer in list(self.producers):
            producer.resume(has_room, reading)

    @property
    def held(self) -> int:
        """Messages that paused producers sent before they were paused."""
        return sum(len(each.held) for each in self.producers)

    async def stop_taking(self) -> None:
        """No more from outside; what the buses handed over already is still taken."""
        if self._server is not None:
            self._server.close()
            for producer in list(self.producers):
                producer.pause()
        if not self._link.is_up:
            await self._link.close()  # it would subscribe again, and bring new input
        elif self._subscriptions:
            try:
                await asyncio.wait_for(self._subscriptions[0].drain(), self.child.settings.engine.drain_s / 2)
            except (TimeoutError, NatsError) as error:
                self.child.log.warning("nats did not drain: %s", error)

    async def close(self) -> None:
        if self.child.settings.bus.local.path:
            local.unbind(self.child.settings.bus.local.path)
        await self._link.close()

    async def _subscribe(self, client: Any) -> None:
        self._subscriptions.append(await client.subscribe(f"{FEATURES_SUBJECT}.*.*"))

    def _producer(self) -> local.Producer:
        bytes_max = self.child.settings.limits.message_bytes
        detail = f"a frame is larger than the {bytes_max} bytes of a message; the connection was closed"
        return local.Producer(
            bytes_max + limits.LOCAL_FRAME_SPARE, self.from_local, lambda: self.oversized(detail), self.producers
        )

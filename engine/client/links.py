"""A producer's connections: one for each bus, for asyncio programs.

Owns one connection each. Runs in a producer's process; writes messages to NATS or to the local
bus. What must stay true: `send` may be called at any rate and waits only where the bus makes it
wait; after `close` everything sent has left this process, or BusError said that it has not.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol

import nats
import nats.errors

from engine.bus import frames
from engine.client.sender import Message
from engine.contract.names import MESSAGE_ID_HEADER
from engine.errors import BusError
from engine.knobs import without_passwords
from engine.settings import Nats, Settings

CONNECT_S = 5.0
FLUSH_S = 10.0


class Link(Protocol):
    """What a producer needs of a bus. `where` names it for people."""

    where: str

    async def open(self) -> None: ...

    async def send(self, message: Message) -> None: ...

    async def close(self) -> None: ...


def tls_context(section: Nats) -> ssl.SSLContext | None:
    """For a client, from `tls_ca`, `tls_cert` and `tls_key`; None: only the URL decides."""
    if not (section.tls_ca or section.tls_cert):
        return None
    try:
        context = ssl.create_default_context(cafile=section.tls_ca or None)
        if section.tls_cert:
            context.load_cert_chain(section.tls_cert, section.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BusError(
            f"bus.nats.tls_ca, tls_cert or tls_key cannot be used ({error}); expected PEM files that belong together"
        ) from error
    return context


class NatsLink:
    """Publishes with the message's name as header."""

    def __init__(self, section: Nats) -> None:
        self.where = without_passwords(section.url)
        self._section = section
        self._client: Any = None
        self._trouble = ""

    async def open(self) -> None:
        context = tls_context(self._section)
        options: dict[str, Any] = {"tls": context} if context else {}
        if self._section.credentials_file:
            options["user_credentials"] = self._section.credentials_file
        servers = [url.strip() for url in self._section.url.split(",")]
        try:
            connecting = nats.connect(servers, error_cb=self._note, name="tickpath-feed", **options)
            self._client = await asyncio.wait_for(connecting, CONNECT_S)
        except (OSError, TimeoutError, ValueError, nats.errors.Error) as error:
            raise BusError(
                f"bus.nats.url = {self.where}: no connection within {CONNECT_S:g} s "
                f"({self._trouble or error or type(error).__name__}); start nats-server, or correct the URL"
            ) from error

    async def send(self, message: Message) -> None:
        headers = {MESSAGE_ID_HEADER: message.name} if message.name else None
        try:
            await self._client.publish(message.subject, message.body, headers=headers)
        except nats.errors.Error as error:
            raise self._lost(error) from error

    async def close(self) -> None:
        if self._client is None:
            return
        try:
            # The client writes a PING ahead of what it still buffers, so only a second one comes after all of it.
            await self._client.flush(timeout=FLUSH_S)
            await self._client.flush(timeout=FLUSH_S)
        except (TimeoutError, nats.errors.Error) as error:
            raise self._lost(error) from error
        finally:
            await self._client.close()

    async def _note(self, error: Exception) -> None:
        self._trouble = str(error) or type(error).__name__

    def _lost(self, error: Exception) -> BusError:
        return BusError(
            f"bus.nats.url = {self.where}: the server takes no more messages "
            f"({self._trouble or error or type(error).__name__}); see whether it runs and may be published to"
        )


class LocalLink:
    """Writes frames to the socket of producers."""

    def __init__(self, path: str) -> None:
        self.where = path
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        try:
            _, self._writer = await asyncio.wait_for(asyncio.open_unix_connection(self.where), CONNECT_S)
        except (OSError, TimeoutError) as error:
            raise BusError(
                f"bus.local.path = {self.where}: nobody answers ({_reason(error)}); "
                "start the engine with the same configuration"
            ) from error

    async def send(self, message: Message) -> None:
        assert self._writer is not None, "open comes before send"
        self._writer.write(frames.encode(message.body))
        try:
            await self._writer.drain()
        except OSError as error:
            raise self._lost(error) from error

    async def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
            await self._writer.wait_closed()
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> BusError:
        return BusError(
            f"bus.local.path = {self.where}: the engine takes no more input ({_reason(error)}); see the engine's log"
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


LINKS: dict[str, Callable[[Settings], Link]] = {
    "nats": lambda settings: NatsLink(settings.bus.nats),
    "local": lambda settings: LocalLink(settings.bus.local.path),
}


def choose(settings: Settings, bus: str | None) -> Link:
    """The bus of that name, or without a name the first that is configured."""
    configured = {"nats": bool(settings.bus.nats.url), "local": bool(settings.bus.local.path)}
    if bus is None:
        bus = next((name for name, there in configured.items() if there), None)
    if bus is None or not configured[bus]:
        wanted = {"nats": "bus.nats.url", "local": "bus.local.path"}
        missing = wanted[bus] if bus else " or ".join(wanted.values())
        raise BusError(f"no bus to send on: {missing} is not set; set it in the configuration or the environment")
    return LINKS[bus](settings)

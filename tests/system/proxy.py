"""A TCP proxy that misbehaves on demand, between an engine or a producer and nats-server or Kafka.

Runs in a thread of the test's process with a loop of its own, so that tests of either kind may hold it. What must stay
true: within a connection what passes keeps its order, as TCP does; and nothing passes that was swallowed before.
"""

import asyncio
import contextlib
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.system.servers import free_port

CHUNK_BYTES = 65_536
CHUNKS_WAITING = 256  # each way; beyond, the sender waits
_PUB = re.compile(rb"(?:PUB|HPUB|MSG|HMSG) .*?(\d+)\r\n", re.IGNORECASE)


def whole_messages(buffer: bytearray) -> Iterator[bytes]:
    """NATS protocol messages, payload included, taken from the front of the buffer as far as they are complete."""
    while (line_end := buffer.find(b"\r\n") + 2) > 1:
        line = bytes(buffer[:line_end])
        found = _PUB.fullmatch(line)
        end = line_end + (int(found[1]) + 2 if found else 0)
        if len(buffer) < end:
            return
        yield bytes(buffer[:end])
        del buffer[:end]


@dataclass(eq=False)
class Link:
    """One client's connection, both ways."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    swallowed: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                writer.transport.abort()


@dataclass
class Proxy:
    """`delay_s` (± `jitter_s`, uniform) holds for each way. `drop` sees each NATS message on its way to the server and
    says whether it is lost. `half_open` keeps connections and takes new ones, but nothing passes; `cut` breaks those
    there are; `refuse` takes no new ones either; `resume` goes on, where bytes were swallowed with new connections."""

    target_port: int = 0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    drop: Callable[[bytes], bool] | None = None
    seed: int = 1
    port: int = field(default_factory=free_port)
    dropped: int = 0
    _swallows: bool = False
    _links: set[Link] = field(default_factory=set)
    _listener: asyncio.Server | None = None

    def __enter__(self) -> "Proxy":
        self._random = random.Random(self.seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._do(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def half_open(self) -> None:
        self._swallows = True

    def cut(self) -> int:
        """How many connections it broke."""
        return self._do(self._cut())

    def refuse(self) -> None:
        self._do(self._refuse())

    def resume(self) -> None:
        self._do(self._resume())

    def connections(self) -> int:
        return len(self._links)

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _cut(self) -> int:
        for link in self._links:
            link.abort()
        return len(self._links)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._cut()

    async def _resume(self) -> None:
        self._swallows = False
        for link in self._links:
            if link.swallowed or link.server is None:
                link.abort()
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        self._links.add(link)
        try:
            if self._swallows:
                while await reader.read(CHUNK_BYTES):
                    link.swallowed = True
                return
            from_server, link.server = await asyncio.open_connection("127.0.0.1", self.target_port)
            ways = self._way(link, reader, link.server, True), self._way(link, from_server, writer, False)
            tasks = [asyncio.create_task(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            link.abort()

    async def _way(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        """One direction, until either end is closed."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_WAITING)
        with contextlib.suppress(OSError):
            sending = asyncio.create_task(self._send_when_due(link, waiting, writer))
            try:
                await self._receive(reader, waiting, up)
                await waiting.join()
            finally:
                sending.cancel()

    async def _receive(self, reader: asyncio.StreamReader, waiting: asyncio.Queue, up: bool) -> None:
        buffer = bytearray()
        due_s = 0.0
        while chunk := await reader.read(CHUNK_BYTES):
            if up and self.drop is not None:
                buffer += chunk
                chunk = b"".join(self._kept(buffer))
            due_s = max(due_s, self._loop.time() + self.delay_s + self._random.uniform(-self.jitter_s, self.jitter_s))
            await waiting.put((due_s, chunk))

    def _kept(self, buffer: bytearray) -> Iterator[bytes]:
        assert self.drop is not None
        for message in whole_messages(buffer):
            if message[:4].upper() in (b"PUB ", b"HPUB") and self.drop(message):
                self.dropped += 1
            else:
                yield message

    async def _send_when_due(self, link: Link, waiting: asyncio.Queue, writer: asyncio.StreamWriter) -> None:
        while True:
            due_s, chunk = await waiting.get()
            if (wait_s := due_s - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if self._swallows or link.swallowed:
                link.swallowed = True
            else:
                writer.write(chunk)
                await writer.drain()
            waiting.task_done()

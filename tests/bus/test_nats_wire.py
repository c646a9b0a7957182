"""Below the NATS client: messages however early they come, and bytes that make no sense."""

import asyncio
import logging

import uvloop

from engine.bus.nats import NatsLink
from engine.settings import Nats
from engine.shared import BusState

INFO = b'INFO {"server_id":"x","version":"2.11.0","headers":true,"max_payload":1048576}\r\n'
WITHIN_S = 10


def message(body: bytes) -> bytes:
    return b"MSG trading.features.acme.feed 1 %d\r\n%b\r\n" % (len(body), body)


class Odd:
    """A server's side by hand: what each connection gets right behind the handshake's PONG, in the same bytes."""

    def __init__(self, *behind: bytes) -> None:
        self.behind = list(behind)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        first = self.behind.pop(0) if self.behind else b""
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n" + first)
                first = b""
        writer.close()


def test_messages_behind_the_handshake_are_taken_and_nonsense_is_a_connection_that_broke() -> None:
    async def main() -> None:
        got: list[tuple[bytes, str]] = []
        states: list[BusState] = []
        odd = Odd(
            message(b"first") + b"MSG trading.features.acme.feed 1 -5\r\n" + message(b"never"),
            message(b"second") * 30_000,  # more than is read at once
        )
        server = await asyncio.start_server(odd.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        link = NatsLink(
            Nats(url=f"nats://127.0.0.1:{port}"), "test", logging.getLogger("test"), states.append,
            lambda body, subject: got.append((body, subject)),
        )  # fmt: skip
        link.open()
        async with asyncio.timeout(WITHIN_S):
            while len(got) < 30_001 or states[-1] != BusState.UP:
                await asyncio.sleep(0.002)
        assert [body for body, _ in got] == [b"first"] + [b"second"] * 30_000
        assert {subject for _, subject in got} == {"trading.features.acme.feed"}
        assert BusState.DOWN in states[1:]
        await link.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

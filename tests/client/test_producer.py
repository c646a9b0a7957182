"""A producer on a real nats-server and a real socket: tokens, heartbeats, the bound of what it keeps, confirmations."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from engine.bus.frames import FrameReader
from engine.client import BufferFull, Producer, TokenError, sync
from engine.client.tokens import Tokens, end_of
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.errors import BusError, SettingsError
from tests.client.making import answer, token
from tests.system.servers import free_port, nats_server, start_nats
from tests.system.traffic import eventually

VECTORS = [FeatureVector(symbol="EURUSD")]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with nats_server() as found:
        yield found


async def watch(client: nats.NATS, stream: str) -> list[MLProcessingEnvelope]:
    taken: list[MLProcessingEnvelope] = []

    async def keep(message) -> None:
        taken.append(MLProcessingEnvelope.FromString(message.data))

    await client.subscribe(f"ml.v1.features.acme.{stream}", cb=keep)
    await client.flush()
    return taken


def test_an_idle_producer_tells_its_next_number_again_and_again_and_at_the_end(url: str) -> None:
    async def run() -> list[tuple[str, int]]:
        client = await nats.connect(url)
        taken = await watch(client, "beats")
        async with Producer(stream="beats", token=token(), nats=url, heartbeat_s=0.05) as producer:
            await producer.send(VECTORS)
            await producer.send(VECTORS)
            await eventually(lambda: len(taken) >= 5, 10, "heartbeats come")
        await client.flush()
        await client.close()
        return [(each.message_type, each.sequence) for each in taken]

    found = asyncio.run(run())
    assert found[:2] == [("feature_vectors", 1), ("feature_vectors", 2)]
    assert set(found[2:]) == {("heartbeat", 3)}


def test_a_token_is_renewed_before_it_ends(url: str) -> None:
    made: list[str] = []

    def give() -> str:
        made.append(token(valid_s=1.5, number=len(made)))
        return made[-1]

    async def run() -> list[MLProcessingEnvelope]:
        client = await nats.connect(url)
        taken = await watch(client, "tokens")
        async with Producer(stream="tokens", token=give, nats=url) as producer:
            deadline = time.monotonic() + 20
            while len(made) < 3 and time.monotonic() < deadline:
                await producer.send(VECTORS)
                await asyncio.sleep(0.01)
            await producer.send(VECTORS)
        await client.flush()
        await client.close()
        return taken

    taken = asyncio.run(run())
    used = [each.auth_token.jwt for each in taken if each.message_type == "feature_vectors"]
    assert set(used) == set(made[:3])
    assert all(each.timestamp / 1e9 < end_of(each.auth_token.jwt) for each in taken)


def test_a_token_file_is_read_again_and_one_that_is_gone_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(token(valid_s=0.6, number=1))

    async def run() -> tuple[str, list[str]]:
        told: list[TokenError] = []
        tokens = Tokens(path, told.append)
        await tokens.open()
        path.unlink()
        keeping = asyncio.create_task(tokens.keep())
        await eventually(lambda: told, 10, "the loss is told")
        path.write_text(second)
        await eventually(lambda: tokens.current == second, 10, "the new one is read")
        keeping.cancel()
        return tokens.current, [str(each) for each in told]

    second = token(number=2)
    current, told = asyncio.run(run())
    assert current == second
    assert told == [f"{path} gives no token ([Errno 2] No such file or directory: '{path}')"]


def test_what_no_bus_takes_is_kept_up_to_the_bound_and_sent_under_its_name() -> None:
    port = free_port()
    url = f"nats://127.0.0.1:{port}"

    async def run() -> tuple[list[str], str, list[str]]:
        server = start_nats(port)
        producer = Producer(stream="bound", token=token(), nats=url, buffer_messages=50, epoch=7)
        try:
            await producer.open()
            server.kill()
            server.wait()
            await eventually(lambda: producer.buses["nats"] == "down", 10, "the loss is seen")
            names = [await producer.send(VECTORS) for _ in range(50)]
            with pytest.raises(BufferFull) as caught:
                await producer.send(VECTORS)
            with pytest.raises(BusError, match="50 messages from acme/bound/7/1 on were confirmed by no bus within"):
                await producer.flush(0.1)
            assert producer.unconfirmed == names
            server = start_nats(port)
            client = await nats.connect(url)
            taken = await watch(client, "bound")
            await producer.flush(20)
            names.append(await producer.send(VECTORS))
            await producer.close()
            await client.flush()
            await client.close()
        finally:
            server.kill()
            server.wait()
        assert producer.unconfirmed == []
        return names, str(caught.value), [f"acme/bound/7/{each.sequence}" for each in taken if each.payload]

    names, error, taken = asyncio.run(run())
    assert names == [f"acme/bound/7/{each}" for each in range(1, 52)]
    # The subscriber may have connected after the producer did, but what was sent last it saw.
    assert taken[-1] == names[-1]
    assert error.startswith("50 messages with ")
    assert error.endswith(
        "); this one was not taken and has no number: send it again later, or give more room"
    )  # fmt: skip
    assert "buffer_messages = 50, buffer_bytes = 67108864 (nats is away" in error


def test_the_local_bus_confirms_once_the_engine_has_read_all(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    received: list[bytes] = []
    go_on = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        reader = FrameReader(1 << 20)
        with connection:
            go_on.wait(20)
            while data := connection.recv(1 << 16):
                received.extend(reader.feed(data))

    async def run() -> list[str]:
        async with Producer(stream="local", token=token(), local=path) as producer:
            names = [await producer.send(VECTORS) for _ in range(100)]
            with pytest.raises(BusError):
                await producer.flush(0.2)
            assert producer.unconfirmed == names
            go_on.set()
            await producer.flush(10)
            return names

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        names = asyncio.run(run())
        thread.join(10)
    envelopes = [MLProcessingEnvelope.FromString(each) for each in received]
    assert [each.correlation_id for each in envelopes if each.payload] == names


def test_programs_without_asyncio_send_and_read(url: str) -> None:
    with (
        sync.Reader(company="acme", streams=["plain"], nats=url) as reader,
        sync.Producer(stream="plain", token=token(), nats=url, epoch=7) as producer,
    ):
        assert [producer.send(VECTORS) for _ in range(2)] == ["acme/plain/7/1", "acme/plain/7/2"]
        producer.flush()
        assert reader.receive(0.05) is None

        async def publish() -> None:
            client = await nats.connect(url)
            await client.publish("ml.v1.predictions.acme.plain", answer(7, 1, "plain"))
            await client.close()

        asyncio.run(publish())
        found = reader.receive(10)
        assert found is not None
        assert found.input_name == "acme/plain/7/1"
        assert reader.position()["streams"] == {"plain": {"epoch": 7, "next": 2, "missing": []}}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "no bus to send on: give nats, kafka or local"),
        ({"nats": "nats://127.0.0.1:9", "publish": "any"}, 'publish = \'any\': expected "both" or "failover"'),
        (
            {"nats": "nats://127.0.0.1:9", "heartbeat_s": 0},
            "buffer_messages = 10000, buffer_bytes = 67108864, heartbeat_s = 0: expected numbers above 0",
        ),
    ],
)
def test_a_producer_that_cannot_be_is_told(options: dict, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Producer(stream="s", token=token(), **options)
    assert str(caught.value) == expected


def test_an_ended_token_is_told_before_anything_is_sent() -> None:
    async def run() -> None:
        async with Producer(stream="s", token=token(valid_s=-5), nats="nats://127.0.0.1:9"):
            pass

    with pytest.raises(TokenError) as caught:
        asyncio.run(run())
    assert str(caught.value) == "the token of the caller ended 5 s ago; give one that is valid now"

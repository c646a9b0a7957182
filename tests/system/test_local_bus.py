"""Producers and readers on the engine's own host, over its Unix sockets; and both buses at once."""

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope, Rejection
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from tests.system.servers import EngineProcess, Issuer, until
from tests.system.traffic import MINUTE_NS, SYMBOLS, Stream, connected, eventually

MESSAGE_BYTES = 65_536
FRAME_SPARE = 64 << 10  # a frame may be this much larger than a message before its connection ends


@pytest.fixture(scope="module")
def path(folder: Path) -> str:
    return str(folder / "bus")


@pytest.fixture(scope="module")
def engine(folder: Path, issuer: Issuer, path: str) -> Iterator[EngineProcess]:
    """The local bus alone: no server anywhere."""
    settings = {"engine": {"deadline_ms": 5000}, "limits": {"message_bytes": MESSAGE_BYTES}}
    with EngineProcess(folder, issuer, local_path=path, settings=settings) as running:
        yield running.wait_ready()


class Socket:
    """One end of the local bus as the contract words it: a little-endian u32 length, then an envelope."""

    def __init__(self, path: str) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.connection.settimeout(10)
        self.connection.connect(path)

    def send(self, body: bytes) -> None:
        self.connection.sendall(struct.pack("<I", len(body)) + body)

    def receive(self) -> MLProcessingEnvelope | None:
        """The next envelope; None where the engine ended the connection."""
        head = self._exactly(4)
        if head is None:
            return None
        body = self._exactly(struct.unpack("<I", head)[0])
        assert body is not None, "the connection ended within a frame"
        return MLProcessingEnvelope.FromString(body)

    def _exactly(self, size: int) -> bytes | None:
        got = bytearray()
        while len(got) < size:
            try:
                part = self.connection.recv(size - len(got))
            except ConnectionResetError:
                return None
            if not part:
                return None
            got += part
        return bytes(got)

    def close(self) -> None:
        self.connection.close()


def subscription(token: str, company: str, **changes: str) -> bytes:
    envelope = MLProcessingEnvelope(
        message_type="subscribe", company_id=company, user_id="feed", service_source="reader", timestamp=time.time_ns()
    )
    envelope.auth_token.jwt = token
    for name, value in changes.items():
        setattr(envelope, name, value)
    return envelope.SerializeToString()


@contextmanager
def reading(engine: EngineProcess, path: str, stream: Stream) -> Iterator[Socket]:
    """A reader of the stream's company that the engine has let in."""
    before = engine.metric("tickpath_local_readers")
    reader = Socket(f"{path}.out")
    reader.send(subscription(stream.token, stream.company))
    until(lambda: engine.metric("tickpath_local_readers") > before, 5, "the reader is let in")
    yield reader
    reader.close()
    until(lambda: engine.metric("tickpath_local_readers") <= before, 5, "the reader is gone")


@contextmanager
def producing(path: str) -> Iterator[Socket]:
    producer = Socket(path)
    yield producer
    producer.close()


def next_message(stream: Stream, symbols: tuple[str, ...] = ("EURUSD",)) -> bytes:
    stream.event_ns += MINUTE_NS
    return stream.message([stream.vector(symbol) for symbol in symbols])


def stream_of(issuer: Issuer, company: str, name: str = "feed", tier: str = "free") -> Stream:
    return Stream(company, name, issuer.token(company, tier), seed=len(company))


def test_each_vector_is_answered_once_in_order_to_its_own_company_alone(engine, path, issuer):
    streams = [stream_of(issuer, company, name) for company in ("acme", "bolt") for name in ("a", "b")]
    acme, bolt = reading(engine, path, streams[0]), reading(engine, path, streams[2])
    with acme as of_acme, bolt as of_bolt, producing(path) as one, producing(path) as other:
        for number in range(200):
            stream = streams[number % 4]
            (one, other)[number % 2].send(next_message(stream))
        for number, stream in enumerate(streams):
            (one, other)[number % 2].send(stream.heartbeat())
        for company, reader in (("acme", of_acme), ("bolt", of_bolt)):
            came = [reader.receive() for _ in range(102)]
            assert {each.company_id for each in came} == {company}
            assert all(each.auth_token.jwt == "" for each in came)
            for name in ("a", "b"):
                own = [each for each in came if source_of(each) == name]
                assert [each.sequence for each in own] == list(range(1, 51))
            assert [each.sequence for each in came if each.message_type == "heartbeat"] == [51, 51]


def source_of(envelope: MLProcessingEnvelope) -> str:
    return MLPredictionBatch.FromString(envelope.payload).source_id if envelope.payload else ""


def test_every_reader_of_a_company_gets_everything(engine, path, issuer):
    stream = stream_of(issuer, "shared")
    with reading(engine, path, stream) as first, reading(engine, path, stream) as second:
        with producing(path) as producer:
            for _ in range(20):
                producer.send(next_message(stream))
        bodies = [[reader.receive().SerializeToString() for _ in range(20)] for reader in (first, second)]
        assert bodies[0] == bodies[1]


def test_a_rejection_that_is_an_answer_reaches_the_reader(engine, path, issuer):
    stream = stream_of(issuer, "refused")
    with reading(engine, path, stream) as reader, producing(path) as producer:
        producer.send(stream.message([stream.vector("EURUSD"), stream.vector("EURUSD")]))
        answer = reader.receive()
        assert (answer.message_type, answer.sequence) == ("ml_rejection", 1)
        assert Rejection.FromString(answer.payload).code == "duplicate_symbol"


BAD_SUBSCRIPTIONS: dict[str, Callable[[Issuer], bytes]] = {
    "no envelope": lambda _: b"\xff\xff",
    "no token": lambda _: subscription("", "acme"),
    "broken token": lambda issuer: subscription(issuer.token("acme")[:-4], "acme"),
    "expired token": lambda issuer: subscription(issuer.token("acme", valid_s=-1), "acme"),
    "no scope": lambda issuer: subscription(issuer.token("acme", scopes="models:read"), "acme"),
    "another company": lambda issuer: subscription(issuer.token("acme"), "bolt"),
    "another message type": lambda issuer: subscription(issuer.token("acme"), "acme", message_type="heartbeat"),
}


@pytest.mark.parametrize("name", BAD_SUBSCRIPTIONS)
def test_a_bad_subscription_ends_the_connection_and_shows_nothing(engine, path, issuer, name):
    reader = Socket(f"{path}.out")
    reader.send(BAD_SUBSCRIPTIONS[name](issuer))
    assert reader.receive() is None
    reader.close()


def test_a_subscription_ends_with_its_token(engine, path, issuer):
    stream = stream_of(issuer, "ends")
    stream.token = issuer.token("ends", "free", valid_s=3)
    with reading(engine, path, stream) as reader:
        begin_s = time.monotonic()
        assert reader.receive() is None
        assert time.monotonic() - begin_s < 5


def test_a_reader_that_does_not_read_is_cut_off_while_others_go_on(engine, path, issuer):
    """More bytes than the engine keeps for one reader and the kernel's buffers hold beside them."""
    stream = stream_of(issuer, "slow", tier="enterprise")
    cut_before = engine.metric("tickpath_local_cut_total")
    lazy = Socket(f"{path}.out")
    lazy.send(subscription(stream.token, "slow"))
    got: list[int] = []

    def read_all(reader: Socket) -> None:
        while len(got) < 1500 and (answer := reader.receive()) is not None:
            got.append(answer.sequence)

    with reading(engine, path, stream) as reader, producing(path) as producer:
        thread = threading.Thread(target=read_all, args=(reader,))
        thread.start()
        for number in range(1500):
            producer.send(next_message(stream, SYMBOLS))
            until(lambda number=number: len(got) > number - 20, 20, "the reader that reads gets everything")
            if number % 50 == 0 and engine.metric("tickpath_local_cut_total") > cut_before:
                break
        cut_at = stream.sequence
        for _ in range(10):
            producer.send(next_message(stream, SYMBOLS))
        until(lambda: len(got) >= stream.sequence, 20, "and goes on getting it")
        producer.close()
        reader.connection.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert got == list(range(1, stream.sequence + 1))
    assert engine.metric("tickpath_local_cut_total") == cut_before + 1
    print(f"cut off after {cut_at} answers")
    lazy.close()


def test_a_reader_that_comes_back_gets_what_is_answered_from_then_on(engine, path, issuer):
    """What is answered while nobody reads waits for a reader, until its deadline."""
    stream = stream_of(issuer, "comes-back")
    with producing(path) as producer:
        with reading(engine, path, stream) as first:
            producer.send(next_message(stream))
            assert first.receive().sequence == 1
        producer.send(next_message(stream))
        until(lambda: engine.metric("tickpath_inputs_bytes") > 0, 5, "it is taken")
        with reading(engine, path, stream) as second:
            assert second.receive().sequence == 2
            producer.send(next_message(stream))
            assert second.receive().sequence == 3


def test_a_message_over_the_limit_is_refused_and_an_absurd_frame_ends_the_connection(engine, path, issuer):
    stream = stream_of(issuer, "large")
    before = engine.metric("tickpath_unverified_total")
    with reading(engine, path, stream) as reader:
        with producing(path) as producer:
            producer.send(bytes(MESSAGE_BYTES + 1))
            producer.send(next_message(stream))
            assert reader.receive().sequence == 1
            producer.connection.sendall(struct.pack("<I", MESSAGE_BYTES + FRAME_SPARE + 1))
            assert producer.receive() is None
        with producing(path) as producer:
            producer.send(next_message(stream))
            assert reader.receive().sequence == 2
    assert engine.metric("tickpath_unverified_total") - before == 2


def test_half_a_frame_costs_nobody_anything(engine, path, issuer):
    stream = stream_of(issuer, "half")
    with reading(engine, path, stream) as reader, producing(path) as good, producing(path) as broken:
        broken.connection.sendall(struct.pack("<I", 1000) + b"half")
        good.send(next_message(stream))
        assert reader.receive().sequence == 1
        broken.close()
        good.send(next_message(stream))
        assert reader.receive().sequence == 2


def test_with_both_buses_each_brings_inputs_and_gets_every_answer_once(folder, issuer, nats_url):
    """Odd ones over NATS, even ones over the socket, some over both: one stream, answered once on each bus."""
    path = str(folder / "bus-both")
    stream = stream_of(issuer, "both")
    count = 60

    async def both_ways(engine: EngineProcess, local: Socket) -> list:
        async with connected(nats_url) as (client, reader):
            with producing(path) as producer:
                for number in range(1, count + 1):
                    body = next_message(stream)
                    if number % 2 or number % 10 == 0:
                        await client.publish(stream.subject, body)
                    if number % 2 == 0:
                        producer.send(body)
                    await eventually(lambda n=number: len(reader.named(stream)) >= n, 10, "answered over NATS")
            assert reader.reports == []
            return reader.named(stream)

    with EngineProcess(folder, issuer, nats_url, path) as engine:
        engine.wait_ready()
        assert engine.health()["buses"] == {"nats": "up", "local": "up"}
        with reading(engine, path, stream) as local:
            over_nats = asyncio.run(both_ways(engine, local))
            over_local = [local.receive() for _ in range(count)]
        assert engine.metric("tickpath_duplicates_total") == count // 10
        assert engine.stop() == 0
    assert [answer.envelope.sequence for answer in over_nats] == list(range(1, count + 1))
    assert [each.SerializeToString() for each in over_local] == [
        answer.envelope.SerializeToString() for answer in over_nats
    ]


@pytest.mark.parametrize("wait", ["spin", "yield"])
def test_processes_that_do_not_sleep_answer_like_those_that_do(folder, issuer, wait):
    """Three of them on however few cores there are: slower there, and no less."""
    where = str(folder / wait)
    settings = {"engine": {"deadline_ms": 20_000, "wait": wait, "workers": 1}}
    stream = stream_of(issuer, "acme")
    with EngineProcess(folder, issuer, local_path=where, settings=settings) as running:
        running.wait_ready(within_s=120)
        with reading(running, where, stream) as reader, producing(where) as producer:
            for _ in range(100):
                producer.send(next_message(stream))
            assert [reader.receive().sequence for _ in range(100)] == list(range(1, 101))
        for process in ("ingress", "egress", "worker"):
            assert re.search(rf'"process":"{process}[^}}]*"message":"waits by {wait}', running.log())
        assert running.stop() == 0

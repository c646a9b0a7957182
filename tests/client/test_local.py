"""The blocking clients of the local bus, against a socket that speaks the contract."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.bus.frames import FrameReader, encode
from engine.client.local import LocalProducer, LocalReader
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.errors import BusError


class Peer:
    """Listens at a path, hands the first connection to a function in a thread."""

    def __init__(self, path: str, serve: Callable[[socket.socket], None]) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, args=(serve,))

    def _serve(self, serve: Callable[[socket.socket], None]) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(10)
        with connection:
            serve(connection)

    def __enter__(self) -> "Peer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(10)
        self.listener.close()
        assert not self.thread.is_alive()


def read_all(connection: socket.socket, into: list[bytes]) -> None:
    reader = FrameReader(1 << 20)
    while data := connection.recv(4096):
        into.extend(reader.feed(data))


def test_what_a_producer_sends_arrives_whole_and_in_order(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    sent = [bytes([number % 256]) * (number * 37) for number in range(300)]
    received: list[bytes] = []
    with Peer(path, lambda connection: read_all(connection, received)):
        producer = LocalProducer(path)
        producer.open()
        for body in sent:
            producer.send(body)
        producer.close()
    assert received == sent


def test_a_producer_waits_for_an_engine_that_is_starting(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    received: list[bytes] = []
    producer = LocalProducer(path, timeout_s=10)
    opening = threading.Thread(target=producer.open)
    opening.start()
    with Peer(path, lambda connection: read_all(connection, received)):
        opening.join(10)
        producer.send(b"one")
        producer.close()
    assert received == [b"one"]


def test_a_reader_subscribes_with_its_token_and_gets_what_comes(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    first: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        reader = FrameReader(1 << 20)
        while not first:
            first.extend(reader.feed(connection.recv(4096)))
        answers = b"".join(map(encode, (b"a", b"bb", b"ccc")))
        connection.sendall(answers[:7])
        connection.sendall(answers[7:])

    with Peer(f"{path}.out", serve):
        reader = LocalReader(path, "acme", "ann", "t.o.k")
        reader.open()
        answers: list[bytes] = []
        while len(answers) < 3:
            answers += reader.receive(10)
        with pytest.raises(BusError) as caught:
            reader.receive(10)
        reader.close()
    assert answers == [b"a", b"bb", b"ccc"]
    envelope = MLProcessingEnvelope.FromString(first[0])
    assert (envelope.message_type, envelope.company_id, envelope.user_id) == ("subscribe", "acme", "ann")
    assert envelope.auth_token.jwt == "t.o.k"
    assert str(caught.value) == (
        f"{path}.out: the engine sends no more answers (it closed the connection); "
        "check that the token is valid for this company, and the engine's log"
    )


def test_a_reader_without_answers_gets_none_within_its_time(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    done = threading.Event()
    with Peer(f"{path}.out", lambda connection: done.wait(10) and None):
        reader = LocalReader(path, "acme", "ann", "t.o.k")
        reader.open()
        assert reader.receive(0.05) == []
        done.set()
        reader.close()


def test_nobody_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    with pytest.raises(BusError) as caught:
        LocalProducer(path, timeout_s=0.05).open()
    assert str(caught.value) == (
        f"{path}: nobody answers within 0.05 s (No such file or directory); "
        "start the engine with bus.local.path set to this path, or correct the path"
    )


def test_an_engine_that_went_away_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "bus.sock")
    with Peer(path, lambda connection: None):
        producer = LocalProducer(path)
        producer.open()
    with pytest.raises(BusError) as caught:  # noqa: PT012 - the kernel may take some before it tells
        while True:
            producer.send(b"x" * 65536)
    assert str(caught.value) == (
        f"{path}: the engine takes no more input (Broken pipe); "
        "see its log, connect again, and send again what was not answered, under its names"
    )
    producer.close()

"""The raw NATS codec: bytes cut anywhere, and a real nats-server at the other end."""

import pytest

from bench.raw_nats import Connection, Message, Parser, ProtocolError, name_in, publication, publication_with
from bench.servers import Place

HEADER = b"NATS/1.0\r\nNats-Msg-Id: e/c/s/1/2\r\n\r\n"
SAID = (
    b'INFO {"server_id":"x"}\r\n+OK\r\nMSG a.b 1 5\r\nab\r\nc\r\nPING\r\n'
    + b"HMSG a.c 2 reply %d %d\r\n" % (len(HEADER), len(HEADER) + 4)
    + HEADER
    + b"body\r\nPONG\r\nMSG a.d 3 0\r\n\r\n"
)
MEANT = [Message(b"a.b", b"", b"ab\r\nc"), Message(b"a.c", HEADER, b"body"), Message(b"a.d", b"", b"")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, len(SAID)])
def test_bytes_cut_anywhere_give_the_same_messages(size):
    parser = Parser()
    found = [each for at in range(0, len(SAID), size) for each in parser.feed(SAID[at : at + size])]
    assert found == MEANT
    assert (parser.pings, parser.pongs) == (1, 1)


def test_what_the_server_refuses_is_an_error_with_its_words():
    with pytest.raises(ProtocolError) as raised:
        list(Parser().feed(b"-ERR 'Authorization Violation'\r\n"))
    assert str(raised.value) == (
        "nats-server: expected MSG, HMSG, PING, PONG or INFO, found b\"-ERR 'Authorization Violation'\""
    )


def test_publication_carries_its_name_as_a_header():
    assert publication("a", "c/s/1/2", b"xy") == (b"HPUB a 34 36\r\nNATS/1.0\r\nNats-Msg-Id: c/s/1/2\r\n\r\nxy\r\n")
    assert publication("a", "", b"xy") == b"PUB a 2\r\nxy\r\n"
    assert name_in(HEADER) == "e/c/s/1/2"
    assert name_in(b"") == ""
    assert publication_with(b"a", HEADER, b"") == b"HPUB a %d %d\r\n%b\r\n" % (len(HEADER), len(HEADER), HEADER)


@pytest.fixture
def place():
    place = Place(("one", "other"))
    try:
        place.open()
        yield place
    finally:
        place.close()


def test_messages_reach_their_own_account_alone_through_a_real_server(place):
    sender, reader, stranger = (Connection(place.url(name), "test") for name in ("one", "one", "other"))
    for connection in (sender, reader, stranger):
        connection.open()
        connection.subscribe("a.>")
    body = bytes(range(256)) * 400  # more than one read takes
    sender.socket.sendall(publication("a.b", "c/s/1/1", body) + publication("a.c", "", b""))
    sender.socket.sendall(b"PING\r\n")
    found: list[Message] = []
    while len(found) < 2:
        found += reader.receive()
    assert [(each.subject, name_in(each.header), each.body) for each in found] == [
        (b"a.b", "c/s/1/1", body),
        (b"a.c", "", b""),
    ]
    stranger.settle()  # asserts that nothing came
    for connection in (sender, reader, stranger):
        connection.close()


def test_nothing_is_left_behind(place):
    place.start_python("sleeper", "-c", "import time; print('ready', flush=True); time.sleep(600)")
    place.wait_said("sleeper", "ready")
    place.close()
    assert all(process.poll() is not None for process in place.processes.values())
    assert not place.folder.exists()

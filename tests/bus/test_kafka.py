"""Records of the two rings beside the kafka process: written, read, never believed beyond their own size."""

import doctest

import pytest

from engine.bus import kafka
from engine.errors import BusError, SettingsError
from engine.settings import Kafka
from fastpath.ring import ByteRing

CAPACITY = 4096


@pytest.fixture
def ring() -> ByteRing:
    return ByteRing(memoryview(bytearray(ByteRing.bytes_needed(CAPACITY))))


def test_what_is_put_in_comes_out_in_order_across_the_rings_end(ring: ByteRing) -> None:
    read, sent = 0, 0
    while sent < 50:
        raw = bytes([sent]) * (100 + 7 * sent)
        if not kafka.put_input(ring, sent + 1, sent % 3, 10 * sent, sent % 2 == 0, b"acme/feed", raw):
            ring.release(read)
            continue
        sent += 1
        for found in kafka.inputs(ring, read):
            assert (found.partition, found.offset, found.answered) == (
                (sent - 1) % 3,
                10 * (sent - 1),
                (sent - 1) % 2 == 0,
            )
            assert (found.key, found.raw) == ("acme/feed", raw)
            read = found.end
    assert read == ring.head


def test_an_answer_keeps_its_topic_key_name_and_bytes(ring: ByteRing) -> None:
    end = kafka.put_output(ring, 1, *kafka.place_of("ml.v1.rejections.acme.feed-0"), b"engine/acme/feed-0/1/2", b"body")
    (found,) = kafka.outputs(ring, 0)
    assert found == (end, "ml.v1.rejections", b"acme/feed-0", "engine/acme/feed-0/1/2", b"body")


def test_a_full_ring_takes_no_more_until_its_reader_lets_go(ring: ByteRing) -> None:
    taken = 0
    while kafka.put_output(ring, taken + 1, 0, b"", b"", bytes(500)) >= 0:
        taken += 1
    assert taken == 7
    ring.release(next(iter(kafka.outputs(ring, 0))).end)
    assert kafka.put_output(ring, 9, 0, b"", b"", bytes(400)) >= 0


def test_a_length_beyond_its_record_is_refused(ring: ByteRing) -> None:
    assert kafka.put_input(ring, 1, 0, 0, False, b"k", b"raw")
    head = ring.view(0, kafka.INPUT_BYTES)
    head[32:36] = (60_000).to_bytes(4, "little")
    with pytest.raises(BusError, match=r"^record at 0 of a kafka ring: its parts take 60041 bytes of 48$"):
        list(kafka.inputs(ring, 0))


def test_options_pass_through_and_win_and_a_password_comes_from_its_file(tmp_path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hush\n")
    made = kafka.options(
        Kafka("host:1", ("security.protocol=SASL_SSL", "socket.timeout.ms=77"), str(secret)), "engine-0"
    )
    assert made["bootstrap.servers"] == "host:1"
    assert made["security.protocol"] == "SASL_SSL"
    assert made["socket.timeout.ms"] == "77"
    assert made["sasl.password"] == "hush"
    with pytest.raises(SettingsError, match=r"none cannot be read: No such file or directory$"):
        kafka.options(Kafka("host:1", (), str(tmp_path / "none")), "engine-0")


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(kafka).failed == 0

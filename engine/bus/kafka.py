"""Kafka: its topics, the options of librdkafka, and the records of the two rings beside the kafka process.

Owns no state. The kafka process (all of it), ingress and egress (the rings' records) run it, and `check`. What
must stay true: a length in a record is held against the record before a byte is touched.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine import limits
from engine.contract.names import DEADLETTER_SUBJECT, FEATURES_SUBJECT, PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT
from engine.errors import BusError, SettingsError
from engine.settings import Kafka
from fastpath import layout
from fastpath.ring import ByteRing

FEATURES_TOPIC = FEATURES_SUBJECT
TOPICS = (PREDICTIONS_SUBJECT, REJECTIONS_SUBJECT, DEADLETTER_SUBJECT)  # that are published to; records hold the index
NAME_HEADER = "msg-id"
INPUT_BYTES = layout.kafka_input_dtype.itemsize
OUTPUT_BYTES = layout.kafka_output_dtype.itemsize


def options(settings: Kafka, client_id: str) -> dict[str, Any]:
    """What consumer, producer and `check` have in common. Raises SettingsError for a password that cannot be read."""
    given = dict(text.split("=", 1) for text in settings.options)
    if settings.sasl_password_file:
        try:
            given["sasl.password"] = Path(settings.sasl_password_file).read_text().strip()
        except OSError as error:
            raise SettingsError(
                f"bus.kafka.sasl_password_file: {settings.sasl_password_file} cannot be read: {error.strerror}"
            ) from None
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": client_id,
        "socket.timeout.ms": limits.KAFKA_TIMEOUT_MS,
        "socket.nagle.disable": True,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 250,
        "topic.metadata.refresh.interval.ms": 5000,
        "log_level": 2,
        **given,
    }


def place_of(subject: str) -> tuple[int, bytes]:
    """Topic and record key of what has this subject on NATS; the key is empty where it names no stream.

    >>> place_of("ml.v1.predictions.acme.feed-0"), place_of("ml.v1.rejections")
    ((0, b'acme/feed-0'), (1, b''))
    """
    parts = subject.split(".", 3)
    return TOPICS.index(".".join(parts[:3])), (parts[3].replace(".", "/", 1) if len(parts) > 3 else "").encode()


class Input(NamedTuple):
    """A record of the features topic, as ingress finds it in the ring."""

    end: int  # position after it
    partition: int
    offset: int
    answered: bool
    key: str
    raw: bytes


class Output(NamedTuple):
    """What egress wants published."""

    end: int
    topic: str
    key: bytes
    name: str
    body: bytes


def put_input(ring: ByteRing, number: int, partition: int, offset: int, answered: bool, key: bytes, raw: bytes) -> bool:
    """False: no room."""
    head = np.zeros(1, layout.kafka_input_dtype)
    row = head[0]
    row["number"], row["partition"], row["offset"], row["answered"] = number, partition, offset, answered
    row["key_bytes"], row["raw_bytes"] = len(key), len(raw)
    return _put(ring, head, key + raw) >= 0


def put_output(ring: ByteRing, number: int, topic: int, key: bytes, name: bytes, body: bytes) -> int:
    """The position after it, -1: no room."""
    head = np.zeros(1, layout.kafka_output_dtype)
    row = head[0]
    row["number"], row["topic"] = number, topic
    row["key_bytes"], row["name_bytes"], row["body_bytes"] = len(key), len(name), len(body)
    return _put(ring, head, key + name + body)


def _put(ring: ByteRing, head: np.ndarray, rest: bytes) -> int:
    size = (head.itemsize + len(rest) + 7) & ~7
    position = ring.claim(size)
    if position < 0:
        return -1
    head[0]["bytes"] = size
    area = ring.view(position, size)
    area[head.itemsize : head.itemsize + len(rest)] = rest
    area[: head.itemsize] = head.tobytes()
    ring.publish(position + size)
    return position + size


def inputs(ring: ByteRing, begin: int) -> Iterator[Input]:
    """Those that were published from a position on."""
    for position, size in ring.records(begin, ring.head):
        head = np.frombuffer(ring.view(position, INPUT_BYTES), layout.kafka_input_dtype, 1)[0]
        key, raw = _parts(ring, position, size, INPUT_BYTES, (int(head["key_bytes"]), int(head["raw_bytes"])))
        answered = bool(head["answered"])
        yield Input(
            position + size, int(head["partition"]), int(head["offset"]), answered, key.decode(errors="replace"), raw
        )


def outputs(ring: ByteRing, begin: int) -> Iterator[Output]:
    for position, size in ring.records(begin, ring.head):
        head = np.frombuffer(ring.view(position, OUTPUT_BYTES), layout.kafka_output_dtype, 1)[0]
        lengths = int(head["key_bytes"]), int(head["name_bytes"]), int(head["body_bytes"])
        key, name, body = _parts(ring, position, size, OUTPUT_BYTES, lengths)
        yield Output(position + size, TOPICS[int(head["topic"])], key, name.decode(), body)


def _parts(ring: ByteRing, position: int, size: int, at: int, lengths: tuple[int, ...]) -> list[bytes]:
    if at + sum(lengths) > size:
        raise BusError(f"record at {position} of a kafka ring: its parts take {at + sum(lengths)} bytes of {size}")
    area, parts = ring.view(position, size), []
    for length in lengths:
        parts.append(bytes(area[at : at + length]))
        at += length
    return parts

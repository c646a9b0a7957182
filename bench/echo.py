"""The floor: answers each message with as many bytes as an engine would, and does nothing else.

Owns one blocking socket; runs as a process of its own, `python -m bench.echo URL STREAM=BYTES ...`.
Reads messages of the contract's subjects, writes filler with the input's own name in its header. What
must stay true: one answer for one message; whatever this takes, no service behind the same
nats-server can take less of.
"""

import gc
import sys

from bench.raw_nats import Connection, publication_with
from engine.contract.names import FEATURES_SUBJECT, PREDICTIONS_SUBJECT


def main(url: str, sizes: dict[bytes, int]) -> None:
    answers = {stream: b"." * count for stream, count in sizes.items()}
    features, predictions = FEATURES_SUBJECT.encode(), PREDICTIONS_SUBJECT.encode()
    connection = Connection(url, "echo")
    connection.open()
    connection.subscribe(f"{FEATURES_SUBJECT}.>")
    print("ready", flush=True)
    gc.disable()
    while True:
        for message in connection.receive():
            subject = message.subject.replace(features, predictions, 1)
            body = answers[message.subject.rpartition(b".")[2]]
            connection.socket.sendall(publication_with(subject, message.header, body))


if __name__ == "__main__":
    main(sys.argv[1], {stream.encode(): int(count) for stream, count in (pair.split("=") for pair in sys.argv[2:])})

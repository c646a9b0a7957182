"""The floor of the local bus: answers each frame with as many bytes as an engine would, and does nothing else.

Owns the two listening sockets that an engine has; runs as a process of its own, `python -m bench.local_echo PATH
STREAM=BYTES ...`, for one producer that reads its own answers. What must stay true: one answer for one message, of
the bytes of the engine's answers in the warm-up.
"""

import gc
import sys

from bench.raw_local import FRAME_BYTES_MAX
from bench.raw_nats import RECEIVE_BYTES
from engine.bus.frames import FrameReader, encode
from engine.bus.local import bind


def main(path: str, sizes: dict[bytes, int]) -> None:
    answers = [(stream, encode(b"." * count)) for stream, count in sizes.items()]
    listeners = [bind(path), bind(f"{path}.out")]
    for each in listeners:
        each.setblocking(True)
    print("ready", flush=True)
    producer, reader = (each.accept()[0] for each in listeners)
    reader.recv(RECEIVE_BYTES)  # its subscription
    frames = FrameReader(FRAME_BYTES_MAX)
    gc.disable()
    while data := producer.recv(RECEIVE_BYTES):
        for frame in frames.feed(data):
            reader.sendall(next(answer for stream, answer in answers if stream in frame))


if __name__ == "__main__":
    main(sys.argv[1], {stream.encode(): int(count) for stream, count in (pair.split("=") for pair in sys.argv[2:])})

"""Bytes that nobody should send: noise, and real messages with a few bytes wrong."""

import random


def noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 7, 100, 1000, 4000)) + chance.randrange(64))


def flipped(chance: random.Random, message: bytes) -> bytes:
    changed = bytearray(message)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwritten(chance: random.Random, message: bytes) -> bytes:
    at, size = chance.randrange(len(message)), chance.randint(1, 64)
    return message[:at] + chance.randbytes(size) + message[at + size :]


def cut(chance: random.Random, message: bytes) -> bytes:
    return message[: chance.randrange(len(message))]


def shortened(chance: random.Random, message: bytes) -> bytes:
    at = chance.randrange(len(message))
    return message[:at] + message[at + chance.randint(1, 64) :]


def repeated(chance: random.Random, message: bytes) -> bytes:
    at, size = chance.randrange(len(message)), chance.randint(1, 200)
    return message[: at + size] + message[at : at + size] + message[at + size :]


def doubled(chance: random.Random, message: bytes) -> bytes:
    """Two messages in one: protobuf takes each field's last value, and merges."""
    return message + overwritten(chance, message)


MUTATIONS = (flipped, overwritten, cut, shortened, repeated, doubled)


def junk(chance: random.Random, real: list[bytes], count: int) -> list[bytes]:
    """Half noise, half mutated real messages, shuffled; none of them is a real message as it was."""
    known, found = set(real), []
    while len(found) < count:
        each = noise(chance) if len(found) % 2 else chance.choice(MUTATIONS)(chance, chance.choice(real))
        if each not in known:
            found.append(each)
    chance.shuffle(found)
    return found

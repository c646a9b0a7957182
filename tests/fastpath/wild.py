"""Protocol buffers as nobody writes them but anybody may: made from a message's descriptor, then damaged.

What is valid has fields in any order, several times, packed or not, in numbers longer than they must be, with
unknown fields and groups between them. Damage is done to any byte of that, lengths included.
"""

import struct
from random import Random

from google.protobuf.descriptor import Descriptor, FieldDescriptor

NUMBERS = [
    0.0, -0.0, 1.0, -1.0, 100.0, 1e12, 1.0000001e12, 1.1, 5e-324, 2.2e-308, 1e308, -1e308, 1.000001, 1.0000011,
    float("inf"), float("-inf"), float("nan"),
]  # fmt: skip
WHOLE = [0, 1, 127, 128, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 1_740_000_000_000_000_000]
TEXTS = ["", "a", "EURUSD", "é", "a\0b", "x" * 25, "漢字", "\U0010ffff", "feature_vectors", "acme", "A.B/c-D_9"]
NOT_UTF8 = [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\x80"]


def varint(value: int, longer: int = 0) -> bytes:
    """`longer`: by so many bytes than it must be."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(longer):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(number: int, kind: int, longer: int = 0) -> bytes:
    return varint(number << 3 | kind, longer)


def sized(number: int, body: bytes) -> bytes:
    return tag(number, 2) + varint(len(body)) + body


class Wild:
    """Made-up messages of one seed."""

    def __init__(self, seed: int, bad_texts: float = 0.0) -> None:
        self.chance = Random(seed)
        self.bad_texts = bad_texts  # share of texts that are none

    def message(self, kind: Descriptor, depth: int = 0) -> bytes:
        chance, parts = self.chance, []
        for field in kind.fields:
            for _ in range(chance.choice((0, 1, 1, 1, 2)) if depth else chance.choice((0, 1, 1, 2, 3))):
                parts.append(self.field(field, depth))
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            parts.append(self.unknown(chance.choice((15, 16, 99, 2**29 - 1))))
        if chance.random() < 0.3:
            chance.shuffle(parts)
        return b"".join(parts)

    def field(self, field: FieldDescriptor, depth: int) -> bytes:
        chance, number = self.chance, field.number
        if chance.random() < 0.03:
            return self.unknown(number, avoid=2)  # of a type that this field has not
        if field.message_type is not None:
            return sized(number, self.message(field.message_type, depth + 1))
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            if field.is_repeated and chance.random() < 0.8:
                return sized(number, b"".join(self.number() for _ in range(chance.choice((0, 1, 3, 20)))))
            return tag(number, 1) + self.number()
        if field.type == FieldDescriptor.TYPE_BYTES:
            return sized(number, chance.randbytes(chance.randrange(20)))
        if field.type == FieldDescriptor.TYPE_STRING:
            if chance.random() < self.bad_texts:
                return sized(number, chance.choice(NOT_UTF8))
            return sized(number, chance.choice(TEXTS).encode())
        longer = chance.choice((0, 0, 0, 0, 1))
        value = chance.choice(WHOLE)
        return tag(number, 0, longer) + varint(value, longer if value < 1 << 56 else 0)

    def number(self) -> bytes:
        chance = self.chance
        return struct.pack("<d", chance.choice(NUMBERS) if chance.random() < 0.2 else chance.uniform(0.01, 1.0))

    def unknown(self, number: int, avoid: int = -1) -> bytes:
        chance = self.chance
        kind = chance.choice([each for each in (0, 2, 3, 5) if each != avoid])
        if kind == 0:
            return tag(number, 0) + varint(chance.choice(WHOLE))
        if kind == 2:
            return sized(number, chance.randbytes(chance.randrange(9)))
        if kind == 5:
            return tag(number, 5) + chance.randbytes(4)
        inner = b"".join(self.unknown(chance.randrange(1, 20)) for _ in range(chance.choice((0, 0, 1))))
        return tag(number, 3) + inner + tag(number, 4)

    def damaged(self, raw: bytes) -> bytes:
        chance, out = self.chance, bytearray(raw)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            at = chance.randrange(len(out) + 1)
            match chance.randrange(6):
                case 0 if at < len(out):
                    out[at] ^= 1 << chance.randrange(8)
                case 1 if at < len(out):
                    out[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
                case 2:
                    del out[at:]
                case 3:
                    out[at:at] = chance.randbytes(chance.randrange(1, 4))
                case 4:
                    end = chance.randrange(at, len(out) + 1)
                    out[at:at] = out[at:end]
                case _:
                    del out[at : at + chance.randrange(1, 4)]
        return bytes(out)

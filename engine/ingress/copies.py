"""First copies of messages, for comparison with those that come after them.

Owns what is remembered of the last messages. Runs in ingress, only to count and to tell: whether a
message is a copy at all is the arbiter's word. What must stay true: memory is bounded.
"""

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from engine.contract.names import Bus, Kind
from engine.ingress.admission import Message

REMEMBERED_MAX = 8192


class Copy(NamedTuple):
    """Of the first message under a name."""

    fingerprint: bytes
    bus: Bus
    received_ns: int


class FirstCopies:
    """The last `REMEMBERED_MAX` feature messages that were accepted whole."""

    def __init__(self) -> None:
        self._copies: OrderedDict[tuple, Copy] = OrderedDict()

    def remember(self, message: Message) -> None:
        if message.kind == Kind.VECTOR and not message.overloaded:
            self._copies[_name(message)] = Copy(_fingerprint(message), message.bus, message.received_ns)
            if len(self._copies) > REMEMBERED_MAX:
                self._copies.popitem(last=False)

    def first(self, message: Message) -> Copy | None:
        """What came before under this message's name, where it is still remembered."""
        return self._copies.get(_name(message)) if message.kind == Kind.VECTOR else None


def differs(message: Message, first: Copy) -> bool:
    """Whether other bytes come under the name; one that left its name alone cannot be compared."""
    return not message.overloaded and first.fingerprint != _fingerprint(message)


def _name(message: Message) -> tuple:
    envelope = message.envelope
    return envelope.company_id, envelope.service_source, envelope.epoch, envelope.sequence


def _fingerprint(message: Message) -> bytes:
    return hashlib.blake2b(message.envelope.payload, digest_size=16).digest()

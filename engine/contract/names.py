"""The contract's words as constants: subjects, message types, tiers, codes, flags.

Owns no state; every process imports it. What must stay true: each value here is written in the
contract, and other teams build against it.
"""

import re
from enum import IntEnum
from functools import lru_cache

FEATURES_SUBJECT = "ml.v1.features"
PREDICTIONS_SUBJECT = "ml.v1.predictions"
REJECTIONS_SUBJECT = "ml.v1.rejections"
DEADLETTER_SUBJECT = "ml.v1.deadletter"
MESSAGE_ID_HEADER = "Nats-Msg-Id"

HORIZON_MINUTES = (1, 5, 15, 60)

NAME_MAX = 64
_TOKEN_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_MAX}}}", re.ASCII)
_MODEL_ID = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)
_SYMBOL = re.compile(r"[A-Za-z0-9._/-]{1,24}", re.ASCII)


def is_name(text: str) -> bool:
    """Whether the text may stand for a company or a stream, in subjects and file names."""
    return len(text) <= NAME_MAX and _is_name(text)  # who is not known yet may send any text, and it is not kept


@lru_cache(1 << 12)
def _is_name(text: str) -> bool:
    return _TOKEN_NAME.fullmatch(text) is not None


def is_model_id(text: str) -> bool:
    return _MODEL_ID.fullmatch(text) is not None


def is_symbol(text: str) -> bool:
    return _SYMBOL.fullmatch(text) is not None


def is_user(text: str) -> bool:
    """1 to 128 printable characters."""
    return 1 <= len(text) <= 128 and text.isprintable()


class Tier(IntEnum):
    """common.v1.SubscriptionTier."""

    FREE = 1
    PRO = 2
    ENTERPRISE = 3


class Kind(IntEnum):
    """What a slot, or a record of `inputs`, carries."""

    VECTOR = 1
    REJECTION = 2  # a whole message refused: an answer of its own
    HEARTBEAT = 3


class Status(IntEnum):
    """ml.v1.PredictionStatus."""

    OK = 1
    DEGRADED = 2
    WARMING = 3
    EXPIRED = 4
    REJECTED = 5


class Signal(IntEnum):
    """trading.v1.Signal."""

    SELL = 1
    HOLD = 2
    BUY = 3


class Reason(IntEnum):
    """Codes of rejections; the name in lower case is the code on the wire."""

    NONE = 0
    # of a whole message
    MALFORMED = 1
    TOO_LARGE = 2
    UNAUTHENTICATED = 3
    EXPIRED_TOKEN = 4
    FORBIDDEN = 5
    TENANT_MISMATCH = 6
    STALE = 7
    TOO_MANY_VECTORS = 8
    DUPLICATE_SYMBOL = 9
    OUT_OF_RANGE = 10  # also of one vector
    OVERLOADED = 11
    INTERNAL = 12  # also of one vector
    # of one vector
    UNKNOWN_SYMBOL = 13
    NON_FINITE = 14
    POISON = 15

    @property
    def code(self) -> str:
        return self.name.lower()


class Flag(IntEnum):
    """Bits that do not reject; shown as `flagged: <name>` in a prediction's reason."""

    CROSSED = 1
    GAP = 2
    OLD = 4
    UNFAMILIAR = 8


class Bus(IntEnum):
    """Who brought an input."""

    NATS = 1
    LOCAL = 2
    KAFKA = 3

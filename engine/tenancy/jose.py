"""Base64url and JSON as tokens and keys write them, read strictly.

Owns no state; used by whoever reads tokens or keys. Reads bytes, writes values. What must stay true:
one value has one accepted spelling, so that two readers can never disagree about what was signed;
whatever is wrong with the input is a ValueError and nothing else.
"""

import base64
import json
import re
from typing import Any

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """The bytes behind base64url without padding.

    Characters outside the alphabet, padding, and unused bits that are not zero are refused: Python's
    own decoder skips or ignores all three, and then several texts would stand for the same bytes.
    """
    if _ALPHABET.fullmatch(text) is None:
        raise ValueError("a character outside base64url")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if to_base64url(data) != text:
        raise ValueError("bits of base64url that belong to no byte")
    return data


def from_json(data: bytes) -> Any:
    """One JSON value in UTF-8: no name twice in an object, no NaN, no infinities, no bottomless nesting."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name that stands twice in one object")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")

"""Values out of a manifest's tables: of the right type, within their bounds, under keys that exist.

Owns the reading of one value; used by `manifest`. Writes nothing. What must stay true: each refusal
names the file, the key, what was expected and what was found; a value of any size costs a bounded look.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import ModelError

NUMBERS_MAX = 4096  # of one list in a manifest
NUMBER_MAX = 1e300  # a comparison finds NaN, infinity and whole numbers of any length beyond it
WordT = TypeVar("WordT", bound=IntEnum)


def nearest(name: str, names: Collection[str]) -> str:
    """What somebody meant who wrote `name`."""
    near = get_close_matches(name.lower(), names, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def known(file: Path, table: Mapping[str, Any], keys: Collection[str], prefix: str = "") -> None:
    """ModelError for a key that nobody reads: it would be a mistyped one."""
    for key in table:
        if key not in keys:
            raise ModelError(f"{file}: {prefix}{key} is unknown; {nearest(key, keys) if keys else 'remove it'}")


def value_of(file: Path, table: Mapping[str, Any], key: str, expected: str) -> Any:
    if key not in table:
        raise ModelError(f"{file}: {key}: expected {expected}, found nothing; add it to the manifest")
    return table[key]


def typed(file: Path, table: Mapping[str, Any], key: str, kind: type, expected: str) -> Any:
    value = value_of(file, table, key, expected)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelError(f"{file}: {key}: expected {expected}, found {value!r}; correct the manifest")
    return value


def text_of(file: Path, table: Mapping[str, Any], key: str) -> str:
    found: str = typed(file, table, key, str, "a text of at most 200 characters")
    if len(found) > 200:
        raise ModelError(
            f"{file}: {key}: expected a text of at most 200 characters, found {len(found)}; correct the manifest"
        )
    return found


def table_of(file: Path, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = typed(file, table, key, dict, "a table")
    return found


def word_of(file: Path, table: Mapping[str, Any], key: str, words: type[WordT]) -> WordT:
    allowed = ", ".join(each.name.lower() for each in words)
    text = text_of(file, table, key)
    if text.upper() not in words.__members__ or text != text.lower():
        raise ModelError(f"{file}: {key}: expected one of {allowed}, found {text!r}; correct the manifest")
    return words[text.upper()]


def number_of(file: Path, table: Mapping[str, Any], key: str, kind: type, low: float, high: float) -> Any:
    expected = f"a number from {low} to {high}"
    value = typed(file, table, key, int if kind is int else int | float, expected)  # type: ignore[arg-type]
    if not low <= value <= high:
        raise ModelError(f"{file}: {key}: expected {expected}, found {value!r}; correct the manifest")
    return value


def list_of(file: Path, table: Mapping[str, Any], key: str, kind: type) -> Sequence[Any]:
    expected = f"a list of at most {NUMBERS_MAX} {'texts' if kind is str else 'whole numbers'}"
    values: list[Any] = typed(file, table, key, list, expected)
    if len(values) > NUMBERS_MAX or any(not isinstance(each, kind) or isinstance(each, bool) for each in values):
        raise ModelError(f"{file}: {key}: expected {expected}, found something else; correct the manifest")
    return values


def numbers_of(file: Path, table: Mapping[str, Any], key: str) -> Mapping[str, tuple[float, ...]]:
    out = {}
    for name, values in table_of(file, table, key).items():
        fits = isinstance(values, list) and len(values) <= NUMBERS_MAX
        if not fits or any(
            not isinstance(each, int | float) or isinstance(each, bool) or not -NUMBER_MAX < each < NUMBER_MAX
            for each in values
        ):
            raise ModelError(
                f"{file}: {key}.{name}: expected a list of at most {NUMBERS_MAX} finite numbers, found {values!r}; "
                "correct the manifest"
            )
        out[name] = tuple(float(each) for each in values)
    return out

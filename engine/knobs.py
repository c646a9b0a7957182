"""How a setting is declared, read, checked and documented; settings.py says which there are.

Owns the derivation: from dataclass fields made by `knob` follow the TOML keys, the names in the
environment, the checks, the error texts and the reference. Reads a TOML file and the permissions of
secret files, never their contents. Used by every process through `engine.settings`. What must stay
true: every problem is found in one pass, and each names the key, the value, where it stands and
what is allowed.
"""

import json
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

PREFIX = "TICKPATH_"
Section = TypeVar("Section")


class Rule(NamedTuple):
    """What the text of a value, or of each in a list, must look like."""

    holds: Callable[[str], bool]
    allowed: str


class Knob(NamedTuple):
    """What is known of one setting beside its type and default."""

    help: str
    unit: str
    low: int | None
    high: int | None
    choices: tuple[str, ...]
    rule: Rule | None
    secret: bool  # names a file that others must not be able to read


def knob(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    rule: Rule | None = None,
    secret: bool = False,
) -> Any:
    """A dataclass field with all that is derived from it. Empty is allowed where it is the default."""
    return field(default=default, metadata={"knob": Knob(help, unit, low, high, choices, rule, secret)})


def read_toml(path: str) -> tuple[dict[str, Any], list[str]]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8")), []
    except OSError as error:
        return {}, [f"{path}: cannot be read ({error.strerror}); expected a TOML file that this user may read"]
    except ValueError as error:
        return {}, [f"{path}: is not TOML: {error}"]


def read(
    kind: type[Section], document: Mapping[str, Any], origin: str, environ: Mapping[str, str]
) -> tuple[Section, list[str]]:
    """Environment over document over defaults. A value that is not allowed is left at its default."""
    problems: list[str] = []
    known: set[str] = set()
    section = _section(kind, document, "", origin, environ, problems, known)
    for name in sorted(environ):
        if name.startswith(PREFIX) and "__" in name and name not in known:
            problems.append(f"environment: {name} is unknown{_nearest(name, known)}")
    return section, problems


def _section(
    kind: type[Section],
    document: Mapping[str, Any],
    prefix: str,
    origin: str,
    environ: Mapping[str, str],
    problems: list[str],
    known: set[str],
) -> Section:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for key in document:
        if key not in names:
            problems.append(f"{origin}: {prefix}{key} is unknown{_nearest(key, names)}")
    for each in fields(kind):  # type: ignore[arg-type]
        dotted = prefix + each.name
        hint = hints[each.name]
        if is_dataclass(hint):
            table = document.get(each.name, {})
            if not isinstance(table, Mapping):
                problems.append(f"{origin}: {dotted} = {_shown(table)}: expected a table, [{dotted}]")
                table = {}
            values[each.name] = _section(hint, table, dotted + ".", origin, environ, problems, known)  # type: ignore[arg-type]
            continue
        variable = environment_name(dotted)
        known.add(variable)
        if variable in environ:
            raw, place = _from_text(environ[variable], hint), f"environment: {variable}"
        elif each.name in document:
            raw, place = document[each.name], f"{origin}: {dotted}"
        else:
            continue
        problem, value = _checked(raw, hint, each.metadata["knob"], each.default)
        if not problem:
            values[each.name] = value
            problem = private(value) if each.metadata["knob"].secret and value else ""
        if problem:
            problems.append(f"{place} = {_shown(raw)}: {problem}")
    return kind(**values)


def environment_name(dotted: str) -> str:
    return PREFIX + dotted.replace(".", "__").upper()


def _from_text(text: str, hint: Any) -> Any:
    """An environment variable's text as TOML would have given it; the text itself where it does not fit."""
    if get_args(hint)[1:] == (...,):
        inner = get_args(hint)[0]
        return [_from_text(part.strip(), inner) for part in text.split(",") if part.strip()]
    if hint is bool:
        return {"true": True, "false": False}.get(text, text)
    if (hint is int or int in get_args(hint)) and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    return text


def _checked(raw: Any, hint: Any, knob: Knob, default: Any) -> tuple[str, Any]:
    """(what is wrong or "", the value)."""
    expected = f"expected {allowed(hint, knob)}"
    if get_args(hint)[1:] == (...,):
        if not isinstance(raw, list) or (not raw and default):
            return expected, None
        inner = get_args(hint)[0]
        return ("", tuple(raw)) if all(_fits(each, inner, knob) for each in raw) else (expected, None)
    if raw == "" and default == "":
        return "", raw
    return ("", raw) if _fits(raw, hint, knob) else (expected, None)


def _fits(value: Any, hint: Any, knob: Knob) -> bool:
    kinds = get_args(hint) or (hint,)
    if type(value) is int and int in kinds:
        return (knob.low is None or value >= knob.low) and (knob.high is None or value <= knob.high)
    if type(value) is str and str in kinds:
        if knob.choices:
            return value in knob.choices
        return "\x00" not in value and (knob.rule is None or knob.rule.holds(value))
    return type(value) is bool and bool in kinds


def allowed(hint: Any, knob: Knob) -> str:
    """What a setting takes, for error texts and the reference."""
    if get_args(hint)[1:] == (...,):
        inner = get_args(hint)[0]
        if knob.choices:
            return "a list of " + ", ".join(json.dumps(choice) for choice in knob.choices)
        return f"a list, each {allowed(inner, knob)}"
    kinds = get_args(hint) or (hint,)
    options = [json.dumps(choice) for choice in knob.choices]
    if int in kinds:
        unit = f" of {knob.unit}" if knob.unit else ""
        options.append(f"a whole number{unit} from {knob.low} to {knob.high}")
    if bool in kinds:
        options.append("true or false")
    if options:
        return " or ".join(options) if len(options) < 3 else ", ".join(options[:-1]) + " or " + options[-1]
    if knob.secret:
        return "the path of a file"
    return knob.rule.allowed if knob.rule else "text"


def private(path: str) -> str:
    """What is wrong with a secret's file, or ""."""
    try:
        found = Path(path).stat()
    except OSError as error:
        return f"cannot be read ({error.strerror}); expected a file that only this user may read"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file; expected a file that only this user may read"
    if found.st_mode & 0o077:
        return f"others can read it (mode {stat.S_IMODE(found.st_mode):04o}); expected mode 0600: chmod 600 {path}"
    return ""


def without_passwords(text: str) -> str:
    """For messages: what stands before an @ in URLs, and behind `password=`, is nobody's to read.

    >>> without_passwords("nats://ann:secret@a:4222,nats://token@b:4222")
    'nats://***@a:4222,nats://***@b:4222'
    """
    text = re.sub(r"(//)[^/@\s\",]*@", r"\1***@", text)
    return re.sub(r"(password=)[^\"\s]*", r"\1***", text)


def _shown(value: Any) -> str:
    """As TOML would have it, cut at 80 characters, passwords left out."""
    text = without_passwords(json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(name: str, names: Any) -> str:
    near = get_close_matches(name, sorted(names), n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known: {', '.join(sorted(names))}" if len(names) <= 16 else ""


def walk(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """(dotted name, type, field) of every knob, tables after plain keys."""
    hints = get_type_hints(kind)
    tables = []
    for each in fields(kind):
        if is_dataclass(hints[each.name]):
            tables.append(each.name)
        else:
            yield prefix + each.name, hints[each.name], each
    for name in tables:
        yield from walk(hints[name], f"{prefix}{name}.")


def reference(kind: Any) -> str:
    """A Markdown table for each section of the file."""
    lines: list[str] = []
    current = None
    for dotted, hint, each in walk(kind):
        section, _, key = dotted.rpartition(".")
        if section != current:
            current = section
            lines += ["", f"**`[{section}]`**", "", "| key | default | takes | meaning |", "| --- | --- | --- | --- |"]
        default = json.dumps(each.default, ensure_ascii=False)
        cells = (f"`{key}`", f"`{default}`", allowed(hint, each.metadata["knob"]), each.metadata["knob"].help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).strip() + "\n"

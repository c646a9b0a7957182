"""`explain NAME --tape DIR`: one answer, with all that led to it.

Owns the command line and how it is printed; `engine.replay.explaining` does the work. Runs in a process of its
own. Reads a tape and the model store; writes to standard output.
"""

import argparse
from pathlib import Path
from typing import Any

import orjson

from engine.replay.explaining import explain
from engine.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="of the answer: [<engine>/]<company>/<stream>/<epoch>/<sequence>")
    add("--tape", metavar="DIR", type=Path, help="the folder of a tape, or one of its segments; default: tape.path")
    add("--config", metavar="FILE", help="settings (TOML); they name the tape and the model store")
    add("--json", action="store_true", help="as JSON")


def main(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config)
    path = arguments.tape or Path(settings.tape.path or settings.tape.recorder_path)
    told = explain(path, Path(settings.models.path), arguments.name)
    print(orjson.dumps(told).decode() if arguments.json else "\n".join(_lines(told)))
    return 0


def _lines(told: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in told.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(value, dict) and value:
            lines += [label, *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(label)
            for each in value:
                first, *rest = _lines(each, indent + "    ")
                lines += [f"{indent}  - {first.strip()}", *rest]
        elif value not in ([], {}, ""):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{label} {text}")
    return lines

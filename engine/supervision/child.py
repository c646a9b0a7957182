"""The entry of every child process: `python -m engine.supervision.child ROLE ROW MANIFEST_FD`.

Owns nothing; opens the arena and runs the role's module, which is imported here and nowhere before.
Reads the manifest that the supervisor wrote into a memfd. What must stay true: a child whose supervisor
is gone already does not begin.
"""

import importlib
import os
import sys
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import orjson

from engine.child import Child
from engine.settings import Settings, digest
from engine.shared import Seat, Shared, regions
from engine.supervision.roles import ROLES
from fastpath.arena import Arena


def from_plain(kind: type, values: dict) -> Any:
    """Settings from the plain data that `dataclasses.asdict` and JSON made of them."""
    hints = get_type_hints(kind)
    given = {}
    for field in fields(kind):
        value = values[field.name]
        if is_dataclass(hints[field.name]):
            value = from_plain(hints[field.name], value)
        given[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


def main(arguments: list[str]) -> int:
    role, row, manifest_fd = ROLES[arguments[0]], int(arguments[1]), int(arguments[2])
    manifest = orjson.loads(os.pread(manifest_fd, os.fstat(manifest_fd).st_size, 0))
    settings = from_plain(Settings, manifest["settings"])
    workers = manifest["workers"]
    arena = Arena.attach(manifest["arena"], regions(settings, workers), digest(settings))
    shared = Shared(arena, settings, workers, manifest["bells"])
    child = Child(role.name, Seat(row, manifest["names"][row]), settings, shared, manifest["owner"], manifest["gpus"])
    child.open(role.orphan_signal)
    if os.getppid() != child.owner_pid:
        return 1  # it died before its death could be told
    try:
        return importlib.import_module(role.module).run(child)
    except Exception:
        child.log.exception("ended by an error")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

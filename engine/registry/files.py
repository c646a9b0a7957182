"""Plain folders and plain files, and nothing that a link, a pipe or a device could put in their place.

Owns how the store is walked and its files are read; used by `manifest`. Writes nothing. What must stay
true: no link is followed; a size is bounded before bytes are read.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.errors import ModelError


class Level(NamedTuple):
    """Of the store's folders."""

    what: str
    name: str  # how one is named
    fits: Callable[[str], bool]


def plain_folders(path: Path, level: Level, left_out: Callable[[ModelError], None]) -> list[Path]:
    """Plain folders with good names, sorted; a link could lead anywhere, so it is none."""
    found = []
    try:
        for each in sorted(path.iterdir()):
            if each.name.startswith("."):
                continue
            if each.is_symlink():
                told = f"expected a folder of {level.what}, found a symbolic link; put the folder itself there"
                left_out(ModelError(f"{each}: {told}"))
            elif each.is_dir() and not level.fits(each.name):
                left_out(ModelError(f"{each}: expected {level.name}, found {each.name!r}; rename the folder"))
            elif each.is_dir():
                found.append(each)
    except OSError as error:
        told = f"expected a folder that this user may read, found {error.strerror}; let user {os.geteuid()} read it"
        left_out(ModelError(f"{path}: {told}"))
    return found


def read_bytes(file: Path, bytes_max: int) -> bytes:
    """A plain file of bounded size; a link, a pipe or a device is refused without being opened for reading."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ModelError(
            f"{file}: expected a readable file, found {error.strerror}; restore the model's folder"
        ) from error
    with os.fdopen(handle, "rb") as opened:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{file}: expected a plain file, found something else; restore the model's folder")
        if found.st_size > bytes_max:
            raise ModelError(f"{file}: expected at most {bytes_max} bytes, found {found.st_size}; use a smaller model")
        return opened.read(bytes_max)

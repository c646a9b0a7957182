"""Numba kernels: how they are compiled, and where their machine code is kept.

Owns the folder of compiled kernels; used by workers, by training and by `engine.inference.warm`.
Reads and writes `.numba/` beside the `engine` package (the project, or site-packages).
What must stay true: the folder is ours alone, because Numba unpickles what it finds there; a change
in any kernel's source voids all of them, because they are compiled into each other; an installation
that cannot be written works from the kernels that it was given.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from engine.errors import ModelError

SOURCES = Path(__file__).parent
FOLDER = SOURCES.parent.parent / ".numba"

log = logging.getLogger(__name__)
kernels: list[Any] = []  # every dispatcher, in the order of definition


def secure(folder: Path) -> Path:
    """The folder, made if it is missing; refused where somebody else could put code into it."""
    try:
        folder.mkdir(mode=0o700)
        (folder / ".gitignore").write_text("*\n")
    except OSError:
        pass  # it is there already, or the installation is read-only and what is there is all there will be
    try:
        found = folder.lstat()
    except OSError:
        return folder
    if not stat.S_ISDIR(found.st_mode):
        raise ModelError(
            f"{folder}: expected a folder for compiled kernels, found something else; remove it and run `make setup`"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise ModelError(
            f"{folder}: expected a folder of user {os.geteuid()} or of root, found owner {found.st_uid}; "
            "compiled kernels are code, so remove it and run `make setup` as the engine's user"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ModelError(
            f"{folder}: expected mode 0700, found {stat.S_IMODE(found.st_mode):04o}, "
            "so others could change what the engine runs; "
            f"run `chmod 0700 {folder}` if nobody did"
        )
    return folder


@cache
def _source_stamp() -> str:
    """Of every file that defines kernels, and of those whose constants they take in."""
    digest = hashlib.sha256()
    for path in (SOURCES.parent / "contract" / "names.py", SOURCES.parent / "shared.py"):
        digest.update(path.read_bytes() + b"\0")
    for path in sorted(SOURCES.rglob("*.py")):
        source = path.read_bytes()
        if b"inference.jit import" in source:
            digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + source + b"\0")
    return digest.hexdigest()


class _Locator:
    """Numba's question where a function's code is kept, answered with our folder."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file = file
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_Locator":
        return cls(function, file)

    def ensure_cache_path(self) -> None:
        Path(self.get_cache_path()).mkdir(mode=0o700, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(FOLDER)

    def get_source_stamp(self) -> str:
        return _source_stamp()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - as Numba declares it


class _Cache(FunctionCache):
    _impl_class = _Implementation

    def save_overload(self, signature: Any, data: Any) -> None:
        """Kept where that is possible; a full disk or a read-only folder costs time at the next start, nothing else."""
        try:
            super().save_overload(signature, data)
        except OSError as error:
            log.warning("a compiled kernel could not be kept in %s: %s; each start compiles it again", FOLDER, error)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, keep the code, and never let the compiler reorder a sum."""
    secure(FOLDER)
    dispatcher: Any = numba.njit(function, fastmath=False, error_model="numpy", nogil=True, boundscheck=False)
    dispatcher._cache = _Cache(function)
    kernels.append(dispatcher)
    return dispatcher


def kernel_dtype(dtype: np.dtype) -> np.dtype:
    """The same bytes with text as arrays of bytes, which kernels can copy."""
    fields: Any = dtype.fields
    formats = [fields[name][0] for name in dtype.names or ()]
    return np.dtype(
        {
            "names": list(dtype.names or ()),
            "formats": [np.dtype(("u1", (each.itemsize,))) if each.kind == "S" else each for each in formats],
            "offsets": [fields[name][1] for name in dtype.names or ()],
            "itemsize": dtype.itemsize,
        }
    )

"""Windows and sequences of a drained engine, kept over a restart that was meant.

Owns the file `engine.state_path`. Runs in the supervisor: `save` after a whole drain, when every child is
gone; `restore` before the first child starts. What must stay true: a file of another build or layout, a torn
or a changed one is left alone and told, and the engine starts as without it; a restored table names no row
that there is not.
"""

import hashlib
import os
import time
import zipfile
from pathlib import Path

import numpy as np

from engine.contract.names import is_name, is_symbol
from engine.errors import StateError
from engine.shared import Shared
from fastpath.arena import LAYOUT_VERSION

INFERENCE = Path(__file__).parents[1] / "inference"
FORMULAS = ("features.py", "windows.py")  # an entry holds what these computed


def build() -> str:
    """Differs as soon as entries of windows would mean something else."""
    formulas = b"".join((INFERENCE / name).read_bytes() for name in FORMULAS)
    return hashlib.sha256(formulas + LAYOUT_VERSION.to_bytes(8, "little")).hexdigest()


def save(shared: Shared, path: Path) -> int:
    """Writes beside the file and moves it there in one step. How many keys it holds; OSError where it cannot."""
    streams, keys = (np.flatnonzero(table["taken"]) for table in (shared.streams, shared.keys))
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            np.savez(
                file,
                build=build(),
                applied=shared.ingress[0]["applied"],
                stream_rows=streams,
                streams=shared.streams[streams],
                stream_states=shared.stream_states[streams],
                key_rows=keys,
                keys=shared.keys[keys],
                windows=shared.windows[keys],
            )
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return len(keys)


def restore(shared: Shared, path: Path) -> int:
    """Fills the tables as they were. How many keys came back, 0 without a file; StateError where it cannot be used."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["build"]) != build():
                raise StateError(f"{path}: expected the state of this build, found another's; windows begin empty")
            state = {name: file[name] for name in file.files}
            _check(shared, state, path)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StateError(
            f"{path}: expected the state of a drained engine, found {error}; windows begin empty"
        ) from error
    streams, keys = state["stream_rows"], state["key_rows"]
    shared.streams[streams], shared.stream_states[streams] = state["streams"], state["stream_states"]
    shared.keys[keys], shared.windows[keys] = state["keys"], state["windows"]
    shared.streams["used_ns"][streams] = shared.keys["used_ns"][keys] = time.monotonic_ns()  # of this boot
    shared.ingress[0]["applied"] = state["applied"]
    return len(keys)


def _check(shared: Shared, state: dict[str, np.ndarray], path: Path) -> None:
    """Types, shapes, rows and names: all that would lead out of a table."""
    wanted = (("streams", "stream_rows", ("streams", "stream_states")), ("keys", "key_rows", ("keys", "windows")))
    for what, rows_name, names in wanted:
        table, rows = getattr(shared, what), state[rows_name]
        if len(rows) > len(table) or (len(rows) and int(rows.max()) >= len(table)):
            raise StateError(
                f"{path}: expected at most {len(table)} {what}, found a row beyond; windows begin empty, "
                f"unless limits.{what}_total is as large as it was"
            )
        if (
            rows.ndim != 1
            or rows.dtype.kind != "i"
            or (len(rows) and int(rows.min()) < 0)
            or len(np.unique(rows)) != len(rows)
        ):
            raise ValueError(f"{rows_name} that are no rows")
        for name in names:
            live = getattr(shared, name)
            if state[name].dtype != live.dtype or state[name].shape != (len(rows), *live.shape[1:]):
                raise ValueError(f"{name} of another shape")
    if state["applied"].shape != () or not 0 <= int(state["applied"]) < 1 << 62:
        raise ValueError("no position")
    if int(state["keys"]["stream"].max(initial=0)) >= len(shared.streams):
        raise ValueError("a key of no stream")
    companies, streams, symbols = state["streams"]["company"], state["streams"]["stream"], state["keys"]["symbol"]
    named = all(is_name(each.decode("ascii", "replace")) for each in (*companies, *streams))
    if not named or not all(is_symbol(each.decode("ascii", "replace")) for each in symbols):
        raise ValueError("names that are none")
    if int(state["streams"]["active"].max(initial=0)) > 1:
        raise ValueError("a third state of a stream")

"""The arena: one memory file that all processes of an engine map, cut into named regions.

The supervisor creates it before any child; children get its descriptor and attach. Owns the file,
its header and where each region lies; what the regions hold is their writers' business.

What must stay true: the file is of full size, filled and sealed before anyone maps it, so no access
can ever fault for want of memory. Creator and attachers work from the same region table, layout
and settings, and from a creator that lives; whoever finds one that differs refuses. Regions begin
at multiples of 128 bytes. Nothing is left behind whatever dies: the file has no name, and goes with
the last process that maps it.
"""

import fcntl
import hashlib
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastpath.layout as layout

ALIGNMENT = 128  # two cache lines, as the neighbour-line prefetcher fetches pairs
MAGIC = int.from_bytes(b"tickpath", "little")
_NOT_OURS = "the arena is not this engine's, or was made from other settings or another build; restart the whole engine"
_OWNER_GONE = "the engine that made it has ended; start the engine again"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_HEADER_BYTES = -(-layout.arena_header_dtype.itemsize // ALIGNMENT) * ALIGNMENT


class ArenaError(Exception):
    """Shared memory is too small, of another layout, or owned by another engine."""


class Region(NamedTuple):
    name: str
    bytes: int


def _layout_version() -> int:
    """A number that differs as soon as two builds disagree about any shared struct."""
    structs = {name: each for name, each in vars(layout).items() if isinstance(each, np.dtype)}
    lines = [f"{name} {structs[name]!r}" for name in sorted(structs)]
    return int.from_bytes(hashlib.sha256("\n".join(lines).encode()).digest()[:8], "little")


LAYOUT_VERSION = _layout_version()


def _places(regions: Sequence[Region]) -> tuple[dict[str, tuple[int, int]], int]:
    """(offset, bytes) of each region, and the bytes of all."""
    places: dict[str, tuple[int, int]] = {}
    offset = _HEADER_BYTES
    for name, size in regions:
        if name in places or size <= 0:
            raise ValueError(f"region {name!r} of {size} bytes: expected a name of its own and a size above zero")
        places[name] = (offset, size)
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    return places, -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE


def _table_digest(regions: Sequence[Region]) -> bytes:
    return hashlib.sha256("".join(f"{name} {size}\n" for name, size in regions).encode()).digest()


def process_start(pid: int, proc: Path = Path("/proc")) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone. With the pid it names a process."""
    try:
        text = (proc / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, and may hold anything.
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _integer(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(folder: Path) -> int:
    """Pages of files that the kernel gives up before it refuses anybody."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split() for line in lines)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


def _control_group_rooms(root: Path) -> Iterator[int]:
    """What each limit on this process's control groups, of version 1 or 2, leaves."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit_name, use_name = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit_name, use_name = (
                root / "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        group = mount / path.lstrip("/")
        # A limit higher up binds as well; inside a container the path may not exist, then the mount is the group.
        for folder in [group, *group.parents]:
            limit, use = _integer(folder / limit_name), _integer(folder / use_name)
            if limit is not None and use is not None:
                yield limit - use + _reclaimable(folder)
            if folder == mount:
                break


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that this process could still take.

    The smaller of MemAvailable and what its control group's limit leaves, where pages of files
    that can be dropped do not count as used, as they do not in MemAvailable either.
    """
    lines = (root / "proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    return max(0, min([available, *_control_group_rooms(root)]))


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


class Arena:
    """A mapped arena. Made by `create` or `attach`."""

    def __init__(self, fd: int, mapping: mmap.mmap, places: dict[str, tuple[int, int]], owner_pid: int) -> None:
        self.fd = fd
        self.bytes = len(mapping)
        self.owner_pid = owner_pid
        self._mapping = mapping
        self._places = places

    @staticmethod
    def create(regions: Sequence[Region], settings_digest: bytes) -> "Arena":
        """A new arena, zeroed, owned by this process."""
        places, size = _places(regions)
        available = available_bytes()
        if size > available:
            raise ArenaError(
                f"shared memory: {_mebibytes(size)} needed, {_mebibytes(available)} available (the smaller of "
                f"MemAvailable and the control group's limit less its use): free memory, raise the limit, "
                f"or configure smaller rings and windows"
            )
        fd = os.memfd_create("tickpath", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            os.posix_fallocate(fd, 0, size)
            mapping = _map(fd, size)
        except OSError as error:
            os.close(fd)
            raise ArenaError(
                f"shared memory: {_mebibytes(size)} refused by the system ({error.strerror}) though "
                f"{_mebibytes(available)} were available: free memory or raise the limit"
            ) from error
        arena = Arena(fd, mapping, places, os.getpid())
        arena._header()[0] = _expected_header(regions, settings_digest, size, os.getpid())
        return arena

    @staticmethod
    def attach(fd: int, regions: Sequence[Region], settings_digest: bytes) -> "Arena":
        """The arena behind an inherited descriptor, after every field of its header was checked."""
        places, size = _places(regions)
        found_size = os.fstat(fd).st_size
        if found_size != size:
            raise ArenaError(f"arena: expected {size} bytes, found {found_size}: {_NOT_OURS}")
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            seals = 0
        if seals & _SEALS != _SEALS:
            raise ArenaError(f"arena: expected a memory file sealed against resizing, found seals {seals}: {_NOT_OURS}")
        mapping = _map(fd, size)
        arena = Arena(fd, mapping, places, 0)
        found = arena._header()[0].copy()
        _check_header(found, _expected_header(regions, settings_digest, size, int(found["owner_pid"])))
        arena.owner_pid = int(found["owner_pid"])
        return arena

    def _header(self) -> NDArray[Any]:
        return np.frombuffer(self._mapping, layout.arena_header_dtype, 1)

    def memory(self, name: str) -> memoryview:
        """The region's bytes, writable."""
        if name not in self._places:
            raise ArenaError(f"arena: region {name!r} is unknown; known are {', '.join(self._places)}")
        offset, size = self._places[name]
        return memoryview(self._mapping)[offset : offset + size]

    def array(self, name: str, dtype: DTypeLike, count: int | tuple[int, ...]) -> NDArray[Any]:
        """An array over the region, from its beginning."""
        shape = count if isinstance(count, tuple) else (count,)
        memory = self.memory(name)
        need = math.prod(shape) * np.dtype(dtype).itemsize
        if need > len(memory):
            raise ArenaError(f"arena: region {name!r} has {len(memory)} bytes, an array of {shape} needs {need}")
        return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)

    def close(self) -> None:
        """Gives the descriptor back; the mapping goes when the last array over it does."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _map(fd: int, size: int) -> mmap.mmap:
    # Populated, so that no first touch on the way of a vector waits for a page.
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)


def _expected_header(regions: Sequence[Region], settings_digest: bytes, size: int, owner_pid: int) -> NDArray[Any]:
    if len(settings_digest) != 32:
        raise ValueError(f"settings digest: expected the 32 bytes of a SHA-256, found {len(settings_digest)}")
    header = np.zeros(1, layout.arena_header_dtype)
    header["magic"] = MAGIC
    header["version"] = LAYOUT_VERSION
    header["bytes"] = size
    header["owner_pid"] = owner_pid
    header["owner_start"] = process_start(owner_pid) or 0
    header["region_count"] = len(regions)
    header["table_digest"] = np.frombuffer(_table_digest(regions), np.uint64)
    header["settings_digest"] = np.frombuffer(settings_digest, np.uint64)
    return header[0]


def _shown(value: NDArray[Any]) -> str:
    return value.tobytes().hex()[:16] if value.shape else str(int(value))


def _check_header(found: NDArray[Any], expected: NDArray[Any]) -> None:
    what = {
        "magic": "magic number",
        "version": "layout version",
        "bytes": "size in bytes",
        "region_count": "number of regions",
        "table_digest": "digest of the region table",
        "settings_digest": "digest of the settings",
    }
    for field, name in what.items():
        if not np.array_equal(found[field], expected[field]):
            raise ArenaError(
                f"arena: {name}: expected {_shown(expected[field])}, found {_shown(found[field])}: {_NOT_OURS}"
            )
    if int(expected["owner_start"]) == 0:
        raise ArenaError(f"arena: its owner, process {int(found['owner_pid'])}, is gone: {_OWNER_GONE}")
    if found["owner_start"] != expected["owner_start"]:
        raise ArenaError(
            f"arena: its owner, process {int(found['owner_pid'])}, started at tick {int(found['owner_start'])}, "
            f"found another process started at tick {int(expected['owner_start'])}: {_OWNER_GONE}"
        )

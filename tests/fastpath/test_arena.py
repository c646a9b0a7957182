"""Promises of the arena: what it gives, and what it refuses with which words."""

import fcntl
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from texts import whole

from fastpath import arena as module
from fastpath.arena import LAYOUT_VERSION, Arena, ArenaError, Region, available_bytes, process_start
from fastpath.layout import arena_header_dtype

REGIONS = [Region("small", 24), Region("ring", 4480), Region("last", 8)]
DIGEST = bytes(range(32))
RESTART = "the arena is not this engine's, or was made from other settings or another build; restart the whole engine"
ENDED = "the engine that made it has ended; start the engine again"


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create(REGIONS, DIGEST)
    yield made
    made.close()


def refused(text: str) -> "pytest.RaisesExc[ArenaError]":
    return pytest.raises(ArenaError, match=whole(text))


def header(arena: Arena) -> np.ndarray:
    return np.frombuffer(mmap.mmap(arena.fd, arena.bytes), arena_header_dtype, 1)


def test_regions_are_aligned_zeroed_apart_and_shared(arena: Arena) -> None:
    other = Arena.attach(os.dup(arena.fd), REGIONS, DIGEST)
    addresses = []
    for number, (name, size) in enumerate(REGIONS, start=1):
        view = arena.array(name, np.uint8, size)
        addresses.append(view.ctypes.data)
        assert not view.any()
        view[:] = number
    assert all(address % 128 == 0 for address in addresses)
    assert [set(other.memory(name)) for name, _ in REGIONS] == [{1}, {2}, {3}]
    assert [len(other.memory(name)) for name, _ in REGIONS] == [24, 4480, 8]
    assert (other.bytes, other.owner_pid) == (arena.bytes, os.getpid())
    other.close()


def test_child_attaches_by_the_inherited_descriptor(arena: Arena) -> None:
    script = (
        "import sys\n"
        "from fastpath.arena import Arena, Region\n"
        f"regions = {REGIONS!r}\n"
        f"arena = Arena.attach(int(sys.argv[1]), regions, {DIGEST!r})\n"
        "arena.memory('last')[:] = b'attached'\n"
        "print(arena.owner_pid, arena.bytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(arena.fd)], pass_fds=(arena.fd,), capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{os.getpid()} {arena.bytes}\n"
    assert bytes(arena.memory("last")) == b"attached"


def test_arrays_outlive_close() -> None:
    arena = Arena.create(REGIONS, DIGEST)
    view = arena.array("ring", "f8", (4, 5))
    arena.close()
    arena.close()
    view[3, 4] = 1.5
    assert (view.shape, view[3, 4], arena.fd) == ((4, 5), 1.5, -1)


def test_file_is_filled_and_cannot_shrink_or_grow(arena: Arena) -> None:
    assert os.fstat(arena.fd).st_blocks * 512 >= arena.bytes
    for size in (0, arena.bytes + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)


def test_killed_owner_leaves_no_file_behind() -> None:
    before = set(os.listdir("/dev/shm"))
    script = (
        "import os, signal\n"
        "from fastpath.arena import Arena, Region\n"
        "Arena.create([Region('all', 1 << 20)], bytes(32))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert set(os.listdir("/dev/shm")) == before


# -- refusals --------------------------------------------------------------------------------------


def test_too_little_memory_is_refused_with_need_and_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 3 << 20)
    with refused(
        "shared memory: 100.0 MiB needed, 3.0 MiB available (the smaller of MemAvailable and the control group's "
        "limit less its use): free memory, raise the limit, or configure smaller rings and windows"
    ):
        Arena.create([Region("all", (100 << 20) - 4096)], DIGEST)


def test_more_memory_than_the_host_has_is_refused_before_any_is_taken() -> None:
    with pytest.raises(ArenaError, match=r"^shared memory: 1048576\.0 MiB needed, [0-9.]+ MiB available"):
        Arena.create([Region("all", (1 << 40) - 4096)], DIGEST)


def test_memory_that_the_system_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(module, "available_bytes", lambda: 3 << 30)
    before = len(os.listdir("/proc/self/fd"))
    with refused(
        "shared memory: 1.0 MiB refused by the system (No space left on device) though 3072.0 MiB were available: "
        "free memory or raise the limit"
    ):
        Arena.create([Region("all", (1 << 20) - 4096)], DIGEST)
    assert len(os.listdir("/proc/self/fd")) == before


def test_other_settings_are_refused(arena: Arena) -> None:
    with refused(
        "arena: digest of the settings: expected 0000000000000000, found 0001020304050607: " + RESTART,
    ):
        Arena.attach(arena.fd, REGIONS, bytes(32))


def test_another_region_table_is_refused(arena: Arena) -> None:
    expected = bytes(header(arena)["table_digest"][0]).hex()[:16]
    swapped = [Region("small", 24), Region("ring", 4472), Region("last", 16)]
    with pytest.raises(ArenaError) as told:
        Arena.attach(arena.fd, swapped, DIGEST)
    assert re.fullmatch(
        rf"arena: digest of the region table: expected [0-9a-f]{{16}}, found {expected}: {re.escape(RESTART)}",
        str(told.value),
    )
    with refused(f"arena: number of regions: expected 4, found 3: {RESTART}"):
        Arena.attach(arena.fd, [*REGIONS, Region("more", 8)], DIGEST)
    with refused(f"arena: expected 16384 bytes, found {arena.bytes}: {RESTART}"):
        Arena.attach(arena.fd, [*REGIONS, Region("more", 8000)], DIGEST)


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("magic", 17, "magic number"), ("version", 18, "layout version"), ("bytes", 19, "size in bytes")],
)
def test_a_header_of_another_build_is_refused(arena: Arena, field: str, value: int, name: str) -> None:
    expected = {"magic": module.MAGIC, "version": LAYOUT_VERSION, "bytes": arena.bytes}[field]
    header(arena)[field] = value
    with refused(f"arena: {name}: expected {expected}, found {value}: {RESTART}"):
        Arena.attach(arena.fd, REGIONS, DIGEST)


def test_a_file_that_could_shrink_is_refused(arena: Arena) -> None:
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, arena.bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    with refused(f"arena: expected a memory file sealed against resizing, found seals 4: {RESTART}"):
        Arena.attach(fd, REGIONS, DIGEST)
    os.close(fd)


def test_owner_that_is_gone_is_refused(arena: Arena) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    header(arena)["owner_pid"] = gone.pid
    with refused(f"arena: its owner, process {gone.pid}, is gone: {ENDED}"):
        Arena.attach(arena.fd, REGIONS, DIGEST)


def test_dead_owner_that_was_not_reaped_is_gone() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    assert process_start(dead.pid) is None
    dead.wait()


def test_another_process_with_the_owners_pid_is_refused(arena: Arena) -> None:
    header(arena)["owner_start"] += 5
    start = process_start(os.getpid())
    assert start is not None
    with refused(
        f"arena: its owner, process {os.getpid()}, started at tick {start + 5}, "
        f"found another process started at tick {start}: {ENDED}"
    ):
        Arena.attach(arena.fd, REGIONS, DIGEST)


def test_unknown_region_and_too_large_array_are_told(arena: Arena) -> None:
    with refused("arena: region 'rings' is unknown; known are small, ring, last"):
        arena.memory("rings")
    with refused("arena: region 'small' has 24 bytes, an array of (2, 2) needs 32"):
        arena.array("small", "u8", (2, 2))


def test_impossible_region_table_is_told() -> None:
    for regions in ([Region("a", 8), Region("a", 8)], [Region("b", 8), Region("a", 0)]):
        size = regions[1].bytes
        expected = whole(f"region 'a' of {size} bytes: expected a name of its own and a size above zero")
        with pytest.raises(ValueError, match=expected):
            Arena.create(regions, DIGEST)
    with pytest.raises(ValueError, match=whole("settings digest: expected the 32 bytes of a SHA-256, found 3")):
        Arena.create(REGIONS, b"abc")


# -- how much there is -----------------------------------------------------------------------------


def host(root: Path, cgroup: str, files: dict[str, str], available_kib: int = 1_000_000) -> Path:
    """A file system as far as available_bytes looks at it."""
    everything = {
        "proc/meminfo": f"MemTotal: 2000000 kB\nMemAvailable: {available_kib} kB\n",
        "proc/self/cgroup": cgroup,
    }
    for name, text in {**everything, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_a_limit_it_is_what_the_host_has(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.current": "5000\n"}
    assert available_bytes(host(tmp_path, "0::/a\n", files)) == 1_024_000_000


def test_limit_of_version_2_binds_at_every_level(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a/memory.max": "9000\n",
        "sys/fs/cgroup/a/memory.current": "6000\n",
        "sys/fs/cgroup/a/memory.stat": "anon 1000\ninactive_file 500\n",
        "sys/fs/cgroup/a/b/memory.max": "8000\n",
        "sys/fs/cgroup/a/b/memory.current": "100\n",
    }
    assert available_bytes(host(tmp_path, "0::/a/b\n", files)) == 3500


def test_limit_of_version_1_binds(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9000\n",
        "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "6000\n",
        "sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
    }
    assert available_bytes(host(tmp_path, "4:cpu,cpuacct:/z\n3:memory:/a\n", files)) == 3500


def test_inside_a_container_the_mount_is_the_group(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "9000\n", "sys/fs/cgroup/memory.current": "8000\n"}
    assert available_bytes(host(tmp_path, "0::/not/here\n", files)) == 1000


def test_use_above_the_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "9000\n", "sys/fs/cgroup/memory.current": "9500\n"}
    assert available_bytes(host(tmp_path, "0::/\n", files)) == 0

"""Where segments go: bounded by size and age, whole or not at all, one engine a folder."""

import logging
import os
import resource
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.settings import Tape
from engine.watch.sinks import MEBI, Folder, Memory, tidy
from engine.watch.tape import name_of, segments

LOG = logging.getLogger("watch")


def filled(folder: Path, sizes: list[int], ages_h: list[float]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (size, age_h) in enumerate(zip(sizes, ages_h, strict=True), 1):
        path = folder / name_of(10**18, number)
        path.write_bytes(bytes(size))
        os.utime(path, (time.time() - age_h * 3600,) * 2)
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("sizes", "ages_h", "kept"),
    [
        ([MEBI] * 5, [0] * 5, 3),  # three MiB are kept
        ([10] * 5, [30, 25, 23, 2, 1], 3),  # a day is kept
        ([10] * 3, [40, 40, 40], 1),  # the newest stays
        ([5 * MEBI], [40], 1),
        ([10] * 4, [1] * 4, 4),
    ],
)
def test_the_oldest_segments_go_by_size_and_age(
    tmp_path: Path, sizes: list[int], ages_h: list[float], kept: int
) -> None:
    paths = filled(tmp_path / "tape", sizes, ages_h)
    other = tmp_path / "tape" / "notes.txt"
    other.write_text("not ours")
    tidy(tmp_path / "tape", Tape(keep_mb=3, keep_hours=24), LOG)
    assert segments(tmp_path / "tape") == paths[len(paths) - kept :]
    assert other.exists()


def test_a_write_that_fails_leaves_what_was_whole_before_it(tmp_path: Path) -> None:
    """A real limit of the kernel's: a file of this process may have 10,000 bytes."""
    folder = Folder(Tape(path=str(tmp_path / "tape")), LOG)
    folder.begin(name_of(10**18, 1), b"")
    folder.write(b"a" * 6000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.write(b"b" * 6000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "tape" / name_of(10**18, 1)).read_bytes() == b"a" * 6000


def test_a_segment_has_its_name_only_with_what_it_begins_with(tmp_path: Path) -> None:
    """Whoever reads while the engine runs, or after it died there, finds no segment without a head."""
    path = tmp_path / "tape"
    path.mkdir()
    left = path / f".{name_of(10**18, 1)}"
    left.write_bytes(b"by a watch that died")
    folder = Folder(Tape(path=str(path)), LOG)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            folder.begin(name_of(10**18, 2), b"a" * 10_001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(path.iterdir()) == []
    folder.begin(name_of(10**18, 2), b"a" * 10_001)
    assert [each.name for each in path.iterdir()] == [name_of(10**18, 2)]


def test_two_engines_do_not_write_into_one_folder(tmp_path: Path) -> None:
    settings = Tape(path=str(tmp_path / "tape"))
    one, other = Folder(settings, LOG), Folder(settings, LOG)
    one.begin(name_of(10**18, 1), b"")
    with pytest.raises(BlockingIOError):
        other.begin(name_of(10**18 + 1, 1), b"")
    one.write(b"mine")
    assert [path.name for path in segments(tmp_path / "tape")] == [name_of(10**18, 1)]


def test_the_flight_recorder_keeps_the_newest_segments_within_its_memory(tmp_path: Path) -> None:
    memory = Memory(replace(Tape(), recorder_mb=1, recorder_path=str(tmp_path / "incidents")))
    for number in range(1, 11):
        memory.begin(name_of(10**18, number), b"")
        memory.write(bytes([number]) * (MEBI // 4))
    assert sum(len(content) for _, content in memory.segments) <= MEBI
    memory.dump(LOG)
    written = segments(tmp_path / "incidents")
    assert [path.name for path in written] == [name_of(10**18, number) for number in (7, 8, 9, 10)]
    memory.write(b"more")
    memory.dump(LOG)
    assert segments(tmp_path / "incidents") == written
    assert written[-1].read_bytes() == bytes([10]) * (MEBI // 4) + b"more"

"""How many processors and cores there are to use."""

import os
from pathlib import Path

import pytest

from engine.cores import allowed, physical


@pytest.mark.parametrize(("quota", "count"), [("max 100000", None), ("50000 100000", 0.5), ("9900000 100000", None)])
def test_allowed_is_the_smaller_of_affinity_and_quota(tmp_path: Path, quota: str, count: float | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert allowed(os.getpid(), tmp_path) == (count or len(os.sched_getaffinity(0)))


def test_without_a_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert allowed(0, tmp_path) == len(os.sched_getaffinity(0))


def test_threads_of_a_core_count_as_one_and_what_is_not_told_as_its_own(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert physical({0, 1, 2, 3}, tmp_path) == 2
    assert physical({0, 2}, tmp_path) == 1
    assert physical({0, 7, 8}, tmp_path) == 3

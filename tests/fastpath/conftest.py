"""Shared memory for the tests of fastpath, and a build of its sources in which a process can be killed anywhere.

`failpoints` compiles the very sources of ring and arbiter with -DTICKPATH_FAILPOINTS into a folder of
its own; processes that the tests start with that folder before the project on their path run it.
What must stay true: the build that the engine runs is never touched.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from shared_file import SharedFile

from bench.compiled import build, module

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shared() -> Iterator[Callable[[int], SharedFile]]:
    files: list[SharedFile] = []

    def make(size: int) -> SharedFile:
        files.append(SharedFile(size))
        return files[-1]

    yield make
    for file in files:
        os.close(file.fd)


@pytest.fixture
def randomness() -> random.Random:
    seed = int(os.environ.get("TICKPATH_TEST_SEED", random.SystemRandom().getrandbits(32)))
    print(f"TICKPATH_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def failpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder to put first on a process's path."""
    folder = tmp_path_factory.mktemp("failpoints")
    (folder / "fastpath").mkdir()
    for source in sorted((ROOT / "fastpath").iterdir()):
        if source.suffix in (".pxd", ".h") or source.name in ("__init__.py", "ring.pyx", "arbiter.pyx"):
            shutil.copy(source, folder / "fastpath")
    build(folder, "-DTICKPATH_FAILPOINTS", "fastpath.ring", "fastpath.arbiter")
    return folder


@pytest.fixture(scope="session")
def sleepers(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """sleepers.pyx, compiled against the engine's own fastpath."""
    return module(Path(__file__).with_name("sleepers.pyx"), tmp_path_factory.mktemp("sleepers"))


@pytest.fixture
def start(failpoints: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a script over a shared file in a process whose failpoint is armed; none is left behind."""
    processes: list[subprocess.Popen[str]] = []

    def run(script: str, failpoint: str, file: SharedFile, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(file.fd), *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(failpoints), "TICKPATH_FAILPOINT": failpoint},
            cwd=failpoints,
            pass_fds=(file.fd,),
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()

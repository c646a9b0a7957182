"""What every system test stands on: compiled kernels, an issuer of tokens, a nats-server, a Kafka broker, a seed.

What must stay true: an engine of a test compiles nothing on its way, and whatever a test starts has
left nothing in /dev/shm and no socket behind when its module ends.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.kafka import any_kafka
from tests.system.servers import ROOT, Issuer, nats_server


@pytest.fixture(scope="session", autouse=True)
def kernels() -> None:
    """Compiled, or found where an earlier run put them."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.inference.warm"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def duration(request: pytest.FixtureRequest) -> Iterator[None]:
    begin_s = time.monotonic()
    yield
    print(f"{request.node.name}: {time.monotonic() - begin_s:.1f} s")


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    left = {name for name in os.listdir("/dev/shm") if "tickpath" in name} - before
    assert not left, f"left in /dev/shm: {sorted(left)}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="module")
def issuer(folder: Path) -> Issuer:
    return Issuer(folder)


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with nats_server() as url:
        yield url


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """One broker for all tests, which keep apart by companies of their own."""
    with any_kafka() as bootstrap:
        yield bootstrap


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("TICKPATH_TEST_SEED", random.SystemRandom().getrandbits(32)))
    print(f"TICKPATH_TEST_SEED={seed}")
    return random.Random(seed)

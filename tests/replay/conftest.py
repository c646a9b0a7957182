"""One recorded run for all tests here, and replays of it."""

import time
from pathlib import Path

import pytest

from engine.replay.digest import Digest
from engine.replay.running import Choice, Result, results
from tests.replay.recorded import Live, record
from tests.system.servers import ROOT


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    began_s = time.monotonic()
    live = record(tmp_path_factory.mktemp("recorded"))
    print(f"{len(live.answers)} answers in {time.monotonic() - began_s:.1f} s")
    return live


@pytest.fixture(scope="session")
def tape(live: Live) -> Path:
    return live.folder / "tape"


def choice_of(path: Path, max_batch: int = 32, **changes) -> Choice:
    return Choice(path, ROOT / "models", max_batch, **changes)


def replayed(path: Path, max_batch: int = 32, workers: int = 1, **changes) -> list[Result]:
    return list(results(choice_of(path, max_batch, **changes), workers, print))


def digest_of(found: list[Result], live: bool = False) -> str:
    digest = Digest()
    for each in found:
        values = each.live if live else each.values
        assert values is not None, f"position {each.position} is not on the tape whole"
        digest.add(values)
    return digest.hex()


@pytest.fixture(scope="session")
def plain(tape: Path) -> list[Result]:
    """The whole tape, in microbatches of 32."""
    return replayed(tape)

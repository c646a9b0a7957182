"""A disk that is full, for real: a small file system of its own under the tape."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.replay.reading import Tape
from engine.replay.running import Choice, results
from tests.replay.recorded import Live
from tests.system.servers import ROOT, until

SIZE_MB, FILLED_MB = 6, 4
TOO_MANY = 4000  # vectors, at some 700 bytes each


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_predictions_go_on_while_the_tape_s_disk_is_full_and_control_says_so(disk: Path, tmp_path: Path) -> None:
    filling = disk / "filling"
    filling.write_bytes(bytes(FILLED_MB << 20))
    tape = disk / "tape"
    live = Live(tmp_path, {"engine": {"deadline_ms": 5000}, "tape": {"path": str(tape), "segment_mb": 1}})
    with live.engine as engine:
        live.open()
        live.send(TOO_MANY)
        live.receive()
        until(lambda: engine.metric("tickpath_tape_stuck") == 1, 5, "the disk is full")
        assert engine.health()["status"] == "degraded"
        until(lambda: "the tape cannot be written" in engine.log(), 5, "the log says so")
        filling.unlink()

        def goes_on() -> bool:
            live.send(30)
            live.receive()
            return engine.metric("tickpath_tape_stuck") == 0

        until(goes_on, 30, "the tape goes on once there is room")
        until(lambda: engine.health()["status"] == "healthy", 5, "and all is well")
        live.send(300)
        live.receive()
        live.close()
    assert {envelope.message_type for envelope in live.answers.values()} == {"ml_inference"}
    whole = [path for path, head in Tape(tape, skip_holes=True).open().segments if head["whole"]]
    assert whole, "replay can begin somewhere"
    compared = 0
    for path in whole:  # the first may not be: many vectors came while windows were copied
        found = list(results(Choice(path, ROOT / "models", 32, skip_holes=True), 1, lambda note: None))
        assert [each.position for each in found if each.live is not None and each.values != each.live] == []
        compared += sum(each.live is not None for each in found)
    assert compared > 0

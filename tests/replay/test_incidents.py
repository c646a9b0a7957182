"""A full disk, and the flight recorder: predictions go on, and replay reads what there is."""

import os
import resource
import signal
from pathlib import Path

import pytest

from engine.replay.reading import Hole
from engine.replay.running import results
from engine.watch.tape import segments
from tests.replay.conftest import choice_of, digest_of
from tests.replay.recorded import Live
from tests.system.servers import until


def test_a_full_disk_costs_a_hole_and_no_prediction(tmp_path: Path) -> None:
    """The kernel lets the watch write 200,000 bytes a file, then none at all, then as many as it likes again."""
    live = Live(tmp_path, {"tape": {"path": str(tmp_path / "tape")}})
    with live.engine as engine:
        live.open()
        live.send(9)
        until(lambda: segments(tmp_path / "tape"), 10, "the first segment is begun")
        pid = engine.children()["watch-4"]
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (200_000, hard))
        live.send(400)
        live.receive()
        until(lambda: engine.metric("tickpath_tape_failures_total") > 0, 10, "a write failed")
        assert engine.health()["status"] == "degraded"
        until(lambda: "the tape cannot be written" in engine.log().split("health: ")[-1], 10, "control says so")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        live.send(60)  # what failed before may have been answers alone, whose inputs the tape has
        live.receive()
        failed = engine.metric("tickpath_tape_failures_total")
        until(lambda: engine.metric("tickpath_tape_failures_total") > failed, 10, "they cannot be written either")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

        def written_again() -> bool:
            live.send(3)
            live.receive()
            return engine.metric("tickpath_tape_stuck") == 0 and engine.metric("tickpath_tape_lost_total") > 0

        until(written_again, 30, "the tape is written again")
        live.send(60)
        lost = int(engine.metric("tickpath_tape_lost_total"))
        live.close()
        assert "the tape cannot be written: [Errno 27] File too large; predictions go on" in engine.log()
        assert f"the tape is written again; {lost} inputs are missing" in engine.log()
    found = []
    with pytest.raises(Hole):
        found.extend(results(choice_of(tmp_path / "tape"), 1, print))
    notes: list[str] = []
    found = list(results(choice_of(tmp_path / "tape", skip_holes=True), 1, notes.append))
    assert len(notes) == 1
    missing = int(notes[0].split(": ")[1].split(" inputs are missing behind position ")[0])
    known = [each for each in found if each.live is not None]
    assert len(found) == len(live.answers) - missing
    assert len(known) == len(live.answers) - lost, "those that were just on their way are on the tape without their end"
    assert digest_of(known) == digest_of(known, live=True)


def test_the_flight_recorder_is_written_when_a_worker_dies_of_itself_and_on_a_signal(tmp_path: Path) -> None:
    incidents = tmp_path / "incidents"
    live = Live(tmp_path, {"tape": {"recorder_path": str(incidents)}})
    with live.engine as engine:
        live.open()
        live.send(90)
        live.receive()
        os.kill(engine.children()["worker-5"], signal.SIGKILL)
        until(lambda: "worker-0 ended with SIGKILL" in engine.log(), 10, "its end is told")
        live.send(90)
        live.receive()
        assert not incidents.exists(), "a foreign kill is no incident"
        os.kill(engine.children()["worker-6"], signal.SIGSEGV)
        until(lambda: engine.metric("tickpath_tape_dumps_total") == 1, 20, "the recorder is written")
        first = sum(path.stat().st_size for path in segments(incidents))
        live.send(90)
        live.receive()
        until(lambda: engine.metric("tickpath_tape_inputs_total") == 270, 10, "the watch saw it all")
        assert engine.handle is not None
        os.kill(engine.handle.pid, signal.SIGUSR1)
        until(lambda: engine.metric("tickpath_tape_dumps_total") == 2, 10, "the recorder is written again")
        assert sum(path.stat().st_size for path in segments(incidents)) > first
        live.close()
    found = list(results(choice_of(incidents), 1, print))
    assert len(found) == 270
    assert digest_of(found) == digest_of(found, live=True)
    assert incidents.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in segments(incidents)} == {0o600}

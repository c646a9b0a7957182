"""The demo as a person runs it: real engine, real sockets, bundled data."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 150  # kernels that were never compiled take a minute
CLEAN_S = 10


@pytest.fixture
def temporary():
    """TMPDIR of one demo; its processes are known by it, and none of them and no file may outlive it."""
    folder = tempfile.mkdtemp(prefix="tpd-", dir="/tmp")
    yield folder
    until(lambda: not processes(folder), f"no process left of {folder}", CLEAN_S)
    left = os.listdir(folder)
    shutil.rmtree(folder)
    assert left == []


def until(condition, what, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def processes(folder):
    """Command lines by process id of whoever runs with this TMPDIR."""
    found = {}
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal() and f"TMPDIR={folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended just now
    return found


def one(folder, words):
    """The process id of the one whose command line has these words."""
    return next((pid for pid, line in processes(folder).items() if words in line), None)


def command(*arguments):
    return [sys.executable, "-m", "engine", "demo", *arguments]


def start(folder, *arguments, **streams):
    environment = {**os.environ, "TMPDIR": folder, "TICKPATH_ENGINE__MAX_BATCH": "nonsense"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment, text=True, start_new_session=True, **streams
    )


def sending(demo):
    """Reads plain lines until answers come."""
    while line := demo.stdout.readline():
        found = re.search(r"answered ([\d,]+)", line)
        if found and int(found[1].replace(",", "")) > 0:
            return
    pytest.fail(f"the demo ended early: {demo.stderr.read()}")


def test_demo_ends_by_itself_with_counts_that_add_up(temporary):
    demo = start(temporary, "--seconds", "3", "--json")
    output, errors = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, errors
    result = json.loads(output.splitlines()[-1])
    assert result["adds_up"]
    assert result["missing"] == []
    assert result["vectors_sent"] == sum(result["answers"].values()) == 24 * 12
    assert result["unanswered"] == result["doubled"] == result["disordered"] == result["misfit"] == 0
    assert result["answers"]["WARMING"] == result["answers"]["REJECTED"] == 0
    assert result["vectors_per_s"] > 60
    assert result["wire_to_wire_count"] == result["messages_sent"] == 24 * 3
    assert 0 < result["wire_to_wire_ms"]["p50"] <= result["wire_to_wire_ms"]["p99"] <= result["wire_to_wire_ms"]["max"]
    assert [(each["tier"], each["sent"]) for each in result["companies"]] == [
        ("ENTERPRISE", 120),
        ("PRO", 96),
        ("FREE", 72),
    ]
    assert result["engine_exit_status"] == 0
    assert "The counts add up.\n" in errors


def test_a_worker_killed_meanwhile_costs_no_answer(temporary):
    demo = start(temporary, "--seconds", "4")
    sending(demo)
    os.kill(one(temporary, "engine.supervision.child worker"), signal.SIGKILL)
    output, errors = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, output + errors
    assert "\n  0 unanswered, 0 doubled, 0 out of order\n" in output
    assert output.endswith("The counts add up.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
def test_ended_by_a_signal_it_leaves_nothing_behind(temporary, number):
    demo = start(temporary)
    sending(demo)
    demo.send_signal(number)
    demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130


def test_ended_while_the_engine_starts_it_leaves_nothing_behind(temporary):
    demo = start(temporary)
    until(lambda: one(temporary, "engine.supervision.child ingress"), "an engine that starts")
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130


def test_a_dead_engine_is_told_with_its_last_words(temporary):
    demo = start(temporary)
    sending(demo)
    os.kill(one(temporary, "engine run --config"), signal.SIGKILL)
    _, errors = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    first, *tail = errors.splitlines()
    assert first == "demo: the engine ended by itself with status -9; its last lines:"
    assert all(line.startswith("  ") for line in tail)
    assert any(line.endswith(": ready") for line in tail)


def test_a_dead_market_is_told(temporary):
    demo = start(temporary)
    sending(demo)
    os.kill(one(temporary, "engine.cli.traffic"), signal.SIGKILL)
    _, errors = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    assert errors.startswith("demo: the market's process ended early; the engine's last lines:\n")


def test_on_a_terminal_it_draws_over_itself(temporary):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    demo = start(temporary, "--seconds", "2", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    try:
        while data := os.read(ours, 65536):
            output += data
    except OSError:
        pass  # the other side closed it
    finally:
        os.close(ours)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert demo.wait(PATIENCE_S) == 0, shown[-2000:]
    assert "meridian-capital  enterprise" in shown
    assert "latency ms" in shown
    assert b"\x1b[1A" in output, "the cursor goes back up between frames"
    assert shown.rstrip().endswith("The counts add up.")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--seconds", "0"), "argument --seconds: expected a number from 1 to 600, found 0"),
        (("--rate", "1e9"), "argument --rate: expected a number from 1 to 5000, found 1e9"),
    ],
)
def test_numbers_beyond_reason_are_refused(temporary, arguments, error):
    demo = start(temporary, *arguments)
    _, errors = demo.communicate(timeout=PATIENCE_S)
    assert (demo.returncode, errors.splitlines()[-1]) == (2, f"python -m engine demo: error: {error}")

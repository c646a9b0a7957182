"""One child's life: legal ways only, its row cleared after its burial alone, its silence, its death."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product

import pytest

from engine import limits
from engine.shared import Life, Phase, Shared, worker_seat
from engine.supervision.process import KEPT, PULSE_LIMITS_MS, TRANSITIONS, Process
from engine.supervision.roles import ROLES
from tests.ingress.stand import arena
from tests.system.servers import until

SEAT = worker_seat(0)
SECOND_NS = 10**9


@pytest.fixture
def shared() -> Iterator[Shared]:
    with arena() as made:
        yield made


@pytest.fixture
def process(shared: Shared) -> Iterator[Process]:
    made = Process(ROLES["worker"], SEAT, shared, logging.getLogger("t"))
    yield made
    made.kill()
    made.reap()


def start(process: Process, code: str = "import signal; signal.pause()") -> subprocess.Popen:
    handle = subprocess.Popen([sys.executable, "-S", "-c", code])
    process.started(handle, time.monotonic_ns())
    process.row["pid"] = handle.pid
    return handle


def ended(process: Process) -> int:
    return until(lambda: (status := process.poll()) is not None and (status,), 10, "the child ended")[0]


@pytest.mark.parametrize(("before", "after"), list(product(Life, Life)))
def test_a_life_goes_the_ways_of_the_table_and_no_other(process: Process, before: Life, after: Life) -> None:
    process.life = before
    if (before, after) in TRANSITIONS:
        process._become(after)
        assert process.life == after
        return
    with pytest.raises(ValueError, match="does not go") as caught:
        process._become(after)
    assert str(caught.value) == f"worker-0 does not go from {before.name} to {after.name}"
    assert process.life == before


def test_a_child_that_says_so_is_ready(process: Process) -> None:
    process.notice_ready()
    assert process.life == Life.ABSENT
    start(process)
    process.notice_ready()
    assert process.life == Life.LOADING
    process.row["ready"] = 1
    process.notice_ready()
    assert process.life == Life.READY


def test_a_row_is_cleared_when_its_process_is_buried_but_for_what_only_grows(process: Process) -> None:
    start(process, "")
    for name in process.row.dtype.names:
        process.row[name] = 7
    status = ended(process)
    assert process.row["pulse_ns"] == 7  # dead and not buried: nothing is touched yet
    process.buried(status, time.monotonic_ns())
    for name in process.row.dtype.names:
        kept = name in KEPT
        assert (process.row[name] == (7 if kept else 0)).all(), name
    assert process.life == Life.ABSENT


def test_five_young_deaths_of_its_own_spend_a_process_and_foreign_kills_do_not(process: Process) -> None:
    for number in range(limits.RESTART_BUDGET):
        handle = start(process)
        handle.send_signal(signal.SIGKILL)
        process.buried(ended(process), process.started_ns + number)
        assert process.life == Life.ABSENT
    for number in range(limits.RESTART_BUDGET):
        assert process.life == Life.ABSENT
        start(process, "raise SystemExit(3)")
        process.buried(ended(process), process.started_ns + number)
    assert process.life == Life.SPENT


@pytest.mark.parametrize("phase", [Phase.STANDBY, Phase.IDLE, Phase.IN_MODEL, Phase.WRITING])
def test_a_ready_child_is_stuck_once_it_is_silent_for_longer_than_its_phase_allows(
    process: Process, phase: Phase
) -> None:
    start(process)
    process.life = Life.READY
    limit_ns = PULSE_LIMITS_MS[phase] * 1_000_000
    process.row["phase"], process.row["pulse_ns"] = phase, 50 * SECOND_NS
    assert process.is_stuck(50 * SECOND_NS) == ""
    assert process.is_stuck(50 * SECOND_NS + limit_ns) == ""
    silent_ms = PULSE_LIMITS_MS[phase] + 100
    why = process.is_stuck(50 * SECOND_NS + silent_ms * 1_000_000)
    begins, ends = "silent for ", f" ms while {phase.name.lower()}, at most {PULSE_LIMITS_MS[phase]} are allowed"
    assert why.startswith(begins)
    assert why.endswith(ends)
    assert silent_ms - 100 < int(why.removeprefix(begins).removesuffix(ends)) <= silent_ms


def test_a_loading_child_has_the_time_of_loading_whatever_it_pulses(process: Process) -> None:
    start(process)
    process.started_ns = 50 * SECOND_NS
    process.row["phase"], process.row["pulse_ns"] = Phase.IN_MODEL, 50 * SECOND_NS
    assert process.is_stuck(50 * SECOND_NS + limits.LOADING_LIMIT_MS * 1_000_000) == ""
    why = process.is_stuck(50 * SECOND_NS + (limits.LOADING_LIMIT_MS + 5_000) * 1_000_000)
    assert why.endswith(f"while loading, at most {limits.LOADING_LIMIT_MS} are allowed")


def test_time_that_a_child_waited_for_a_processor_is_not_held_against_it(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(process)
    process.life = Life.READY
    process.row["phase"], process.row["pulse_ns"] = Phase.IDLE, 50 * SECOND_NS
    waited = iter([0, 3 * SECOND_NS, 3 * SECOND_NS, 3 * SECOND_NS])
    monkeypatch.setattr("engine.supervision.process.waited_ns", lambda _: next(waited))
    assert process.is_stuck(54 * SECOND_NS) == ""
    assert process.is_stuck(50 * SECOND_NS + 4_100 * 1_000_000) != ""


@pytest.mark.parametrize("life", [Life.ABSENT, Life.DYING, Life.SPENT])
def test_who_does_not_live_is_not_stuck(process: Process, life: Life) -> None:
    process.life = life
    assert process.is_stuck(1 << 62) == ""


def test_a_stopped_child_is_killed_as_stuck_reaped_and_its_death_counts(process: Process) -> None:
    handle = start(process)
    handle.send_signal(signal.SIGSTOP)
    process.kill_as_stuck()
    assert process.life == Life.DYING
    assert ended(process) == -signal.SIGKILL
    for _ in range(limits.RESTART_BUDGET - 1):
        process.budget.spend(process.started_ns / 1e9, 0.0)
    process.buried(-signal.SIGKILL, process.started_ns)
    assert process.life == Life.SPENT


def test_at_the_end_nothing_is_left_whatever_the_child_does(process: Process) -> None:
    code = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print(flush=True); signal.pause()"
    handle = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE)
    process.started(handle, 0)
    assert handle.stdout is not None
    handle.stdout.readline()
    handle.send_signal(signal.SIGTERM)
    process.kill()
    process.reap()
    assert process.handle is None
    with pytest.raises(ProcessLookupError):
        os.kill(handle.pid, 0)
    process.kill()  # again changes nothing
    process.reap()
    handle.stdout.close()


def test_seat_and_order_are_written_for_the_child(process: Process) -> None:
    process.take_seat(2)
    process.order_end()
    assert (process.row["seat"], process.row["order"]) == (3, 1)

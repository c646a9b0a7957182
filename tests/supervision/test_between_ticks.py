"""What happens between two ticks: a child's end wakes the supervisor, and a pulse is the moment for garbage."""

import gc
import os
import select
import subprocess
import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from engine import limits
from engine.child import Child
from engine.shared import Phase
from engine.supervision.supervisor import Supervisor
from fastpath import layout

LONG_MS = 30_000


@pytest.fixture
def waiting() -> Any:
    read, write = os.pipe2(os.O_NONBLOCK)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    yield SimpleNamespace(poll=poll, wake_read=read, wake_write=write)
    os.close(read)
    os.close(write)


def test_the_end_of_a_child_is_told_at_once_and_once(waiting: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        pidfd = os.pidfd_open(child.pid)
        waiting.poll.register(pidfd, select.POLLIN)
        child.kill()
        began_s = time.monotonic()
        Supervisor._wait(waiting, LONG_MS)
        assert time.monotonic() - began_s < LONG_MS / 2000
        assert waiting.poll.poll(0) == [], "a dead child would wake it again and again"
        os.close(pidfd)


def test_a_signal_wakes_it_and_leaves_nothing(waiting: Any) -> None:
    os.write(waiting.wake_write, b"\x0f\x0f")
    Supervisor._wait(waiting, LONG_MS)
    assert waiting.poll.poll(0) == []


def test_cycles_are_collected_at_a_pulse_once_there_are_many() -> None:
    row = np.zeros(1, layout.child_row_dtype)
    child = cast(Child, SimpleNamespace(**{f"_{name}": row[name].data for name in ("phase", "phase_ns", "pulse_ns")}))
    gc.collect()
    gc.disable()
    try:
        for _ in range(limits.GARBAGE_MAX + 100):
            cycle: list[Any] = []
            cycle.append(cycle)
        assert gc.get_count()[0] > limits.GARBAGE_MAX
        Child.pulse(child, Phase.IDLE)
        assert gc.get_count()[0] < 100
    finally:
        gc.enable()
    assert row[0]["pulse_ns"] > 0

"""CPU time and memory of the engine's processes, from a /proc of real processes and one written by the test."""

import os
import subprocess
import sys

import pytest

from engine.control.processes import Cost, Costs, pids
from engine.shared import INGRESS, Life

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def write(proc, pid, start, ticks, resident_kb=10, private_kb=6):
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(start), "0"]
    (folder / "stat").write_text(f"{pid} (a) b (c)) {' '.join(fields)}\n")
    (folder / "status").write_text(f"Name:\ta\nVmRSS:\t {resident_kb} kB\nRssAnon:\t {private_kb} kB\n")


def test_cpu_time_never_falls_when_a_process_is_replaced(tmp_path):
    costs = Costs(tmp_path)
    write(tmp_path, 7, start=100, ticks=500)
    costs.read({"worker-0": 7})
    write(tmp_path, 7, start=100, ticks=700)
    costs.read({"worker-0": 7})
    assert costs.now == {"worker-0": Cost(pytest.approx(700 * TICK_S), 10 << 10, 6 << 10)}
    write(tmp_path, 7, start=900, ticks=5)  # the same pid, another process
    costs.read({"worker-0": 7})
    assert costs.cpu_s == pytest.approx(705 * TICK_S)


def test_a_process_that_ends_meanwhile_is_left_out(tmp_path):
    costs = Costs(tmp_path)
    write(tmp_path, 7, start=100, ticks=500)
    costs.read({"worker-0": 7, "worker-1": 8})
    assert list(costs.now) == ["worker-0"]
    (tmp_path / "7" / "stat").write_text("")
    costs.read({"worker-0": 7})
    assert costs.now == {}
    assert costs.cpu_s == pytest.approx(500 * TICK_S)


def test_a_process_that_computes_is_seen_to():
    busy = subprocess.Popen(
        [sys.executable, "-c", "sum(range(10**7)); print(flush=True); input()"], stdin=-1, stdout=-1
    )
    try:
        busy.stdout.readline()
        costs = Costs()
        costs.read({"worker-0": busy.pid})
        assert costs.now["worker-0"].cpu_s > 0.0
        assert costs.now["worker-0"].resident_bytes > costs.now["worker-0"].private_bytes > 1 << 20
    finally:
        busy.communicate(b"\n")


def test_only_processes_that_live_are_asked_for(shared):
    shared.children[INGRESS.row]["pid"] = 12345
    assert pids(shared) == {"supervisor": os.getpid(), "ingress": 12345}
    shared.supervisor[0]["lives"][INGRESS.row] = Life.DYING
    assert pids(shared) == {"supervisor": os.getpid()}

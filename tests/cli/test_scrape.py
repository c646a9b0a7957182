"""What the views read from a running engine."""

import pytest

from engine.cli import scrape
from engine.cli.scrape import NOTHING, Process, Scraper
from engine.control.exposition import BOUNDS_S
from engine.shared import EGRESS, INGRESS, Life, Stage, worker_seat
from fastpath.histogram import Histogram
from tests.control.conftest import serving, settings, shared  # noqa: F401  # fixtures


def test_stages_and_processes_are_those_of_the_engine(shared, settings):  # noqa: F811
    histogram = Histogram(shared.histograms[EGRESS.row, Stage.EGRESS : Stage.EGRESS + 1])
    for _ in range(100):
        histogram.record(450_000)
    shared.supervisor[0]["starts"][INGRESS.row] = 3
    shared.supervisor[0]["lives"][worker_seat(1).row] = Life.SPENT
    with serving(shared, settings) as (host, port, _):
        look = Scraper(f"http://{host}:{port}").look()
    assert look.status == "unhealthy"
    assert list(look.stages_ms) == ["egress"]
    low, high = max(b for b in BOUNDS_S if b < 450e-6), min(b for b in BOUNDS_S if b >= 450e-6)
    assert all(low * 1000 < quantile <= high * 1000 for quantile in look.stages_ms["egress"])
    states = {process.name: (process.state, process.starts) for process in look.processes}
    assert states == {
        "supervisor": ("ready", 1),
        "ingress": ("ready", 3),
        "egress": ("ready", 1),
        "control": ("ready", 1),
        "worker-0": ("ready", 1),
        "worker-1": ("spent", 1),
        "worker-2": ("ready", 1),
    }
    assert look.processes[0].private_bytes > 1 << 20


def test_an_engine_that_does_not_answer_is_shown_as_such():
    assert Scraper("http://127.0.0.1:9").look() == NOTHING


def test_cores_are_what_was_used_between_two_looks(monkeypatch):
    scraper = Scraper("")
    worker = '{{process="worker-0"}}'  # braces doubled: the page is a format
    page = f"tickpath_process_starts_total{worker} 1\ntickpath_process_cpu_seconds_total{worker} {{}}\n"
    clock = [10.0]
    monkeypatch.setattr(scrape.time, "monotonic", lambda: clock[0])
    assert scraper._processes(scrape.parse(page.format(5.0)))[1] == Process("worker-0", "absent", 0.0, 0.0, 1)
    clock[0] = 14.0
    assert scraper._processes(scrape.parse(page.format(6.0)))[1].cores == pytest.approx(0.25)


def test_quantiles_beyond_the_last_bound_are_that_bound():
    assert scrape.quantile({1.0: 0.0, 10.0: 0.0, float("inf"): 4.0}, 0.5) == 10.0

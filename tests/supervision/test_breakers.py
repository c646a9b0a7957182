"""Breakers of model versions: every way from state to state, and none on quiet data."""

import logging
from itertools import product

import numpy as np
import pytest

from engine.shared import Breaker
from engine.supervision.breakers import BACK_OFF_FIRST_S, BACK_OFF_MAX_S, FAILURES_TO_OPEN, TRANSITIONS, Breakers, State
from fastpath import layout

CLOSED, OPEN, HALF_OPEN = Breaker.CLOSED, Breaker.OPEN, Breaker.HALF_OPEN


class Bench:
    """Two versions, three workers' counters, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.versions = np.zeros(4, layout.version_row_dtype)
        self.versions["taken"][:2] = 1
        self.versions["model_id"][:2] = [b"basic_lstm", b"xgboost_direction"]
        self.children = np.zeros(6, layout.child_row_dtype)
        self.breakers = Breakers(self.versions, self.children, logging.getLogger("breakers"))
        self.now_s = 100.0
        self.workers = [0, 1]

    def tick(self, failed: int = 0, succeeded: int = 0, row: int = 3, after_s: float = 0.01) -> Breaker:
        self.children[row]["failures"][0] += failed
        self.children[row]["successes"][0] += succeeded
        self.now_s += after_s
        self.breakers.tick(self.now_s, self.workers)
        return Breaker(int(self.versions[0]["breaker"]))

    def open(self) -> "Bench":
        assert self.tick(failed=FAILURES_TO_OPEN) == OPEN
        return self

    def half_open(self) -> "Bench":
        assert self.open().tick(after_s=BACK_OFF_FIRST_S) == HALF_OPEN
        return self


def test_nothing_opens_on_quiet_data() -> None:
    bench = Bench()
    for _ in range(10_000):
        assert bench.tick(succeeded=20) == CLOSED
    for _ in range(10_000):
        assert bench.tick() == CLOSED


def test_rare_failures_among_successes_do_not_open() -> None:
    bench = Bench()
    for _ in range(1000):
        assert bench.tick(failed=FAILURES_TO_OPEN - 1) == CLOSED
        assert bench.tick(succeeded=1) == CLOSED


def test_failures_in_a_row_open_wherever_they_happened_and_only_this_version() -> None:
    bench = Bench()
    for number in range(FAILURES_TO_OPEN - 1):
        assert bench.tick(failed=1, row=3 + number % 3) == CLOSED
    assert bench.tick(failed=1, row=5) == OPEN
    assert bench.versions["breaker"].tolist() == [OPEN, CLOSED, CLOSED, CLOSED]


def test_an_open_breaker_asks_one_worker_once_its_back_off_passed() -> None:
    bench = Bench().open()
    assert bench.tick(after_s=BACK_OFF_FIRST_S - 0.02) == OPEN
    assert bench.tick(after_s=0.02) == HALF_OPEN
    assert (int(bench.versions[0]["probe_worker"]), int(bench.versions[0]["probe_number"])) == (0, 1)
    assert bench.tick(after_s=1000.0) == HALF_OPEN  # until the probe says something


def test_an_open_breaker_waits_for_somebody_to_ask() -> None:
    bench = Bench().open()
    bench.workers = []
    assert bench.tick(after_s=10.0) == OPEN
    bench.workers = [1]
    assert bench.tick() == HALF_OPEN
    assert int(bench.versions[0]["probe_worker"]) == 1


def test_a_probe_that_succeeds_closes_and_forgets_the_back_off() -> None:
    bench = Bench().half_open()
    assert bench.tick(failed=1) == OPEN
    assert bench.tick(after_s=2 * BACK_OFF_FIRST_S) == HALF_OPEN
    assert bench.tick(succeeded=1) == CLOSED
    assert bench.half_open().tick(succeeded=1) == CLOSED  # after the first back-off again


def test_a_probe_that_fails_opens_for_twice_as_long_up_to_a_bound() -> None:
    bench, back_off_s = Bench().half_open(), BACK_OFF_FIRST_S
    for _ in range(10):
        back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)
        assert bench.tick(failed=1) == OPEN
        assert bench.tick(after_s=back_off_s - 0.02) == OPEN
        assert bench.tick(after_s=0.03) == HALF_OPEN
    assert back_off_s == BACK_OFF_MAX_S


def test_probes_go_round_the_workers() -> None:
    bench, asked = Bench().half_open(), []
    for _ in range(4):
        asked.append(int(bench.versions[0]["probe_worker"]))
        bench.tick(failed=1)
        assert bench.tick(after_s=BACK_OFF_MAX_S) == HALF_OPEN
    assert asked == [0, 1, 0, 1]


def test_a_probe_whose_worker_left_is_given_to_another() -> None:
    bench = Bench().half_open()
    bench.workers = [1]
    assert bench.tick() == OPEN
    assert bench.tick(after_s=BACK_OFF_FIRST_S) == HALF_OPEN
    assert int(bench.versions[0]["probe_worker"]) == 1


def test_failures_that_were_under_way_while_open_do_not_open_it_again_later() -> None:
    bench = Bench().open()
    assert bench.tick(failed=FAILURES_TO_OPEN) == OPEN
    assert bench.tick(after_s=BACK_OFF_FIRST_S) == HALF_OPEN
    assert bench.tick(succeeded=1) == CLOSED
    assert bench.tick(failed=1) == CLOSED


@pytest.mark.parametrize(("before", "after"), [pair for pair in product(Breaker, Breaker) if pair not in TRANSITIONS])
def test_no_other_way_is_gone(before: Breaker, after: Breaker) -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="a breaker does not go") as caught:
        bench.breakers._move(0, State(breaker=before), after)
    assert str(caught.value) == f"a breaker does not go from {before.name} to {after.name}"


def test_each_move_is_told(caplog: pytest.LogCaptureFixture) -> None:
    Bench().half_open().tick(succeeded=1)
    assert caplog.messages == [
        "breaker of basic_lstm: closed -> open",
        "breaker of basic_lstm: open -> half_open",
        "breaker of basic_lstm: half_open -> closed",
    ]

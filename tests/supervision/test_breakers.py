"""Breakers of model versions: every way from state to state, and none on quiet data."""

import logging
import random
from itertools import product

import numpy as np
import pytest

from engine import limits
from engine.limits import (
    BACK_OFF_FIRST_S,
    BACK_OFF_MAX_S,
    BACK_OFF_SPREAD,
    FAILURES_TO_OPEN,
    PROBES_TO_CLOSE,
    RECENT_RUNS,
    SLOW_TO_OPEN,
)
from engine.shared import Breaker, Cause
from engine.supervision.breakers import TRANSITIONS, WORDS, Breakers, State, spread
from fastpath import layout

CLOSED, OPEN, HALF_OPEN = Breaker.CLOSED, Breaker.OPEN, Breaker.HALF_OPEN
LONGEST = 1 + BACK_OFF_SPREAD


class Bench:
    """Two versions, three workers' counters, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.versions = np.zeros(4, layout.version_row_dtype)
        self.versions["taken"][:2] = 1
        self.versions["model_id"][:2] = [b"basic_lstm", b"xgboost_direction"]
        self.versions["version"][:2] = [b"1.0", b"3.2"]
        self.children = np.zeros(6, layout.child_row_dtype)
        self.breakers = Breakers(self.versions, self.children, logging.getLogger("breakers"))
        self.now_s = 100.0
        self.workers = [0, 1]

    def tick(self, failed=0, succeeded=0, unsound=0, slow=0, row=3, after_s=0.01) -> Breaker:
        for name, count in (("failures", failed), ("successes", succeeded), ("unsound", unsound), ("slow", slow)):
            self.children[row][name][0] += count
        self.now_s += after_s
        self.breakers.tick(self.now_s, self.workers)
        return self.state

    def crash(self) -> Breaker:
        self.breakers.crashed(0, self.now_s)
        return self.state

    @property
    def state(self) -> Breaker:
        return Breaker(int(self.versions[0]["breaker"]))

    @property
    def probe(self) -> tuple[int, int]:
        return int(self.versions[0]["probe_worker"]), int(self.versions[0]["probe_number"])

    def opened(self) -> dict[str, int]:
        return {cause.name: int(count) for cause, count in zip(Cause, self.versions[0]["opened"], strict=True) if count}

    def open(self) -> "Bench":
        assert self.tick(failed=FAILURES_TO_OPEN) == OPEN
        return self

    def half_open(self) -> "Bench":
        assert self.open().tick(after_s=LONGEST * BACK_OFF_FIRST_S) == HALF_OPEN
        return self

    def waits_s(self) -> float:
        """How long it stays open from now on, to a hundredth."""
        begin_s = self.now_s
        while self.tick(after_s=0.01) == OPEN:
            assert self.now_s < begin_s + 2 * BACK_OFF_MAX_S
        return self.now_s - begin_s


def test_nothing_opens_on_quiet_data() -> None:
    bench = Bench()
    for _ in range(10_000):
        assert bench.tick(succeeded=20) == CLOSED
    for _ in range(10_000):
        assert bench.tick() == CLOSED
    assert bench.opened() == {}


def test_rare_failures_and_rare_slow_runs_among_successes_do_not_open() -> None:
    bench = Bench()
    for _ in range(1000):
        assert bench.tick(failed=FAILURES_TO_OPEN - 1) == CLOSED
        assert bench.tick(succeeded=2 * FAILURES_TO_OPEN) == CLOSED
        assert bench.tick(succeeded=RECENT_RUNS, slow=SLOW_TO_OPEN - 1) == CLOSED


def test_failures_in_a_row_open_wherever_they_happened_and_only_this_version() -> None:
    bench = Bench()
    for number in range(FAILURES_TO_OPEN - 1):
        assert bench.tick(failed=1, row=3 + number % 3) == CLOSED
    assert bench.tick(failed=1, row=5) == OPEN
    assert bench.versions["breaker"].tolist() == [OPEN, CLOSED, CLOSED, CLOSED]
    assert bench.opened() == {"RAISED": 1}


def test_a_model_that_fails_for_half_of_its_inputs_opens_however_they_are_mixed() -> None:
    bench = Bench()
    for _ in range(RECENT_RUNS // 2 - 1):
        assert bench.tick(failed=1) == CLOSED
        assert bench.tick(succeeded=1) == CLOSED
    assert bench.tick(failed=1) == CLOSED
    assert bench.tick(failed=1) == OPEN
    assert bench.opened() == {"RAISED": 1}


def test_failures_by_numbers_that_cannot_be_used_are_told_from_errors() -> None:
    bench = Bench()
    assert bench.tick(failed=FAILURES_TO_OPEN, unsound=FAILURES_TO_OPEN) == OPEN
    assert bench.opened() == {"UNSOUND": 1}


@pytest.mark.parametrize("between", [0, RECENT_RUNS // SLOW_TO_OPEN - 2])
def test_slow_runs_open_where_enough_of_the_recent_ones_are_slow(between: int) -> None:
    bench = Bench()
    for _ in range(SLOW_TO_OPEN - 1):
        assert bench.tick(succeeded=1, slow=1) == CLOSED
        assert bench.tick(succeeded=between) == CLOSED
    assert bench.tick(succeeded=1, slow=1) == OPEN
    assert bench.opened() == {"SLOW": 1}


def test_slow_runs_of_long_ago_are_forgotten() -> None:
    bench = Bench()
    for _ in range(50):
        assert bench.tick(succeeded=1, slow=1) == CLOSED
        for _ in range(RECENT_RUNS):
            assert bench.tick(succeeded=1) == CLOSED


def test_one_worker_that_dies_in_a_model_opens_it() -> None:
    bench = Bench()
    assert bench.crash() == OPEN
    assert bench.crash() == OPEN  # another worker was in it, too
    assert bench.opened() == {"CRASHED": 1}


def test_a_worker_that_dies_in_a_probe_opens_for_twice_as_long() -> None:
    bench = Bench().half_open()
    assert bench.crash() == OPEN
    assert bench.waits_s() >= 2 * BACK_OFF_FIRST_S
    assert bench.opened() == {"RAISED": 1, "CRASHED": 1}


def test_an_open_breaker_asks_one_worker_once_its_back_off_passed() -> None:
    bench = Bench().open()
    assert bench.tick(after_s=BACK_OFF_FIRST_S - 0.02) == OPEN
    assert bench.tick(after_s=BACK_OFF_SPREAD * BACK_OFF_FIRST_S + 0.03) == HALF_OPEN
    assert bench.probe == (0, 1)
    assert bench.tick(after_s=1000.0) == HALF_OPEN  # until the probe says something
    assert bench.probe == (0, 1)


def test_an_open_breaker_waits_for_somebody_to_ask() -> None:
    bench = Bench().open()
    bench.workers = []
    assert bench.tick(after_s=10.0) == OPEN
    bench.workers = [1]
    assert bench.tick() == HALF_OPEN
    assert bench.probe == (1, 1)


def test_a_few_probes_each_given_by_number_close_it_and_forget_the_back_off() -> None:
    bench = Bench().half_open()
    assert bench.tick(failed=1) == OPEN
    assert bench.tick(after_s=LONGEST * 2 * BACK_OFF_FIRST_S) == HALF_OPEN
    begin = bench.probe[1]
    for number in range(1, PROBES_TO_CLOSE):
        assert bench.tick(succeeded=1) == HALF_OPEN
        assert bench.probe == ((begin + number - 1) % 2, begin + number)
    assert bench.tick(succeeded=1) == CLOSED
    assert bench.half_open().state == HALF_OPEN  # after the first back-off again


@pytest.mark.parametrize(("probe", "cause"), [({"failed": 1}, "RAISED"), ({"succeeded": 1, "slow": 1}, "SLOW")])
def test_a_probe_that_fails_or_is_slow_opens_for_twice_as_long_up_to_a_bound(probe: dict, cause: str) -> None:
    bench, back_off_s = Bench().half_open(), BACK_OFF_FIRST_S
    for _ in range(8):
        back_off_s = min(2 * back_off_s, BACK_OFF_MAX_S)
        assert bench.tick(**probe) == OPEN
        waited_s = bench.waits_s()
        assert back_off_s <= waited_s <= LONGEST * back_off_s + 0.03
    assert back_off_s == BACK_OFF_MAX_S
    assert bench.opened()[cause] == 8 + (cause == "RAISED")


def test_a_last_probe_that_fails_opens_however_many_went_well_before() -> None:
    bench = Bench().half_open()
    for _ in range(PROBES_TO_CLOSE - 1):
        assert bench.tick(succeeded=1) == HALF_OPEN
    assert bench.tick(failed=1) == OPEN


def test_probes_go_round_the_workers() -> None:
    bench, asked = Bench().half_open(), []
    for _ in range(4):
        asked.append(bench.probe[0])
        bench.tick(failed=1)
        assert bench.tick(after_s=LONGEST * BACK_OFF_MAX_S) == HALF_OPEN
    assert asked == [0, 1, 0, 1]


def test_a_probe_whose_worker_died_is_given_out_again_under_a_new_number() -> None:
    bench = Bench().half_open()
    bench.breakers.worker_left(1)  # it had no probe
    assert (bench.tick(), bench.probe) == (HALF_OPEN, (0, 1))
    bench.breakers.worker_left(0)  # a spare has its ring already; the number that died with it is used up
    assert (bench.tick(), bench.probe) == (HALF_OPEN, (1, 2))
    bench.workers = []
    assert (bench.tick(), bench.probe) == (HALF_OPEN, (1, 2))
    bench.workers = [0]
    assert (bench.tick(), bench.probe) == (HALF_OPEN, (0, 3))
    assert bench.opened() == {"RAISED": 1}  # a killed worker is no fault of the model


def test_a_state_outlives_every_worker() -> None:
    bench = Bench().open()
    for worker in (0, 1):
        bench.breakers.worker_left(worker)
    bench.workers = []
    assert bench.tick() == OPEN
    bench.workers = [0, 1]
    assert bench.tick() == OPEN
    for name in ("pulse_ns", "hand_model", "seat"):  # what is cleared with a dead worker; its counts are not
        bench.children[name] = 0
    assert bench.tick(after_s=LONGEST * BACK_OFF_FIRST_S) == HALF_OPEN


def test_failures_that_were_under_way_while_open_do_not_open_it_again_later() -> None:
    bench = Bench().open()
    assert bench.tick(failed=FAILURES_TO_OPEN) == OPEN
    assert bench.tick(after_s=LONGEST * BACK_OFF_FIRST_S) == HALF_OPEN
    for _ in range(PROBES_TO_CLOSE):
        bench.tick(succeeded=1)
    assert bench.state == CLOSED
    assert bench.tick(failed=1) == CLOSED


def test_back_offs_of_versions_that_failed_together_are_spread_and_the_same_each_time() -> None:
    bench = Bench()
    spreads = [spread(bench.versions[row]) for row in (0, 1)]
    assert spreads == [spread(Bench().versions[row]) for row in (0, 1)]
    assert spreads[0] != spreads[1]
    assert all(0.0 <= each < 1.0 for each in spreads)


def test_the_same_counts_at_the_same_times_give_the_same_states() -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")

    def run() -> list[tuple[Breaker, tuple[int, int], dict[str, int]]]:
        chance, bench, seen = random.Random(seed), Bench(), []
        for _ in range(3000):
            kind = chance.choice(["failed", "succeeded", "slow", "crash", "left", "quiet"])
            if kind == "crash" and chance.random() < 0.1:
                bench.crash()
            if kind == "left":
                bench.breakers.worker_left(chance.randrange(2))
            news = {kind: chance.randrange(4)} if kind in ("failed", "succeeded", "slow") else {}
            bench.tick(**news, after_s=chance.choice([0.01, 0.5, 5.0]))
            seen.append((bench.state, bench.probe, bench.opened()))
        return seen

    first = run()
    assert first == run()
    assert {state for state, _, _ in first} == set(Breaker)


@pytest.mark.parametrize(("before", "after"), list(product(Breaker, Breaker)))
def test_a_breaker_goes_the_ways_of_the_table_and_no_other(before: Breaker, after: Breaker) -> None:
    bench = Bench()
    if (before, after) in TRANSITIONS:
        bench.breakers._move(0, State(breaker=before), after)
        assert bench.state == after
        return
    with pytest.raises(ValueError, match="a breaker does not go") as caught:
        bench.breakers._move(0, State(breaker=before), after)
    assert str(caught.value) == f"a breaker does not go from {before.name} to {after.name}"
    assert bench.state == CLOSED


def test_each_move_is_told_and_why(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench().half_open()
    for _ in range(PROBES_TO_CLOSE):
        bench.tick(succeeded=1)
    assert caplog.messages == [
        "breaker of basic_lstm 1.0: closed -> open: it raises errors; it is asked again in 1.1 s",
        "breaker of basic_lstm 1.0: open -> half_open",
        "breaker of basic_lstm 1.0: half_open -> closed",
    ]


def test_every_cause_has_words() -> None:
    assert set(WORDS) == set(Cause)
    assert len(Cause) == layout.causes
    assert WORDS[Cause.SLOW] == f"it takes more than {limits.VECTOR_BUDGET_US} us a vector"

"""Which deaths count, and when a process is given up."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import limits
from engine.supervision.restarts import Budget, is_self_inflicted


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        (0, True),  # an end that nobody asked for
        (1, True),
        (139, True),
        *[(-number, True) for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)],
        *[(-number, False) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)],
    ],
)
def test_only_deaths_that_a_process_brought_on_itself_count(status: int, counts: bool) -> None:
    assert is_self_inflicted(status, killed_as_stuck=False) == counts
    assert is_self_inflicted(status, killed_as_stuck=True)


def test_five_young_deaths_within_a_minute_are_the_end() -> None:
    budget = Budget()
    assert [budget.spend(died_s=12.0 * n, lived_s=5.0) for n in range(5)] == [True] * 4 + [False]


def test_deaths_spread_over_more_than_a_minute_are_not() -> None:
    budget = Budget()
    assert all(budget.spend(died_s=15.1 * n, lived_s=1.0) for n in range(100))


def test_a_death_long_after_the_start_costs_nothing() -> None:
    budget = Budget()
    assert all(budget.spend(died_s=0.1 * n, lived_s=5.1) for n in range(100))
    assert budget.spend(died_s=10.0, lived_s=1.0)


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 10)), max_size=30))
def test_the_budget_is_a_count_over_a_sliding_minute(deaths: list[tuple[float, float]]) -> None:
    budget, now_s, young = Budget(), 0.0, []
    for pause_s, lived_s in deaths:
        now_s += pause_s
        if lived_s <= limits.RESTART_YOUNG_S:
            young.append(now_s)
        recent = [died_s for died_s in young if now_s - died_s <= limits.RESTART_WINDOW_S]
        counts = lived_s <= limits.RESTART_YOUNG_S
        assert budget.spend(now_s, lived_s) == (not counts or len(recent) < limits.RESTART_BUDGET)

"""What a worker counts of its models for their breakers, and whom it asks while one is suspect."""

import time

import numpy as np
import pytest

from engine import limits
from engine.contract.names import Status, Tier
from engine.inference.fallbacks import Breakers
from engine.inference.predictor import Predictor
from engine.shared import Breaker, Phase
from fastpath import layout
from tests.inference.conftest import answer
from tests.inference.market import Market, walk, windows
from tests.inference.test_predictor import Broken, failing

KEYS = 6
BUDGET_NS = limits.VECTOR_BUDGET_US * 1000


def ask(predictor: Predictor, keys: int = KEYS) -> np.ndarray:
    """One warm vector of each key, all in one microbatch."""
    market = Market(tier=Tier.FREE)
    for key in range(keys):
        market.minute(key, 0, 1.5, history=walk(np.random.default_rng(key), layout.history_max))
    return answer(predictor, market.slots(), keys, windows(keys))[:keys]


def counts(predictor: Predictor, row: int) -> dict[str, int]:
    return {
        each: int(predictor.child[each][0][row])
        for each in ("successes", "failures", "unsound", "slow")
        if predictor.child[each][0][row]
    }


def burn(duration_ns: int) -> None:
    until_ns = time.thread_time_ns() + duration_ns
    while time.thread_time_ns() < until_ns:
        pass


@pytest.fixture
def lstm(predictor: Predictor) -> int:
    return failing(predictor, "basic_lstm")


def slowed(predictor: Predictor, row: int, wait) -> None:
    whole = predictor.models[row]

    def run(slots, output) -> None:
        whole.run(slots, predictor._batch, output, predictor._extras.importance)
        wait()

    predictor.models[row] = Broken(whole, run)


def test_errors_and_unusable_numbers_are_counted_apart(predictor: Predictor, lstm: int) -> None:
    whole = predictor.models[lstm]
    predictor.models[lstm] = Broken(whole, lambda slots, output: 1 / 0)
    ask(predictor, 1)
    assert counts(predictor, lstm) == {"failures": 1}
    predictor.models[lstm] = Broken(whole, lambda slots, output: output.move.fill(np.nan))
    ask(predictor, 1)
    assert counts(predictor, lstm) == {"failures": 2, "unsound": 1}


def test_a_model_over_its_budget_is_counted_slow_from_its_second_run_on(predictor: Predictor, lstm: int) -> None:
    slowed(predictor, lstm, lambda: burn(2 * BUDGET_NS))
    for _ in range(4):
        assert ask(predictor, 1)["status"].tolist() == [Status.OK]
    assert counts(predictor, lstm) == {"successes": 4, "slow": 3}


def test_the_budget_is_of_one_vector(predictor: Predictor, lstm: int) -> None:
    slowed(predictor, lstm, lambda: burn(2 * BUDGET_NS))
    for _ in range(4):
        ask(predictor)
    assert counts(predictor, lstm) == {"successes": 4}


def test_waiting_is_no_slowness(predictor: Predictor, lstm: int) -> None:
    slowed(predictor, lstm, lambda: time.sleep(3 * BUDGET_NS / 1e9))
    for _ in range(10):
        ask(predictor, 1)
    assert counts(predictor, lstm) == {"successes": 10}


def test_processor_time_is_looked_at_for_a_while_after_a_long_run_alone() -> None:
    breakers = Breakers(np.zeros(4, layout.version_row_dtype), np.zeros(1, layout.child_row_dtype))
    assert breakers.began(2) == -1
    breakers.ended(2, 1, BUDGET_NS + 1, -1)
    for _ in range(limits.WATCHED_RUNS):
        began = breakers.began(2)
        assert began >= 0
        breakers.ended(2, 1, BUDGET_NS, began)
    assert breakers.began(2) == -1
    assert breakers.began(1) == -1


def test_a_probe_is_one_vector_and_the_others_fall_back(predictor: Predictor, lstm: int) -> None:
    predictor.versions["breaker"][lstm] = Breaker.HALF_OPEN
    predictor.versions["probe_number"][lstm] = 7
    predictor.models[lstm] = spy = Broken(predictor.models[lstm], lambda slots, output: 1 / 0)
    assert ask(predictor)["status"].tolist() == [Status.DEGRADED] * KEYS
    assert (spy.tried, counts(predictor, lstm)) == (1, {"failures": 1})
    predictor.models[lstm] = spy = Broken(spy, lambda slots, output: output.move.fill(0.0) or output.rise.fill(0.5))
    predictor.versions["probe_number"][lstm] = 8
    assert ask(predictor)["status"].tolist() == [Status.OK] + [Status.DEGRADED] * (KEYS - 1)
    assert spy.tried == 1


def test_a_spared_model_is_not_asked_and_the_others_are(predictor: Predictor, lstm: int) -> None:
    predictor.models[lstm] = spy = Broken(predictor.models[lstm], lambda slots, output: 1 / 0)
    expected = ask(predictor, 1)
    assert spy.tried == 1
    predictor.spare(lstm)
    assert ask(predictor, 1)["price"].tolist() == expected["price"].tolist()
    assert spy.tried == 1
    predictor.spare(-1)
    ask(predictor, 1)
    assert spy.tried == 2


def test_a_slow_model_is_not_rehearsed(predictor: Predictor, lstm: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REHEARSED_NS", 10**9)
    ask(predictor)
    assert lstm in [row for row, _, _ in predictor._ran_last]
    monkeypatch.setattr(limits, "REHEARSED_NS", 10**6)
    slowed(predictor, lstm, lambda: burn(2 * 10**6))
    ask(predictor)
    assert lstm not in [row for row, _, _ in predictor._ran_last]


def test_what_fails_in_a_rehearsal_is_left_to_the_next_answer(
    predictor: Predictor, lstm: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REHEARSED_NS", 10**9)
    ask(predictor)
    before = counts(predictor, lstm)

    def fail(*_: object) -> None:
        raise ValueError

    predictor._ran_last = [(lstm, Broken(predictor.models[lstm], fail), [0])]
    predictor.rehearse(lambda: 0)
    assert predictor._ran_last == []
    assert counts(predictor, lstm) == before
    assert predictor.child["hand_model"][0] == 0


def rehearsed(predictor: Predictor, lstm: int, looks: list[int]) -> list[tuple[int, int]]:
    """(model in hand, phase) in each of at most three runs of a rehearsal."""
    ran: list[tuple[int, int]] = []

    def note(*_: object) -> None:
        ran.append((int(predictor.child["hand_model"][0]), int(predictor.child["phase"][0])))

    predictor._ran_last = [(lstm, Broken(predictor.models[lstm], note), [0])] * 3
    predictor.rehearse(iter(looks).__next__)
    return ran


def test_a_rehearsal_ends_once_there_is_something_to_answer(predictor: Predictor, lstm: int) -> None:
    assert len(rehearsed(predictor, lstm, [0, 0, 1])) == 2


def test_a_model_is_in_hand_while_it_is_rehearsed(predictor: Predictor, lstm: int) -> None:
    assert rehearsed(predictor, lstm, [0, 0, 0]) == [(lstm + 1, Phase.IN_MODEL)] * 3
    assert (predictor.child["hand_model"][0], predictor.child["phase"][0]) == (0, Phase.IDLE)


@pytest.mark.parametrize("state", [Breaker.OPEN, Breaker.HALF_OPEN])
def test_a_barred_or_probed_version_is_not_rehearsed(predictor: Predictor, lstm: int, state: Breaker) -> None:
    predictor.versions["breaker"][lstm] = state
    try:
        assert rehearsed(predictor, lstm, [0, 0, 0]) == []
    finally:
        predictor.versions["breaker"][lstm] = Breaker.CLOSED
    predictor.spare(lstm)
    assert rehearsed(predictor, lstm, [0, 0, 0]) == []
    predictor.spare(-1)

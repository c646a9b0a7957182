"""An answer does not depend on when, where and beside whom a slot is answered: random schedulings, to the bit.

`TICKPATH_TEST_SCHEDULINGS` is how many (default 500), `TICKPATH_TEST_SEED` repeats a run's.
"""

import os
import random

import numpy as np
import pytest

from engine import limits
from engine.inference.predictor import Predictor
from fastpath import layout
from tests.inference.conftest import MAX_BATCH, STORE, answer, make_predictor
from tests.inference.market import windows
from tests.inference.test_repeats import KEYS, busy_market, die_within

SCHEDULINGS = int(os.environ.get("TICKPATH_TEST_SCHEDULINGS", "500"))
SEED = int(os.environ.get("TICKPATH_TEST_SEED", random.randrange(1 << 32)))
COUNT, LONGEST, RING = 600, 40, 64
EACH_MARKET = 500  # schedulings
WORKERS = 2


class Worker:
    """A worker's memory, which outlives a scheduling as its lanes do: what they hold is another time's then."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.slots = np.zeros(RING, layout.request_slot_dtype)
        self.answers = np.zeros(RING, layout.answer_slot_dtype)
        self.window = windows(KEYS)

    def restart(self) -> None:
        for lanes in self.predictor._lanes:
            lanes.reset(KEYS)
        for patterns in self.predictor._patterns:
            patterns.keep(KEYS)

    def serve(self, chance: random.Random, slots: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Answers all, in microbatches of any size, with deaths and idle moments in between."""
        count, position = len(slots), 0
        self.slots[:count], self.window[:] = slots, window
        self.answers[:] = 0  # beyond its counts an answer keeps what the slot held before
        while position < count:
            size = min(chance.randint(1, MAX_BATCH), count - position)
            fate = chance.random()
            if fate < 0.2:
                how = chance.choice(("after entering", "before publishing"))
                die_within(self.predictor, self.slots, position, size, self.window, how)
            if fate < 0.1:
                self.restart()
            answer(
                self.predictor, self.slots, position + size, self.window,
                first=position, answers=self.answers, largest=chance.randint(1, MAX_BATCH),
            )  # fmt: skip
            position += size
            while chance.random() < 0.5 and self.predictor.catch_up():
                pass
            if chance.random() < 0.5:
                looks = chance.randint(0, 5)  # after how many models something comes
                self.predictor.rehearse(iter([0] * looks + [1]).__next__)
        self.answers["request"][:count] = 0  # the position in its ring
        return raw(self.answers)[:count]


@pytest.fixture(scope="module")
def workers(loaded: Predictor) -> list[Worker]:
    return [Worker(loaded), *(Worker(make_predictor(STORE)) for _ in range(WORKERS - 1))]


def raw(slots: np.ndarray) -> np.ndarray:
    """Their bytes, shape (slots, bytes); numpy copies fields alone, and not what lies between them."""
    return slots.view("u1").reshape(len(slots), -1)


def merged(chance: random.Random, slots: np.ndarray) -> np.ndarray:
    """The same slots in another order; each key's stay in theirs."""
    order = list(range(len(slots)))
    queues = {int(key): [n for n in order if slots["key"][n] == key] for key in np.unique(slots["key"])}
    turns = slots["key"].tolist()
    chance.shuffle(turns)
    return np.array([queues[key].pop(0) for key in turns], int)


def check_schedulings(predictor: Predictor, workers: list[Worker], schedulings: int) -> None:
    """Each against the predictor, which answers one slot after the other."""
    print(f"TICKPATH_TEST_SEED={SEED} TICKPATH_TEST_SCHEDULINGS={schedulings}")
    chance = random.Random(SEED)
    for number in range(schedulings):
        if number % EACH_MARKET == 0:
            slots = busy_market(np.random.default_rng(chance.randrange(1 << 32)), COUNT).slots()
            window, expected = windows(KEYS), np.zeros(len(slots), layout.answer_slot_dtype)
            before = []
            for position in range(COUNT):
                before.append(window.copy())
                answer(predictor, slots, position + 1, window, first=position, answers=expected)
            before.append(window)
            expected["request"] = 0
        first = chance.randrange(COUNT - LONGEST)
        end = first + chance.randint(1, LONGEST)
        of_key = [chance.randrange(WORKERS) for _ in range(KEYS)]
        for which, worker in enumerate(workers):
            own = first + np.flatnonzero([of_key[key] == which for key in slots["key"][first:end].tolist()])
            if len(own) == 0:
                continue
            order = own[merged(chance, slots[own])]
            found = worker.serve(chance, slots[order], before[first])
            assert found.tobytes() == raw(expected)[order].tobytes(), f"scheduling {number}, slots {first} to {end - 1}"
            keys = [key for key in range(KEYS) if of_key[key] == which]
            assert worker.window[keys].tobytes() == before[end][keys].tobytes(), f"scheduling {number}"


def test_answers_and_windows_are_the_same_bytes_however_slots_are_scheduled(
    predictor: Predictor, workers: list[Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REHEARSED_NS", 10**9)  # however slow the host is
    check_schedulings(predictor, workers, SCHEDULINGS)

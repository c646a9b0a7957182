"""A warm worker allocates nothing that stays, and makes no garbage: shown by tracemalloc and the collector's counts."""

import gc
import tracemalloc

import numpy as np

from engine.inference.predictor import Predictor
from fastpath import layout
from tests.inference.conftest import answer
from tests.inference.market import windows
from tests.inference.test_repeats import KEYS, busy_market

COUNT = 8000
STAYS_MAX = 8  # bytes a vector: one number that stayed of each would be 24, and free lists take a moment to settle


def test_a_warm_worker_keeps_nothing_of_a_vector_and_makes_no_cycles(predictor: Predictor) -> None:
    slots = busy_market(np.random.default_rng(91), COUNT).slots()
    window, answers = windows(KEYS), np.zeros(len(slots), layout.answer_slot_dtype)
    quarter = COUNT // 4
    answer(predictor, slots, quarter, window, answers=answers)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        # Once more: what was allocated unseen and is replaced now would look like growth.
        answer(predictor, slots, 3 * quarter, window, first=quarter, answers=answers)
        begun, garbage = tracemalloc.get_traced_memory()[0], gc.get_count()[0]
        answer(predictor, slots, COUNT, window, first=3 * quarter, answers=answers)
        kept, left = tracemalloc.get_traced_memory()[0] - begun, gc.get_count()[0] - garbage
        assert gc.collect() == 0, "cycles were made"
    finally:
        tracemalloc.stop()
        gc.enable()
    print(f"{kept} bytes stay after {quarter} vectors; {left} more objects")
    assert kept <= STAYS_MAX * quarter
    assert left <= 10

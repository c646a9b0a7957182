"""A loaded predictor over the bundled models, and a way to run slots through it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine import limits
from engine.inference.microbatch import cut
from engine.inference.models.cuda import Device
from engine.inference.predictor import Predictor
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from fastpath import layout

STORE = Path(__file__).parents[2] / "models"
MAX_BATCH = 32
Answer = Callable[..., np.ndarray]


def make_predictor(store: Path, device: Device | None = None) -> Predictor:
    versions = np.zeros(limits.VERSIONS_MAX, layout.version_row_dtype)
    names = np.zeros(limits.FEATURE_NAMES_MAX, f"S{limits.FEATURE_NAME_BYTES}")
    plans = np.zeros(layout.plans_max, layout.plan_row_dtype)
    manifests = read_store(store)
    fill_versions(manifests, versions, names)
    fill_plans(manifests, plans)
    child = np.zeros(1, layout.child_row_dtype)
    child["seat"] = 1
    predictor = Predictor(store, versions, plans, child, MAX_BATCH, device)
    predictor.load()
    return predictor


def answer(
    predictor: Predictor,
    slots: np.ndarray,
    count: int,
    windows: np.ndarray,
    *,
    first: int = 0,
    largest: int = MAX_BATCH,
    verdicts: np.ndarray | None = None,
    answers: np.ndarray | None = None,
) -> np.ndarray:
    """Slots from `first` to `count` in microbatches, cut as a worker cuts them. Returns the ring of answers."""
    answers = np.zeros(len(slots), layout.answer_slot_dtype) if answers is None else answers
    verdicts = np.ones(count, "u1") if verdicts is None else verdicts
    keys, steps = np.zeros(largest, "u4"), np.zeros(largest, "i8")
    while first < count:
        size = cut(slots, first, min(count - first, largest), limits.STEPS_SPARE, keys, steps)
        predictor.predict(slots, first, size, verdicts[first : first + size].copy(), windows, answers, first, 7)
        first += size
    return answers


@pytest.fixture(scope="session")
def loaded() -> Predictor:
    return make_predictor(STORE)


@pytest.fixture
def predictor(loaded: Predictor) -> Iterator[Predictor]:
    """The loaded one, with breakers closed and counts at nil; what a test does to its models is undone."""
    models = dict(loaded.models)
    for each in ("breaker", "probe_worker", "probe_number"):
        loaded.versions[each] = 0
    for each in ("failures", "successes", "unsound", "slow"):
        loaded.child[each] = 0
    loaded._breakers._probes_used.clear()
    loaded._breakers._watched.clear()
    yield loaded
    loaded.models.clear()
    loaded.models.update(models)
    loaded.versions["breaker"] = 0

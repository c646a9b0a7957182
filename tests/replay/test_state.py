"""Beginning anywhere, and models that could not be asked: the real models over a real arena, stopped at any point."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine import limits
from engine.contract.names import Kind, Status, Tier
from engine.inference.batch import PASS, PREDICT
from engine.inference.microbatch import cut, stamp
from engine.inference.predictor import Predictor
from engine.inference.windows import enter
from engine.registry.manifest import fill_versions, read_store
from engine.registry.plans import fill_plans
from engine.replay.answering import Answerer
from engine.replay.digest import same_slots
from engine.replay.reading import Begin, Tape, Taped
from engine.shared import Breaker, Shared
from engine.watch.tape import read_head, segments
from tests.ingress.stand import Sender, arena, vector
from tests.system.servers import ROOT
from tests.watch.stand import Watched, with_tape

STORE = ROOT / "models"
MAX_BATCH = 16
SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY")


@dataclass
class Worker:
    """The worker's steps by hand, so that a test can stop between any two."""

    shared: Shared
    predictor: Predictor
    position: int = 0

    def half(self, count: int) -> None:
        """Slots enter their windows, and nothing is answered: a worker in the middle of its work."""
        count = min(count, self.shared.requests[0].head - self.position)
        if count:
            predictor, slots = self.predictor, self.shared.requests[0].slots
            predictor._view(slots, self.shared.answers[0].slots, self.shared.windows)
            enter(
                predictor._request_view, len(slots) - 1, self.position, count, self.verdicts(count),
                predictor._window_view, predictor._cross_asset, predictor._bounds, predictor._batch.records,
            )  # fmt: skip

    def answer(self, count: int) -> None:
        requests, answers = self.shared.requests[0], self.shared.answers[0]
        count = min(count, requests.head - self.position, MAX_BATCH)
        if count == 0:
            return
        keys, steps = np.zeros(count, np.uint32), np.zeros(count, np.int64)
        count = cut(requests.slots, self.position, count, limits.STEPS_SPARE, keys, steps)
        first = answers.claim(count)
        assert first >= 0
        self.predictor.predict(
            requests.slots, self.position, count, self.verdicts(count), self.shared.windows, answers.slots, first,
            time.monotonic_ns(),
        )  # fmt: skip
        stamp(answers.slots, first, count, time.monotonic_ns(), 0.1)
        answers.publish(first + count)
        self.position += count
        requests.release(self.position)

    def verdicts(self, count: int) -> np.ndarray:
        ring = self.shared.requests[0]
        slots = ring.slots[[position & ring.mask for position in range(self.position, self.position + count)]]
        return np.where((slots["kind"] == Kind.VECTOR) & (slots["reason"] == 0), PREDICT, PASS).astype(np.uint8)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Watched, Worker]]:
    settings = with_tape(tmp_path / "tape")
    with arena(settings) as shared:
        manifests = read_store(STORE)
        fill_versions(manifests, shared.versions, shared.feature_names)
        fill_plans(manifests, shared.plans)
        predictor = Predictor(STORE, shared.versions, shared.plans, np.zeros_like(shared.children[:1]), MAX_BATCH)
        predictor.load()
        yield Watched(shared, settings), Worker(shared, predictor)


def test_replay_from_any_segment_gives_what_was_answered_whoever_could_be_asked(
    running: tuple[Watched, Worker],
) -> None:
    watched, worker = running
    seed = time.time_ns() % 10**6
    print(f"seed {seed}")
    chance = random.Random(seed)
    senders = [Sender("acme", f"feed-{tier}") for tier in (1, 2, 3)]
    mids = {(tier, symbol): 1.0 for tier in (1, 2, 3) for symbol in SYMBOLS}
    minute, rotated = 0.0, 0
    models = [int(row) for row in np.flatnonzero(watched.shared.versions["taken"])]

    def some_answers() -> None:
        """Each microbatch may find other breakers open."""
        watched.shared.versions["breaker"] = Breaker.CLOSED
        if chance.random() < 0.5:
            watched.shared.versions["breaker"][chance.sample(models, chance.randrange(1, 4))] = Breaker.OPEN
        worker.answer(chance.randrange(1, MAX_BATCH))
        if chance.random() < 0.7 or watched.shared.answers[0].free() < MAX_BATCH:
            watched.sent_off(last=int(watched.shared.answers[0].slots["input"].max()))

    for number in range(1500):
        tier = chance.choice((1, 2, 3))
        symbol = chance.choice(SYMBOLS)
        minute += chance.choice((0.01, 0.01, 0.2, 1.0))
        mids[tier, symbol] *= 1 + chance.gauss(0, 1e-4)
        history = [1 + 1e-4 * np.sin(n) for n in range(chance.choice((0, 60, 240)))]
        envelope = senders[tier - 1].batch(vector(symbol, minute, mids[tier, symbol], history))
        while not watched.ingress.take(envelope, tier=Tier(tier)):
            some_answers()
        if chance.random() < 0.2:
            some_answers()
        if number % 100 == 99:
            worker.half(chance.randrange(8))
            watched.recording._bytes, watched.recording._retry_s = 1 << 30, 0.0
            rotated += 1
        if chance.random() < 0.1 or number % 100 == 99:
            watched.recording.look()
    while worker.position < watched.shared.requests[0].head:
        some_answers()
    watched.recording.look()
    watched.sent_off()
    watched.recording.look()
    watched.recording.close()

    paths = segments(watched.folder)
    whole = [path for path in paths if read_head(path)["whole"]]
    assert len(whole) >= rotated // 2, "the windows could hardly ever be copied"
    answerer, statuses = Answerer(STORE, 32), Counter[int]()
    for path in [watched.folder, *whole[1:]]:
        found = 0
        for each in Tape(path).open().inputs():
            if isinstance(each, Begin):
                answerer.begin(each)
                continue
            assert isinstance(each, Taped)
            for answered in answerer.take(each):
                found += check(answered, statuses)
        for answered in answerer.finish():
            found += check(answered, statuses)
        assert found > 0 or path == paths[-1]  # which may have begun when all was answered
        if path == watched.folder:
            assert found == 1500
    assert statuses[Status.DEGRADED] > 300
    assert statuses[Status.OK] > 300


def check(answered, statuses: Counter[int]) -> bool:
    live = answered.taped.answers
    if live is None:
        return False
    statuses.update(live["status"].tolist())
    assert same_slots(answered.slots, live), f"position {answered.taped.position}"
    return True

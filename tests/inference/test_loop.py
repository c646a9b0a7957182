"""The worker's loop over a real arena: what it goes on with, what it answers when its own code fails."""

import logging
import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engine import limits
from engine.contract.names import Kind, Reason, Status
from engine.inference import loop
from engine.inference.microbatch import judge
from engine.settings import Engine, Limits, Settings, digest
from engine.shared import BELLS, Count, Shared, regions, ring_bell, worker_seat
from fastpath.arena import Arena
from tests.inference.market import Market

SETTINGS = replace(
    Settings(),
    engine=Engine(requests_slots=256, inputs_mb=4, max_batch=8, wait="block"),
    limits=Limits(streams=4, streams_total=4, keys=16, keys_total=16),
)
FAR_NS = 1 << 62


@pytest.fixture
def child():
    """What the loop needs of a child; it stops as soon as nothing is left to answer."""
    arena = Arena.create(regions(SETTINGS, 1), digest(SETTINGS))
    bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(BELLS)]
    shared = Shared(arena, SETTINGS, 1, bells)
    seat = worker_seat(0)
    child = SimpleNamespace(
        settings=SETTINGS,
        shared=shared,
        seat=seat,
        row=shared.children[seat.row : seat.row + 1],
        counters=memoryview(shared.children["counters"][seat.row]),
        policy=lambda before: ("block", 0),
        log=logging.getLogger("test"),
        pulse=lambda phase: None,
        stopping=lambda: shared.requests[0].tail == shared.requests[0].head,
    )
    yield child
    for fd in bells:
        os.close(fd)


def put(shared: Shared, vectors: int) -> None:
    """Vectors of one key, ten seconds apart, as ingress would publish them."""
    market, ring = Market(), shared.requests[0]
    for number in range(vectors):
        slot = market.vector(1, 1_380_000_000_000_000_000 + number * 10**10, 1.5, history=np.full(240, 1.5))
        slot["deadline_ns"], slot["count"] = FAR_NS, 1
        position = ring.claim(1)
        ring.slots[position & ring.mask] = slot
        ring.publish(position + 1)


def test_vectors_that_the_engines_own_code_fails_on_are_answered_internal(child, predictor, monkeypatch, caplog):
    predict, raised = predictor.predict, []

    def fail_once(requests, first, count, verdicts, *rest):
        if verdicts[:count].any() and not raised:
            raised.append(first)
            raise ZeroDivisionError("a fault of ours")
        predict(requests, first, count, verdicts, *rest)

    monkeypatch.setattr(predictor, "predict", fail_once)
    put(child.shared, 12)
    assert loop.serve(child, predictor, 0) == 0
    answers = child.shared.answers[0]
    assert answers.head == 12
    assert answers.slots["status"][:8].tolist() == [Status.REJECTED] * 8
    assert answers.slots["reason"][:8].tolist() == [Reason.INTERNAL] * 8
    assert Status.REJECTED not in answers.slots["status"][8:12]
    assert "slots 0 to 7 could not be answered" in caplog.text


def test_a_worker_that_was_woken_early_rehearses_and_answers_what_comes(child, predictor, monkeypatch):
    requests, bell = child.shared.requests[0], child.shared.bells[ring_bell(0)]
    monkeypatch.setattr(limits, "REHEARSED_NS", 10**9)
    monkeypatch.setattr(limits, "REHEARSED_IDLE_NS", 0)
    rehearsals = []

    def rehearse(until):
        rehearsals.append(list(predictor._ran_last))
        type(predictor).rehearse(predictor, until)
        if len(rehearsals) == 2:
            put(child.shared, 1)

    monkeypatch.setattr(predictor, "rehearse", rehearse)
    child.stopping = lambda: len(rehearsals) >= 2 and requests.tail == requests.head
    put(child.shared, 1)
    worker = threading.Thread(target=loop.serve, args=(child, predictor, 0))
    worker.start()
    while len(rehearsals) < 2:
        bell.ring()
    worker.join()
    assert child.shared.answers[0].head == 2
    assert rehearsals[1], "what ran last runs again"


class Watched:
    """A bell that remembers how it was waited at, and does not wait long."""

    def __init__(self, bell) -> None:
        self.bell, self.seen = bell, []

    def wait(self, rings, positions, policy, spin_ns, timeout_ms=1, **named):
        self.seen.append(policy)
        return self.bell.wait(rings, positions, "block", 0, timeout_ms, **named)

    def ring(self) -> None:
        self.bell.ring()


@pytest.mark.parametrize("setting", ["auto", "spin"])
def test_a_worker_that_spins_by_itself_sleeps_where_nothing_came_for_long(child, predictor, monkeypatch, setting):
    bell = child.shared.bells[ring_bell(0)] = Watched(child.shared.bells[ring_bell(0)])
    monkeypatch.setattr(limits, "SPIN_IDLE_NS", 300_000_000)
    child.settings = replace(SETTINGS, engine=replace(SETTINGS.engine, wait=setting))
    child.policy = lambda before: ("spin", 0)
    monkeypatch.setattr(limits, "PULSE_EVERY_MS", 0)
    # A wait takes a millisecond at least, so 500 of them are longer than that.
    child.stopping = lambda: bell.seen[-1:] == ["block"] or (setting == "spin" and len(bell.seen) >= 500)
    put(child.shared, 1)
    assert loop.serve(child, predictor, 0) == 0
    assert child.shared.answers[0].head == 1
    assert set(bell.seen) == ({"spin", "block"} if setting == "auto" else {"spin"})
    assert bell.seen[0] == "spin"


def test_a_worker_goes_on_after_the_request_of_its_last_published_answer(child, predictor):
    put(child.shared, 6)
    assert loop.serve(child, predictor, 0) == 0
    requests, answers = child.shared.requests[0], child.shared.answers[0]
    put(child.shared, 3)
    first = answers.claim(1)  # a predecessor that died between publishing an answer and releasing its request
    answers.slots[first & answers.mask]["request"] = 6
    answers.publish(first + 1)
    assert requests.tail == 6
    assert loop.first_position(requests, answers) == 7


def test_what_waited_longer_than_its_deadline_is_counted_expired(child, predictor):
    put(child.shared, 4)
    child.shared.requests[0].slots["deadline_ns"][:2] = 1
    assert loop.serve(child, predictor, 0) == 0
    assert child.shared.answers[0].slots["status"][:2].tolist() == [Status.EXPIRED] * 2
    assert child.row[0]["counters"][Count.PREDICTIONS_EXPIRED] == 2
    assert child.row[0]["counters"][Count.PREDICTIONS] == 4


def test_a_slot_with_a_reason_is_passed_through_whatever_the_clock_says(child):
    put(child.shared, 2)
    slots = child.shared.requests[0].slots
    slots["reason"][0], slots["deadline_ns"][0] = Reason.NON_FINITE, 1
    slots["kind"][1] = Kind.HEARTBEAT
    verdicts = np.full(2, 9, np.uint8)
    judge(slots, 0, 2, 1000, verdicts)
    assert verdicts.tolist() == [0, 0]


def suspect(child, end: int, poison: int = -1, deaths: int = 0) -> None:
    """What the supervisor leaves behind a dead worker of ring 0."""
    board = child.shared.supervisor[0]
    board["hand_end"][0], board["suspect_end"][0] = end, end
    board["poison"][0], board["poison_deaths"][0] = poison + 1, deaths


def test_slots_that_a_worker_died_of_are_taken_one_by_one_and_counted_repeated(child, predictor):
    put(child.shared, 9)
    suspect(child, end=5)
    assert loop.serve(child, predictor, 0) == 0
    answers, counters = child.shared.answers[0], child.row[0]["counters"]
    assert answers.head == 9
    taken = answers.slots["taken_ns"][:9]
    assert len(set(taken[:5].tolist())) == 5
    assert len(set(taken[5:].tolist())) == 1
    assert (counters[Count.MICROBATCHES], counters[Count.REPEATED]) == (6, 5)


@pytest.mark.parametrize(("deaths", "enters"), [(2, True), (3, False)])
def test_a_slot_that_killed_twice_is_poison_and_enters_its_window_unless_that_kills(child, predictor, deaths, enters):
    put(child.shared, 1)
    suspect(child, end=1, poison=0, deaths=deaths)
    assert loop.serve(child, predictor, 0) == 0
    answer = child.shared.answers[0].slots[0]
    assert (answer["status"], answer["reason"]) == (Status.REJECTED, Reason.POISON)
    assert child.row[0]["counters"][Count.POISONED] == 1
    assert bool(child.shared.windows["stamp"].any()) is enters

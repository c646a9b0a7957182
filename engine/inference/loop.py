"""The worker's loop: takes what is there, answers it, releases it.

Owns the position in one requests ring. Runs in the worker that has the ring's seat. Reads request
slots and what the supervisor knows of the ring's last dead worker, writes answer slots, windows through
the predictor, and its row. What must stay true: answers
are published before requests are released, so that a death in between repeats work and loses none;
nothing but expiry is decided by a clock; what an answer put off is done when there is nothing to answer; what warms
caches for an answer that is to come changes none.
"""

import time
from functools import partial
from typing import NamedTuple

import numpy as np

from engine import limits
from engine.child import Child
from engine.contract.names import Reason
from engine.inference.batch import EXPIRED, PASS
from engine.inference.microbatch import cut, judge, refuse, stamp, tally
from engine.inference.predictor import Predictor
from engine.shared import EGRESS, INGRESS, Count, Phase, Stage, ring_bell
from fastpath.ring import Ring

FULL_WAIT_MS = 1  # how long to sleep where egress has no room, and look again


def first_position(requests: Ring, answers: Ring) -> int:
    """Where a worker begins: after the request of the last published answer."""
    if answers.head == 0:
        return requests.tail
    last = answers.slots[(answers.head - 1) & answers.mask]
    return max(requests.tail, int(last["request"]) + 1)


class Suspicion(NamedTuple):
    """What a dead worker of this ring had in hand; nothing where nobody died of it."""

    end: int = 0  # position; slots below it are taken one by one
    version: int = -1  # that is not asked about them
    poison: int = -1  # position of the slot that killed more than once
    deaths: int = 0

    @classmethod
    def of(cls, board: np.void, worker: int) -> "Suspicion":
        end, model, poison, deaths = (
            int(board[name][worker]) for name in ("suspect_end", "suspect_model", "poison", "poison_deaths")
        )
        return cls(end, model - 1, poison - 1, deaths)

    @property
    def verdict(self) -> int:
        """On the poisoned slot: it enters its window like an expired one, unless that is what kills."""
        return EXPIRED if self.deaths <= 2 else PASS


def serve(child: Child, predictor: Predictor, worker: int) -> int:
    """Serves ring `worker` until the engine ends. Exit status."""
    shared, settings = child.shared, child.settings
    requests, answers = shared.requests[worker], shared.answers[worker]
    bell = shared.bells[ring_bell(worker)]
    ingress_bell, egress_bell = shared.bells[INGRESS.row], shared.bells[EGRESS.row]
    policy, spin_ns = child.policy(worker)
    by_itself = settings.engine.wait == "auto"
    counters = child.row["counters"][0].view(np.int64)  # as the kernel that counts answers wants them
    hand_first, hand_end = child.row["hand_first"].data, child.row["hand_end"].data
    received_ns = requests.slots["received_ns"].data
    ring_wait, inference = shared.stage(child.seat, Stage.RING_WAIT), shared.stage(child.seat, Stage.INFERENCE)
    verdicts = np.zeros(settings.engine.max_batch, np.uint8)
    keys_seen = np.zeros(settings.engine.max_batch, np.uint32)
    steps_taken = np.zeros(settings.engine.max_batch, np.int64)

    position = first_position(requests, answers)
    board = shared.supervisor[0]
    counters[Count.REPEATED] += max(0, int(board["hand_end"][worker]) - position)
    suspicion = Suspicion.of(board, worker)
    requests.release(position)
    child.log.info("goes on at %d", position)
    if position < suspicion.end:
        child.log.warning("a worker died of slots %d to %d: one by one now", position, suspicion.end - 1)
    pulsed_ns, answered_ns = 0, time.monotonic_ns()
    looks_ns = spin_ns  # before it sleeps
    while True:
        now_ns = time.monotonic_ns()
        if now_ns - pulsed_ns > limits.PULSE_EVERY_MS * 1_000_000:
            child.pulse(Phase.IDLE)
            pulsed_ns = now_ns
            if child.stopping():
                return 0
        available, room = requests.peek(position), answers.free()
        if (available == 0 or room == 0) and predictor.catch_up():
            continue
        if available == 0:
            how = "block" if by_itself and now_ns - answered_ns > limits.SPIN_IDLE_NS else policy
            rung = bell.wait([requests], [position], how, looks_ns, or_rung=True) is None
            if rung and time.monotonic_ns() - answered_ns > limits.REHEARSED_IDLE_NS:
                predictor.rehearse(partial(requests.peek, position))
            looks_ns = limits.ONCE_RUNG_NS if rung and by_itself else spin_ns
            continue
        if room == 0:
            bell.wait([], [], "block", 0, FULL_WAIT_MS)
            continue
        count = cut(
            requests.slots,
            position,
            1 if position < suspicion.end else min(available, room, settings.engine.max_batch),
            limits.STEPS_SPARE,
            keys_seen,
            steps_taken,
        )
        hand_first[0], hand_end[0] = position, position + count
        taken_ns = time.monotonic_ns()
        judge(requests.slots, position, count, taken_ns, verdicts)
        if position == suspicion.poison:
            verdicts[0] = suspicion.verdict if verdicts[0] != PASS else PASS
        predictor.spare(suspicion.version if position < suspicion.end else -1)
        first = answers.claim(count)
        try:
            predictor.predict(requests.slots, position, count, verdicts, shared.windows, answers.slots, first, taken_ns)
        except Exception:  # of ours: a model's own errors end at its fallback
            child.log.exception("slots %d to %d could not be answered", position, position + count - 1)
            verdicts[:count] = PASS
            predictor.predict(requests.slots, position, count, verdicts, shared.windows, answers.slots, first, taken_ns)
            refuse(answers.slots, first, count, int(Reason.INTERNAL))
        if position == suspicion.poison:
            child.log.error("slot %d killed %d workers: it is answered poison", position, suspicion.deaths)
            refuse(answers.slots, first, 1, int(Reason.POISON))
            counters[Count.POISONED] += 1
        answered_ns = time.monotonic_ns()
        stamp(answers.slots, first, count, answered_ns, (answered_ns - taken_ns) / 1e6)
        answers.publish(first + count)
        requests.release(position + count)
        egress_bell.ring()
        ingress_bell.ring()
        pulsed_ns = answered_ns
        child.pulse(Phase.IDLE)
        for index in range(count):
            ring_wait.record(taken_ns - received_ns[(position + index) & requests.mask])
        inference.record(answered_ns - taken_ns)
        tally(answers.slots, first, count, counters)
        position += count

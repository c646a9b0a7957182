"""What is decided about a microbatch as a whole: how long it is, what has expired, what is stamped.

Owns nothing; kernels over slot arrays. Runs in the worker. What must stay true: a microbatch never
takes a key further than its window has steps to spare, so that a repeated slot finds what it saw first.
"""

import numpy as np

from engine.contract.names import Kind, Reason, Status
from engine.inference.batch import EXPIRED, PASS, PREDICT
from engine.inference.jit import kernel
from engine.shared import Count

VECTOR = int(Kind.VECTOR)
REJECTED, EXPIRED_STATUS, DEGRADED, WARMING = (
    int(each) for each in (Status.REJECTED, Status.EXPIRED, Status.DEGRADED, Status.WARMING)
)
MICROBATCHES, ANSWERED, ANSWERED_EXPIRED, ANSWERED_DEGRADED, ANSWERED_WARMING = (
    int(each)
    for each in (
        Count.MICROBATCHES,
        Count.PREDICTIONS,
        Count.PREDICTIONS_EXPIRED,
        Count.PREDICTIONS_DEGRADED,
        Count.PREDICTIONS_WARMING,
    )
)


@kernel
def cut(requests, first, count_max, steps_spare, keys, steps):
    """How many slots from `first` on a microbatch takes, at least one.

    Parameters
    ----------
    keys, steps
        Scratch of at least `count_max`: the keys met and how many steps each was taken.
    """
    mask = len(requests) - 1
    known = 0
    for index in range(count_max):
        slot = requests[(first + index) & mask]
        if slot.kind != VECTOR or slot.reason != 0 or slot.outside or not slot.opens:
            continue
        at = 0
        while at < known and keys[at] != slot.key:
            at += 1
        if at == known:
            keys[known], steps[known] = slot.key, 0
            known += 1
        steps[at] += 1 + slot.skipped
        if steps[at] > steps_spare and index > 0:
            return index
    return count_max


@kernel
def judge(requests, first, count, now_ns, verdicts):
    """A verdict for each slot: passed through, predicted, or too late for that."""
    mask = len(requests) - 1
    for index in range(count):
        slot = requests[(first + index) & mask]
        if slot.kind != VECTOR or slot.reason != 0:
            verdicts[index] = PASS
        elif slot.expired or now_ns > slot.deadline_ns:
            verdicts[index] = EXPIRED
        else:
            verdicts[index] = PREDICT


@kernel
def stamp(answers, first, count, answered_ns, inference_ms):
    mask = len(answers) - 1
    for index in range(count):
        answers[(first + index) & mask].answered_ns = answered_ns
        answers[(first + index) & mask].inference_ms = np.float32(inference_ms)


@kernel
def refuse(answers, first, count, reason):
    """Answers REJECTED with this reason for every vector that has none of its own."""
    mask = len(answers) - 1
    for index in range(count):
        slot = answers[(first + index) & mask]
        if slot.kind == VECTOR and slot.reason == 0:
            slot.status, slot.reason = REJECTED, reason


@kernel
def tally(answers, first, count, counters):
    """Counts the microbatch, and each vector by its status."""
    mask = len(answers) - 1
    counters[MICROBATCHES] += 1
    for index in range(count):
        slot = answers[(first + index) & mask]
        if slot.kind == VECTOR:
            counters[ANSWERED] += 1
            counters[ANSWERED_EXPIRED] += slot.status == EXPIRED_STATUS
            counters[ANSWERED_DEGRADED] += slot.status == DEGRADED
            counters[ANSWERED_WARMING] += slot.status == WARMING


def warm(requests: np.ndarray, answers: np.ndarray) -> None:
    """Runs every kernel here once, so that none is compiled on the way. The arrays are only read for their types."""
    requests, answers = np.zeros(1, requests.dtype), np.zeros(1, answers.dtype)
    cut(requests, 0, 1, 15, np.zeros(1, np.uint32), np.zeros(1, np.int64))
    judge(requests, 0, 1, 0, np.zeros(1, np.uint8))
    stamp(answers, 0, 1, 0, 0.0)
    refuse(answers, 0, 1, int(Reason.INTERNAL))
    tally(answers, 0, 1, np.zeros(max(Count) + 1, np.int64))

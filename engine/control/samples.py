"""Rates of the last ten seconds, from a look at the counters each second.

Owns nothing; the control process keeps eleven samples in a deque and asks for their rates. Reads
the arena, writes nothing. What must stay true: a rate is of the samples' own times, so a late
sample stretches the interval instead of bending the rate; counters that begin anew count as none.
"""

from collections import deque
from typing import NamedTuple

from engine.control.processes import worker_seats
from engine.shared import Count, Shared, Stage

KEPT = 11  # one a second: ten intervals


class Sample(NamedTuple):
    """Counters at one moment, over all workers."""

    time_ns: int  # CLOCK_MONOTONIC
    predictions: int
    inferences: int
    inference_ns: int
    cpu_s: float


class Rates(NamedTuple):
    predictions_per_s: float
    inference_ms: float  # mean of a microbatch, from taken to answered
    cores: float  # that the engine's processes used


def take(shared: Shared, now_ns: int, cpu_s: float) -> Sample:
    rows = [seat.row for seat in worker_seats(shared)]
    histograms = shared.histograms[rows, Stage.INFERENCE]
    return Sample(
        now_ns,
        int(shared.children["counters"][rows, Count.PREDICTIONS].sum()),
        int(histograms["count"].sum()),
        int(histograms["sum_ns"].sum()),
        cpu_s,
    )


def rates(samples: deque[Sample]) -> Rates:
    """Between the oldest and the newest sample; zeros while there are fewer than two."""
    if len(samples) < 2:
        return Rates(0.0, 0.0, 0.0)
    first, last = samples[0], samples[-1]
    seconds = (last.time_ns - first.time_ns) / 1e9
    inferences = last.inferences - first.inferences
    return Rates(
        max(0, last.predictions - first.predictions) / seconds,
        max(0, last.inference_ns - first.inference_ns) / inferences / 1e6 if inferences > 0 else 0.0,
        (last.cpu_s - first.cpu_s) / seconds,
    )

"""Circuit breakers of the model versions.

Owns each version's state on the version board. Runs in the supervisor, once a tick and at each death of
a worker. Reads the workers' counters of runs, writes `breaker`, `probe_worker`, `probe_number` and
`opened`. What must stay true: a failing model is not asked again until its back-off passed, and then by
one worker, one vector at a time; the same counters at the same times give the same states.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import Logger
from typing import NamedTuple
from zlib import crc32

import numpy as np

from engine import limits
from engine.shared import Breaker, Cause

TRANSITIONS = {
    (Breaker.CLOSED, Breaker.OPEN),
    (Breaker.OPEN, Breaker.HALF_OPEN),
    (Breaker.HALF_OPEN, Breaker.CLOSED),
    (Breaker.HALF_OPEN, Breaker.OPEN),
}
WORDS = {
    Cause.RAISED: "it raises errors",
    Cause.UNSOUND: "its numbers cannot be used",
    Cause.SLOW: f"it takes more than {limits.VECTOR_BUDGET_US} us a vector",
    Cause.CRASHED: "a worker died or hung in it",
    Cause.SKILL: "it does worse than the baseline",
}
COUNTED = ("successes", "failures", "unsound", "slow")  # words of a child row


class Runs(NamedTuple):
    """What workers counted of one version between two looks."""

    successes: int = 0
    failures: int = 0
    unsound: int = 0  # of the failures
    slow: int = 0  # of both

    @property
    def bad_cause(self) -> Cause:
        """Of the failures, else of the slow runs."""
        if not self.failures:
            return Cause.SLOW
        return Cause.UNSOUND if 2 * self.unsound >= self.failures else Cause.RAISED


@dataclass
class State:
    """What the supervisor remembers of one version."""

    breaker: Breaker = Breaker.CLOSED
    counted: Runs = field(default_factory=Runs)
    in_a_row: int = 0
    recent: deque[Runs] = field(default_factory=deque)
    back_off_s: float = limits.BACK_OFF_FIRST_S
    ends_s: float = 0.0  # when the back-off has passed
    probes: int = 0  # that went well since it is half open
    asked: bool = False  # a worker has the present probe

    def enter(self, news: Runs) -> None:
        """Keeps just enough of the last looks to hold `RECENT_RUNS` runs."""
        self.in_a_row = 0 if news.successes and not news.failures else self.in_a_row + news.failures
        if news.successes + news.failures:
            self.recent.append(news)
        runs = sum(each.successes + each.failures for each in self.recent)
        while self.recent and runs - self.recent[0].successes - self.recent[0].failures >= limits.RECENT_RUNS:
            gone = self.recent.popleft()
            runs -= gone.successes + gone.failures

    def fault(self) -> Cause | None:
        """Why a closed breaker opens now, None where it stays closed."""
        runs = Runs(*(sum(each[n] for each in self.recent) for n in range(len(COUNTED))))
        often = runs.failures >= limits.FAILURES_TO_OPEN and 2 * runs.failures >= runs.failures + runs.successes
        long_enough = runs.failures + runs.successes >= limits.RECENT_RUNS
        if self.in_a_row >= limits.FAILURES_TO_OPEN or (often and long_enough):
            return runs.bad_cause
        if runs.slow >= max(limits.SLOW_TO_OPEN, (runs.failures + runs.successes) // 20):
            return Cause.SLOW
        return None


@dataclass
class Breakers:
    """All versions' breakers.

    Parameters
    ----------
    versions
        `version_row` array.
    children
        `child_row` array; what each worker counts by version only grows.
    """

    versions: np.ndarray
    children: np.ndarray
    log: Logger
    states: dict[int, State] = field(default_factory=dict)

    def tick(self, now_s: float, workers: Sequence[int]) -> None:
        """One look at all versions. `workers`: indexes of the rings that are served now."""
        totals = [self.children[name].sum(axis=0) for name in COUNTED]
        for version in map(int, np.flatnonzero(self.versions["taken"])):
            state = self.states.setdefault(version, State())
            counted = Runs(*(int(each[version]) for each in totals))
            news = Runs(*(now - before for now, before in zip(counted, state.counted, strict=True)))
            state.counted = counted
            self._judge(version, state, news, now_s, workers)

    def crashed(self, version: int, now_s: float) -> None:
        """A worker died of its own in this model: one such death is enough."""
        state = self.states.setdefault(version, State())
        if state.breaker != Breaker.OPEN:
            self._open(version, state, Cause.CRASHED, now_s)

    def worker_left(self, worker: int) -> None:
        """Whoever served this ring is gone, and with it the probe that it had."""
        for version, state in self.states.items():
            if int(self.versions[version]["probe_worker"]) == worker:
                state.asked = False

    def _judge(self, version: int, state: State, news: Runs, now_s: float, workers: Sequence[int]) -> None:
        if state.breaker == Breaker.CLOSED:
            state.enter(news)
            if (cause := state.fault()) is not None:
                self._open(version, state, cause, now_s)
        elif state.breaker == Breaker.OPEN:
            if now_s >= state.ends_s and workers:
                self._move(version, state, Breaker.HALF_OPEN)
                self._ask(version, state, workers)
        elif news.failures or news.slow:
            self._open(version, state, news.bad_cause, now_s)
        elif news.successes:
            state.probes += 1
            if state.probes < limits.PROBES_TO_CLOSE:
                self._ask(version, state, workers)
            else:
                state.back_off_s = limits.BACK_OFF_FIRST_S
                self._move(version, state, Breaker.CLOSED)
        elif not state.asked or int(self.versions[version]["probe_worker"]) not in workers:
            self._ask(version, state, workers)

    def _ask(self, version: int, state: State, workers: Sequence[int]) -> None:
        """Gives the next probe to the next worker; with none there it waits."""
        state.asked = bool(workers)
        if workers:
            row = self.versions[version]
            row["probe_worker"] = workers[int(row["probe_number"]) % len(workers)]
            row["probe_number"] += 1

    def _open(self, version: int, state: State, cause: Cause, now_s: float) -> None:
        """For the first back-off, or after a failed probe for twice the last one."""
        if state.breaker == Breaker.HALF_OPEN:
            state.back_off_s = min(2 * state.back_off_s, limits.BACK_OFF_MAX_S)
        row = self.versions[version]
        row["opened"][cause] += 1
        waits_s = state.back_off_s * (1.0 + limits.BACK_OFF_SPREAD * spread(row))
        state.ends_s = now_s + waits_s
        self._move(version, state, Breaker.OPEN, f": {WORDS[cause]}; it is asked again in {waits_s:.1f} s")

    def _move(self, version: int, state: State, to: Breaker, why: str = "") -> None:
        if (state.breaker, to) not in TRANSITIONS:
            raise ValueError(f"a breaker does not go from {state.breaker.name} to {to.name}")
        name = f"{self.versions[version]['model_id'].decode()} {self.versions[version]['version'].decode()}"
        before, after = state.breaker.name.lower(), to.name.lower()
        self.log.warning("breaker of %s: %s -> %s%s", name, before, after, why)
        state.breaker, state.probes, state.in_a_row, state.asked = to, 0, 0, False
        state.recent.clear()
        self.versions[version]["breaker"] = to


def spread(row: np.void) -> float:
    """0 to 1, by the version's name and how often it opened: the same on each run, another for each version."""
    text = f"{row['model_id'].decode()}/{row['version'].decode()}/{int(row['opened'].sum())}"
    return crc32(text.encode()) / (1 << 32)

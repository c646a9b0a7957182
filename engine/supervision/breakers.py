"""Circuit breakers of the model versions.

Owns each version's state on the version board. Runs in the supervisor, once a tick. Reads the workers'
counters of failures and successes, writes `breaker`, `probe_worker` and `probe_number`. What must stay
true: a failing model is not asked again until its back-off passed, and then by one worker, once.
"""

from dataclasses import dataclass, field
from logging import Logger

import numpy as np

from engine.shared import Breaker

FAILURES_TO_OPEN = 5  # in a row without a success, summed over the workers
BACK_OFF_FIRST_S = 1.0
BACK_OFF_MAX_S = 60.0

TRANSITIONS = {
    (Breaker.CLOSED, Breaker.OPEN),
    (Breaker.OPEN, Breaker.HALF_OPEN),
    (Breaker.HALF_OPEN, Breaker.CLOSED),
    (Breaker.HALF_OPEN, Breaker.OPEN),
}


@dataclass
class State:
    """What the supervisor remembers of one version."""

    breaker: Breaker = Breaker.CLOSED
    failures: int = 0
    successes: int = 0
    in_a_row: int = 0
    back_off_s: float = BACK_OFF_FIRST_S
    opened_s: float = 0.0


@dataclass
class Breakers:
    """All versions' breakers.

    Parameters
    ----------
    versions
        `version_row` array.
    children
        `child_row` array; each worker's `failures` and `successes` by version only grow.
    """

    versions: np.ndarray
    children: np.ndarray
    log: Logger
    states: dict[int, State] = field(default_factory=dict)

    def tick(self, now_s: float, workers: list[int]) -> None:
        """One look at all versions. `workers`: indexes of those that serve a ring now."""
        failures, successes = self.children["failures"].sum(axis=0), self.children["successes"].sum(axis=0)
        for version in np.flatnonzero(self.versions["taken"]):
            state = self.states.setdefault(int(version), State())
            failed = int(failures[version]) - state.failures
            succeeded = int(successes[version]) - state.successes
            state.failures, state.successes = int(failures[version]), int(successes[version])
            self._judge(int(version), state, failed, succeeded, now_s, workers)

    def _judge(self, version: int, state: State, failed: int, succeeded: int, now_s: float, workers: list[int]) -> None:
        state.in_a_row = 0 if succeeded and not failed else state.in_a_row + failed
        if state.breaker == Breaker.CLOSED and state.in_a_row >= FAILURES_TO_OPEN:
            self._open(version, state, now_s)
        elif state.breaker == Breaker.OPEN and now_s - state.opened_s >= state.back_off_s and workers:
            row = self.versions[version]
            row["probe_worker"] = workers[int(row["probe_number"]) % len(workers)]
            row["probe_number"] += 1
            self._move(version, state, Breaker.HALF_OPEN)
        elif state.breaker == Breaker.HALF_OPEN and failed:
            state.back_off_s = min(2 * state.back_off_s, BACK_OFF_MAX_S)
            self._open(version, state, now_s)
        elif state.breaker == Breaker.HALF_OPEN and succeeded:
            state.back_off_s = BACK_OFF_FIRST_S
            self._move(version, state, Breaker.CLOSED)
        elif state.breaker == Breaker.HALF_OPEN and int(self.versions[version]["probe_worker"]) not in workers:
            self._open(version, state, now_s)

    def _open(self, version: int, state: State, now_s: float) -> None:
        state.opened_s, state.in_a_row = now_s, 0
        self._move(version, state, Breaker.OPEN)

    def _move(self, version: int, state: State, to: Breaker) -> None:
        if (state.breaker, to) not in TRANSITIONS:
            raise ValueError(f"a breaker does not go from {state.breaker.name} to {to.name}")
        name = self.versions[version]["model_id"].decode()
        self.log.warning("breaker of %s: %s -> %s", name, state.breaker.name.lower(), to.name.lower())
        state.breaker = to
        self.versions[version]["breaker"] = to

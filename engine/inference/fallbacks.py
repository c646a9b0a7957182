"""Who answers for whom: each role's order of versions, and whether one may be tried now.

Owns the order and the worker's side of the breakers; run by workers. Reads the version table (breaker
states are the supervisor's), writes this worker's counts of runs. What must stay true: an open breaker
costs no try; a probe number is used once, for one vector; the order ends at the baseline; time that a
run waited for a processor is no fault of the model.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine import limits
from engine.contract.names import Tier
from engine.inference.batch import DIRECTION, ENSEMBLE, PATTERN, PRICE
from engine.registry.manifest import version_order
from engine.shared import Breaker
from engine.tenancy.tiers import BASELINE, PLANS, VOTE, Role, fallbacks

ROLE_COLUMNS = {Role.PRICE: PRICE, Role.PATTERN: PATTERN, Role.DIRECTION: DIRECTION, Role.ENSEMBLE: ENSEMBLE}


class Group(NamedTuple):
    """The slots that want one model in one role."""

    role: int  # column of the output arrays
    plans: tuple[int, ...]  # rows of the plan table
    wanted: int  # version row; -1: it is not in the store
    chain: tuple[int, ...]  # version rows in the order of trying, loaded or not


def rows_by_id(versions: np.ndarray) -> dict[str, list[int]]:
    """Rows of each model, the newest version first."""
    found: dict[str, list[int]] = {}
    for row in np.flatnonzero(versions["taken"]):
        found.setdefault(bytes(versions["model_id"][row]).decode(), []).append(int(row))
    for rows in found.values():
        rows.sort(key=lambda row: version_order(bytes(versions["version"][row]).decode()), reverse=True)
    return found


def groups(versions: np.ndarray, plans: np.ndarray) -> list[Group]:
    """One for each model that a plan wants, in the order price, pattern, direction, ensemble.

    The vote wants no model. What stands in for a company's own model is shared by all.
    """
    rows = rows_by_id(versions)
    out = []
    for role, column in ROLE_COLUMNS.items():
        wanted: dict[str, list[int]] = {}
        for n in np.flatnonzero(plans["taken"]):
            own = int(plans["own"][n][role - 1])
            shared = PLANS[Tier(int(plans["tier"][n]))].wanted(role)
            model_id = bytes(versions["model_id"][own]).decode() if own >= 0 else shared
            if shared is not None and model_id is not None and model_id != VOTE:
                wanted.setdefault(model_id, []).append(int(n))
        for model_id, who in wanted.items():
            order = [model_id, *(each for each in fallbacks(role, model_id) if each not in (VOTE, BASELINE))]
            chain = tuple(row for each in order for row in rows.get(each, []))
            out.append(Group(column, tuple(who), rows[model_id][0] if model_id in rows else -1, chain))
    return out


class Breakers:
    """What this worker may try, and what came of it."""

    def __init__(self, versions: np.ndarray, child: np.ndarray) -> None:
        self._state, self._probe_worker, self._probe_number = (
            versions[each].data for each in ("breaker", "probe_worker", "probe_number")
        )
        self._failures, self._successes, self._unsound, self._slow = (
            child[each][0].data for each in ("failures", "successes", "unsound", "slow")
        )
        self._probes_used: dict[int, int] = {}
        self._watched: dict[int, int] = {}  # runs that are still timed by processor time
        self._seat = child["seat"].data  # worker index + 1
        self.spared = -1  # a version that is not asked now, whatever its breaker says

    def allow(self, version: int, vectors: int) -> int:
        """How many of so many vectors the version may be asked about: all, none, or one as a probe."""
        state = self._state[version]
        if version == self.spared:
            return 0
        if state == Breaker.CLOSED:
            return vectors
        if state == Breaker.OPEN or self._probe_worker[version] + 1 != self._seat[0]:
            return 0
        number = self._probe_number[version]
        if self._probes_used.get(version) == number:
            return 0
        self._probes_used[version] = number
        self._watched[version] = limits.WATCHED_RUNS
        return 1

    def is_closed(self, version: int) -> bool:
        """Whether it may be run for nothing: neither suspect nor barred, and no probe."""
        return version != self.spared and self._state[version] == Breaker.CLOSED

    def began(self, version: int) -> int:
        """Processor time at a run's begin; -1 where nobody looks, because the look costs more than many a model."""
        return time.thread_time_ns() if version in self._watched else -1

    def ended(self, version: int, vectors: int, took_ns: int, began_cpu_ns: int) -> None:
        """Counts a slow run. One that is over its budget by the clock has the next ones timed by processor time."""
        budget_ns = vectors * limits.VECTOR_BUDGET_US * 1000
        if took_ns > budget_ns:
            if began_cpu_ns >= 0 and time.thread_time_ns() - began_cpu_ns > budget_ns:
                self._slow[version] += 1
            self._watched[version] = limits.WATCHED_RUNS
        elif began_cpu_ns >= 0:
            self._watched[version] -= 1
            if self._watched[version] <= 0:
                del self._watched[version]

    def failed(self, version: int, unsound: bool) -> int:
        """Counts it; how many there were."""
        self._unsound[version] += unsound
        self._failures[version] += 1
        return self._failures[version]

    def succeeded(self, version: int) -> None:
        self._successes[version] += 1


def first_loaded(chain: Sequence[int], loaded: Mapping[int, object]) -> int:
    """The best version that there is, -1 if there is none."""
    for row in chain:
        if row in loaded:
            return row
    return -1

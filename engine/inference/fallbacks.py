"""Who answers for whom: each role's order of versions, and whether one may be tried now.

Owns the order and the worker's side of the breakers; run by workers. Reads the version table (breaker
states are the supervisor's), writes this worker's counts of failures and successes. What must stay
true: an open breaker costs no try; a probe number is used once; the order ends at the baseline.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

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
            versions[each] for each in ("breaker", "probe_worker", "probe_number")
        )
        self._failures, self._successes = child["failures"][0], child["successes"][0]
        self._probes_used: dict[int, int] = {}
        self._seat = child["seat"]  # worker index + 1

    def allow(self, version: int) -> bool:
        state = self._state[version]
        if state == Breaker.CLOSED:
            return True
        if state == Breaker.OPEN or self._probe_worker[version] + 1 != self._seat[0]:
            return False
        number = int(self._probe_number[version])
        if self._probes_used.get(version) == number:
            return False
        self._probes_used[version] = number
        return True

    def failed(self, version: int) -> int:
        """Counts it; how many there were."""
        self._failures[version] += 1
        return int(self._failures[version])

    def succeeded(self, version: int) -> None:
        self._successes[version] += 1


def first_loaded(chain: Sequence[int], loaded: Mapping[int, object]) -> int:
    """The best version that there is, -1 if there is none."""
    return next((row for row in chain if row in loaded), -1)

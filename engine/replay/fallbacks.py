"""Who could not be asked, as the taped answer tells: an open breaker or a failure is not in the inputs.

Owns nothing; pure functions over an answer slot and the plans. Runs in the process that replays. What must
stay true: denying what these functions name gives the models that live had; where live had them all,
nothing is denied.
"""

import numpy as np

from engine.contract.names import Status
from engine.inference.batch import DIRECTION, ENSEMBLE, PATTERN, PRICE
from engine.inference.fallbacks import ROLE_COLUMNS, groups, rows_by_id
from engine.tenancy.tiers import BASELINE, VOTE, Role

NOBODY: frozenset[int] = frozenset()


class Chains:
    """Each plan's order of versions by role, and which role a version has."""

    def __init__(self, versions: np.ndarray, plans: np.ndarray) -> None:
        rows = rows_by_id(versions)
        self.vote, self.baseline = rows[VOTE][0], rows[BASELINE][0]
        self.of_plan: dict[int, dict[int, tuple[int, ...]]] = {}
        for group in groups(versions, plans):
            for plan in group.plans:
                self.of_plan.setdefault(plan, {})[group.role] = group.chain
        self.column = {
            int(row): ROLE_COLUMNS[Role(int(versions["role"][row]))]
            for row in np.flatnonzero(versions["taken"])
            if int(row) not in (self.vote, self.baseline)
        }

    def denied(self, plan: int, answer: np.void) -> frozenset[int]:
        """Version rows that did not answer although they come before who did."""
        count = int(answer["contribution_count"])
        fallback = answer["contribution_fallback"][:count]
        if answer["status"] in (Status.EXPIRED, Status.REJECTED) or not fallback.any():
            return NOBODY
        versions = answer["contribution_version"].tolist()[:count]
        chains = self.of_plan.get(plan, {})
        found: set[int] = set()
        roles = {self.column[row] for row in versions if row in self.column}
        for row, stands_in in zip(versions, fallback.tolist(), strict=True):
            if not stands_in:
                continue
            if row in self.column:
                chain = chains.get(self.column[row], ())
                found.update(chain[: chain.index(row)] if row in chain else ())
            elif row == self.vote:
                found.update(chains.get(ENSEMBLE, ()))
            else:  # the baseline names no role; a role whose minutes are too few is not asked anyway
                for role in {PRICE, PATTERN, DIRECTION} - roles:
                    found.update(chains.get(role, ()))
        return frozenset(found)

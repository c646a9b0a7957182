"""Whose vectors are answered by which models of their own: the plan table as ingress looks it up.

Owns the lookup; the supervisor fills the table from the manifests at its start (`registry.plans`), and
it never changes while the engine runs. Ingress reads it and writes a row's number into each slot;
workers take a slot's models by that number. What must stay true: a company's own models answer
nobody but that company's users, and only in a tier that has own models.
"""

from collections.abc import Mapping

import numpy as np

from engine.contract.names import Tier
from engine.tenancy.tiers import PLANS

SHARED = 0  # the plan of a slot that is answered by the shared models of its tier
FIRST_OWN = max(PLANS) + 1  # below are the tiers' own rows, by the tier's number

Plans = Mapping[tuple[str, str, int], int]


def read_plans(table: np.ndarray) -> Plans:
    """Row by (company, user, tier), of those with models of their own; user "": everyone of the company."""
    return {
        (row["company"].decode(), row["user"].decode(), int(row["tier"])): FIRST_OWN + n
        for n, row in enumerate(table[FIRST_OWN:])
        if row["taken"]
    }


def plan_of(plans: Plans, company: str, user: str, tier: int) -> int:
    """The user's own plan, else the company's, else `SHARED`.

    >>> plans = {("acme", "", 3): 4, ("acme", "ann", 3): 5}
    >>> [plan_of(plans, "acme", user, tier) for user, tier in (("ann", 3), ("bob", 3), ("ann", 2))]
    [5, 4, 0]
    >>> plan_of(plans, "other", "ann", 3)
    0
    """
    own = plans.get((company, user, tier))
    return plans.get((company, "", tier), SHARED) if own is None else own


def own_tiers() -> list[Tier]:
    return [plan.tier for plan in PLANS.values() if plan.own_models]

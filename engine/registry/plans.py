"""The plan table: who is answered by which versions, made from the manifests.

Owns its filling; run by the supervisor at the start, before any child. Reads manifests and the rows that
`fill_versions` gave them; writes plan rows. What must stay true: the first rows are the tiers', by
number; a row names own versions of its own company alone.
"""

from collections.abc import Sequence

import numpy as np

from engine.errors import ModelError
from engine.registry.manifest import Manifest
from engine.tenancy.plans import FIRST_OWN, own_tiers
from engine.tenancy.tiers import PLANS, Role


def fill_plans(manifests: Sequence[Manifest], plans: np.ndarray) -> None:
    """One row a tier, then one for each company, and each user of it, with own models.

    manifests: as `read_store` gives them, in the order of their version rows. plans: plan_row array.
    ModelError where the table is too small.
    """
    plans[:] = np.zeros((), plans.dtype)
    plans["own"] = -1
    for tier in PLANS:
        plans[int(tier)]["taken"], plans[int(tier)]["tier"] = 1, int(tier)
    owners = sorted({(each.company, each.user) for each in manifests if each.company})
    # A user's own model brings the company's others with it.
    row = FIRST_OWN
    for company, user in owners:
        own = np.full(len(Role), -1, "i4")
        for owner in dict.fromkeys([(company, ""), (company, user)]):
            for role, version in _newest(manifests, owner).items():
                own[role - 1] = version
        for tier in own_tiers():
            if row == len(plans):
                raise ModelError(
                    f"the model store: expected own models of at most {len(plans) - FIRST_OWN} companies and users, "
                    f"found {len(owners)}; retire some"
                )
            plans[row]["taken"], plans[row]["tier"], plans[row]["own"] = 1, int(tier), own
            plans[row]["company"], plans[row]["user"] = company.encode(), user.encode()
            row += 1


def _newest(manifests: Sequence[Manifest], owner: tuple[str, str]) -> dict[Role, int]:
    """Version row of an owner's model in each role: the last one is the newest, and one model has the role."""
    return {each.role: row for row, each in enumerate(manifests) if (each.company, each.user) == owner}

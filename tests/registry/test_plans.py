"""Who is answered by which models of their own."""

from pathlib import Path

import numpy as np
import pytest

from engine.contract.names import Tier
from engine.errors import ModelError
from engine.registry.manifest import Kind, Manifest
from engine.registry.plans import fill_plans
from engine.tenancy.plans import FIRST_OWN, SHARED, plan_of, read_plans
from engine.tenancy.tiers import Role
from fastpath import layout


def version(model_id: str, role: Role, company: str = "", user: str = "", number: str = "1.0") -> Manifest:
    return Manifest(
        id=model_id, version=number, kind=Kind.OTHER, role=role, folder=Path("store") / model_id / number,
        artefact="model.onnx", sha256="0" * 64, features=(), outputs=(), horizons=(), closed_minutes=0, weight=1.0,
        calibration={}, range={}, training={}, quality={}, company=company, user=user,
    )  # fmt: skip


def table(*manifests: Manifest) -> np.ndarray:
    plans = np.zeros(layout.plans_max, layout.plan_row_dtype)
    fill_plans(manifests, plans)
    return plans


def test_without_own_models_there_are_the_tiers_alone() -> None:
    plans = table(version("basic_lstm", Role.PRICE))
    assert np.flatnonzero(plans["taken"]).tolist() == [int(tier) for tier in Tier]
    assert (plans["own"] == -1).all()
    assert read_plans(plans) == {}


def test_own_models_answer_their_company_in_its_tier_and_nobody_else() -> None:
    plans = table(version("basic_lstm", Role.PRICE), version("theirs", Role.DIRECTION, "acme"))
    found = read_plans(plans)
    assert plan_of(found, "acme", "ann", Tier.ENTERPRISE) == FIRST_OWN
    assert plans["own"][FIRST_OWN].tolist() == [-1, -1, 1, -1]
    for company, user, tier in (
        ("acme", "ann", Tier.PRO),
        ("acme", "ann", Tier.FREE),
        ("other", "ann", Tier.ENTERPRISE),
    ):
        assert plan_of(found, company, user, tier) == SHARED


def test_a_users_own_model_goes_before_the_companys_and_keeps_its_others() -> None:
    plans = table(
        version("for_all", Role.PRICE, "acme"),
        version("for_ann", Role.PRICE, "acme", "Ann Ä"),
        version("sides", Role.DIRECTION, "acme"),
    )
    found = read_plans(plans)
    ann, bob = (plans["own"][plan_of(found, "acme", user, Tier.ENTERPRISE)].tolist() for user in ("Ann Ä", "bob"))
    assert (ann, bob) == ([1, -1, 2, -1], [0, -1, 2, -1])


def test_the_newest_version_of_an_own_model_is_wanted() -> None:
    plans = table(*(version("theirs", Role.PRICE, "acme", number=number) for number in ("1.9", "1.10")))
    assert plans["own"][FIRST_OWN].tolist() == [1, -1, -1, -1]


def test_more_owners_than_rows_are_refused() -> None:
    rows = layout.plans_max - FIRST_OWN
    with pytest.raises(ModelError) as refused:
        table(*(version(f"model_{n}", Role.PRICE, f"company_{n}") for n in range(rows + 1)))
    assert str(refused.value) == (
        f"the model store: expected own models of at most {rows} companies and users, found {rows + 1}; retire some"
    )

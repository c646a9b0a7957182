"""The default policy is the contract's table."""

import doctest
from dataclasses import FrozenInstanceError

import pytest

from engine.contract.names import Tier
from engine.tenancy import tiers
from engine.tenancy.policy import may_operate, may_predict
from engine.tenancy.tiers import ALIASES, BASELINE, BY_SIZE, PLANS, VOTE, ModelName, Role, fallbacks, resolve
from engine.tenancy.tokens import Claims


def wanted(tier: Tier) -> tuple[str | None, ...]:
    return tuple(PLANS[tier].wanted(role) for role in Role)


def test_each_tier_has_the_members_horizons_and_extras_of_the_contract() -> None:
    assert wanted(Tier.FREE) == ("basic_lstm", "simple_pattern", None, VOTE)
    assert wanted(Tier.PRO) == ("advanced_lstm", "cnn_patterns", "xgboost_direction", VOTE)
    assert wanted(Tier.ENTERPRISE) == ("advanced_lstm", "cnn_patterns", "xgboost_direction", "ensemble_meta")
    assert [PLANS[tier].horizons for tier in Tier] == [(1,), (1, 5, 15), (1, 5, 15, 60)]
    assert [(PLANS[tier].cross_asset, PLANS[tier].importance) for tier in Tier] == [
        (False, False),
        (True, True),
        (True, True),
    ]
    assert [PLANS[tier].own_models for tier in Tier] == [False, False, True]
    assert [len(PLANS[tier].inference) for tier in Tier] == [2, 3, 6]


def test_every_wanted_model_is_known_to_its_role_and_falls_back_to_the_baseline() -> None:
    for plan in PLANS.values():
        for role in Role:
            model_id = plan.wanted(role)
            if model_id is not None:
                assert model_id in BY_SIZE[role]
                assert fallbacks(role, model_id)[-1] == BASELINE
                assert model_id not in fallbacks(role, model_id)


def test_own_model_falls_back_to_the_shared_ones_largest_first() -> None:
    assert fallbacks(Role.PRICE, "acme_lstm") == ("advanced_lstm", "basic_lstm", BASELINE)
    assert fallbacks(Role.ENSEMBLE, "ensemble_meta") == (VOTE, BASELINE)


def test_aliases_lead_to_bundled_models() -> None:
    assert resolve("lstm_price") == ModelName("advanced_lstm", None)
    assert resolve("lstm_price_v2.1") == ModelName("advanced_lstm", "2.1")
    assert resolve("cnn_patterns_v1.8") == ModelName("cnn_patterns", "1.8")
    assert resolve("xgboost_direction_v3.2") == ModelName("xgboost_direction", "3.2")
    assert resolve("ensemble_meta_v1.5") == ModelName("ensemble_meta", "1.5")
    assert resolve("basic_lstm") == ModelName("basic_lstm", None)
    assert {name.model_id for name in ALIASES.values()} <= set(PLANS[Tier.ENTERPRISE].inference)


def test_policy_cannot_be_changed_in_passing() -> None:
    with pytest.raises(FrozenInstanceError):
        PLANS[Tier.FREE].horizons = (1, 5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        PLANS[Tier.FREE] = PLANS[Tier.PRO]  # type: ignore[index]


def test_examples_in_the_documentation_are_true() -> None:
    assert doctest.testmod(tiers).failed == 0


def caller(company_id: str, *scopes: str) -> Claims:
    return Claims("u", company_id, Tier.FREE, frozenset(scopes), 0.0, 1.0)


def test_scope_decides_what_a_caller_may_do() -> None:
    assert may_predict(caller("acme", "predict"))
    assert not may_predict(caller("acme", "models:read", "operator", "predict2"))


def test_operator_scope_counts_for_the_operator_company_only() -> None:
    assert may_operate(caller("house", "operator"), "house")
    assert not may_operate(caller("acme", "operator"), "house")
    assert not may_operate(caller("house", "predict"), "house")
    assert not may_operate(caller("", "operator"), "")

"""Which models answer a tier, how far ahead, with which extras: the default policy as one table.

Owns the table and the names of the models in it; no state. Every process imports it: workers for
plans and fallbacks, ingress for nothing but the tier, control and serving for what a caller may use.
Reads and writes nothing. What must stay true: a tier's members, horizons and extras are the
contract's; each role's fallbacks end at the baseline, which cannot fail; the tables never change
while a process runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from engine.contract.names import HORIZON_MINUTES, Tier


class Role(IntEnum):
    """What a model decides. A manifest names the role in lower case; `version_row.role` holds the number."""

    PRICE = 1
    PATTERN = 2
    DIRECTION = 3
    ENSEMBLE = 4

    @property
    def word(self) -> str:
        return self.name.lower()


VOTE = "vote"  # the weighted vote of the members: not an artefact, always there
BASELINE = "baseline"  # no move, HOLD, base rates, a wider interval: the last fallback of every role


@dataclass(frozen=True, slots=True)
class Plan:
    """What one tier gets.

    `price`, `pattern`, `direction` and `ensemble` are the model ids that are wanted; None: the tier
    has nobody in that role. `inference` lists what may be called one by one over REST and gRPC.
    """

    tier: Tier
    price: str
    pattern: str
    direction: str | None
    ensemble: str
    horizons: tuple[int, ...]  # minutes, shortest first
    cross_asset: bool  # the producer's correlations reach the models
    importance: bool  # answers carry feature importances
    own_models: bool  # the company's and the user's own models stand in for the shared one of their role
    inference: tuple[str, ...]

    def wanted(self, role: Role) -> str | None:
        """The model id that is to decide this role, None where the tier has none."""
        return {
            Role.PRICE: self.price,
            Role.PATTERN: self.pattern,
            Role.DIRECTION: self.direction,
            Role.ENSEMBLE: self.ensemble,
        }[role]


PLANS: Mapping[Tier, Plan] = MappingProxyType(
    {
        Tier.FREE: Plan(
            tier=Tier.FREE,
            price="basic_lstm",
            pattern="simple_pattern",
            direction=None,
            ensemble=VOTE,
            horizons=HORIZON_MINUTES[:1],
            cross_asset=False,
            importance=False,
            own_models=False,
            inference=("basic_lstm", "simple_pattern"),
        ),
        Tier.PRO: Plan(
            tier=Tier.PRO,
            price="advanced_lstm",
            pattern="cnn_patterns",
            direction="xgboost_direction",
            ensemble=VOTE,
            horizons=HORIZON_MINUTES[:3],
            cross_asset=True,
            importance=True,
            own_models=False,
            inference=("advanced_lstm", "cnn_patterns", "xgboost_direction"),
        ),
        Tier.ENTERPRISE: Plan(
            tier=Tier.ENTERPRISE,
            price="advanced_lstm",
            pattern="cnn_patterns",
            direction="xgboost_direction",
            ensemble="ensemble_meta",
            horizons=HORIZON_MINUTES,
            cross_asset=True,
            importance=True,
            own_models=True,
            inference=(
                "basic_lstm",
                "advanced_lstm",
                "simple_pattern",
                "cnn_patterns",
                "xgboost_direction",
                "ensemble_meta",
            ),
        ),
    }
)

# The shared models of each role, the largest first. Whoever cannot answer is replaced by the next
# smaller one, whatever tier that one belongs to.
BY_SIZE: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        Role.PRICE: ("advanced_lstm", "basic_lstm"),
        Role.PATTERN: ("cnn_patterns", "simple_pattern"),
        Role.DIRECTION: ("xgboost_direction",),
        Role.ENSEMBLE: ("ensemble_meta", VOTE),
    }
)


def fallbacks(role: Role, model_id: str) -> tuple[str, ...]:
    """Who answers instead of `model_id`, in order: the smaller shared models of the role, then the baseline.

    A company's own model has no place in the order of sizes: all shared models of its role stand in
    for it. The version before the failed one comes ahead of all of these; it is the same model id.

    >>> fallbacks(Role.PRICE, "advanced_lstm")
    ('basic_lstm', 'baseline')
    >>> fallbacks(Role.PATTERN, "simple_pattern")
    ('baseline',)
    """
    shared = BY_SIZE[role]
    smaller = shared[shared.index(model_id) + 1 :] if model_id in shared else shared
    return (*smaller, BASELINE)


class ModelName(NamedTuple):
    """A model as callers name it; version None: the one that is live."""

    model_id: str
    version: str | None


ALIASES: Mapping[str, ModelName] = MappingProxyType(
    {
        "lstm_price": ModelName("advanced_lstm", None),
        "lstm_price_v2.1": ModelName("advanced_lstm", "2.1"),
        "cnn_patterns_v1.8": ModelName("cnn_patterns", "1.8"),
        "xgboost_direction_v3.2": ModelName("xgboost_direction", "3.2"),
        "ensemble_meta_v1.5": ModelName("ensemble_meta", "1.5"),
    }
)


def resolve(name: str) -> ModelName:
    """The model behind a name: an alias's, else the name itself in its live version.

    >>> resolve("lstm_price_v2.1")
    ModelName(model_id='advanced_lstm', version='2.1')
    """
    return ALIASES.get(name, ModelName(name, None))

"""Manifests' numbers as arrays that kernels read.

Owns their shapes and what a missing number means; run by workers at load. What must stay true: a list
of another length than its model needs is an error at load, never a wrong answer later.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.contract.names import Tier
from engine.errors import ModelError
from engine.inference.batch import ENSEMBLE
from engine.inference.ensemble import BASE_Q, BASE_RATES, Book, Extras
from engine.inference.fallbacks import Group
from engine.inference.features import FEATURE_NAMES
from engine.inference.windows import BOUNDS
from engine.registry.manifest import Kind, Manifest
from engine.tenancy.tiers import PLANS, Role
from fastpath import layout

RANGE_OF = f": of {', '.join(FEATURE_NAMES)} and sigma, in this order, whatever `features` names"


def new_book(versions: int, vote: int, baseline: int) -> Book:
    book = Book(versions, vote, baseline)
    book.q[:], book.touch[:], book.label_rates[:], book.rise_rates[:] = BASE_Q, 1.0 - BASE_RATES[1], BASE_RATES, 0.5
    book.side[:] = book.touch_slope[:] = 1.0
    return book


def _numbers(
    manifest: Manifest, table: str, name: str, count: int, low: float, high: float, of: str = ""
) -> np.ndarray:
    file = manifest.folder / "model.toml"
    values: Mapping[str, tuple[float, ...]] = getattr(manifest, table)
    found = np.array(values.get(name, ()))
    if len(found) != count or (found < low).any() or (found > high).any():
        raise ModelError(
            f"{file}: {table}.{name}: expected {count} numbers from {low:g} to {high:g}{of}, found {_counted(found)}; "
            "correct the manifest"
        )
    return found


def _counted(found: np.ndarray) -> str:
    return f"{found.tolist()}" if len(found) < 5 else f"{len(found)} numbers from {found.min():g} to {found.max():g}"


def enter_version(book: Book, row: int, manifest: Manifest) -> None:
    """One version's constants; ModelError if its manifest lacks one that its role needs."""
    book.weight[row] = manifest.weight
    if manifest.role == Role.PRICE:
        book.q[row] = _numbers(manifest, "calibration", "q", layout.horizons, 0.05, 50.0)
        bounds_of(manifest)
        if "label" in manifest.calibration:
            book.touch[row], book.side[row] = _numbers(manifest, "calibration", "label", 2, 0.0, 1.0)
    elif manifest.role == Role.PATTERN:
        rates = _numbers(manifest, "calibration", "label_rates", 9, 0.0, 1.0).reshape(3, 3)
        book.label_rates[row] = rates / rates.sum(axis=1, keepdims=True)
        book.rise_rates[row] = _numbers(manifest, "calibration", "rise_rates", 3, 0.0, 1.0)
        book.touch_bias[row] = _numbers(manifest, "calibration", "touch_bias", layout.patterns_max, -20.0, 20.0)
        (book.touch_slope[row],) = _numbers(manifest, "calibration", "touch_slope", 1, 0.0, 20.0)
    elif manifest.kind == Kind.XGBOOST:
        for name, count in (("slope", 1), ("bias", 3)):
            if name in manifest.calibration:
                _numbers(manifest, "calibration", name, count, -100.0, 100.0)
        book.shap_count[row] = min(len(manifest.features) + 1, layout.shap_max)


def bounds_of(manifest: Manifest) -> np.ndarray:
    """(features and volatility, low and high) of what the model's training saw."""
    low = _numbers(manifest, "range", "low", BOUNDS, -1e6, 1e6, RANGE_OF)
    high = _numbers(manifest, "range", "high", BOUNDS, -1e6, 1e6, RANGE_OF)
    return np.stack([low, high], axis=1)


def no_bounds() -> np.ndarray:
    return np.broadcast_to([-np.inf, np.inf], (layout.plans_max, BOUNDS, 2)).copy()


def plan_table(plans: np.ndarray, groups: Sequence[Group]) -> tuple[Extras, np.ndarray]:
    """What each plan gets, and whether correlations reach its models."""
    extras = Extras(len(plans))
    cross_asset = np.zeros(len(plans), "u1")
    for row in np.flatnonzero(plans["taken"]):
        plan = PLANS[Tier(int(plans["tier"][row]))]
        extras.horizons[row] = len(plan.horizons)
        extras.direction[row] = plan.direction is not None
        extras.importance[row] = plan.importance
        extras.stacked[row] = any(row in group.plans for group in groups if group.role == ENSEMBLE)
        cross_asset[row] = plan.cross_asset
    return extras, cross_asset

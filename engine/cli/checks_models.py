"""What `check` says about the model store: each version opened, run and compared with its golden rows as a worker does.

Owns the questions, no state. Runs in the process of `check`; reads model files. What must stay true: a
version that is called ok here is not left out by a worker, and every one that would be is told.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.findings import FAIL, OK, WARN, Finding
from engine.errors import ModelError
from engine.settings import Settings

if TYPE_CHECKING:
    from engine.registry.manifest import Manifest

OTHERS = "all other versions answer without it"


def models(settings: Settings) -> Iterator[Finding]:
    from engine.registry.manifest import read_store

    store, refused = Path(settings.models.path), list[ModelError]()
    try:
        manifests = read_store(store, refused.append)
    except ModelError as error:
        for each in (*refused, error):
            yield Finding(FAIL, "models", str(each))
        return
    for each in refused:
        yield Finding(FAIL, "models", str(each), OTHERS)
    whole, slower = [], []
    for manifest in manifests:
        try:
            slow = _open(manifest)
        except ModelError as error:
            yield Finding(FAIL, "models", f"{shown(manifest)}: {error}", OTHERS)
        else:
            whole.append(manifest)
            if slow:
                slower.append(Finding(OK, "models", f"{shown(manifest)}: {slow}"))
    try:
        _fill(manifests)
    except ModelError as error:
        yield Finding(FAIL, "models", str(error))
    if whole:
        yield Finding(OK, "models", ", ".join(map(shown, whole)))
    yield from slower
    yield from _missing_models({manifest.id for manifest in manifests})


def shown(manifest: "Manifest") -> str:
    """With whose it is: northwind_gbt 1.0 (northwind's direction)."""
    return f"{manifest.name} ({manifest.owner}'s {manifest.role.word})" if manifest.company else manifest.name


def _open(manifest: "Manifest") -> str:
    """How it is run by a slower way, and why; ModelError where the version cannot be used."""
    from engine.inference import constants
    from engine.inference.models.lstm import PriceModel
    from engine.inference.models.trees import DirectionModel
    from engine.inference.opening import opened
    from engine.inference.proof import prove

    model = opened(manifest, constants.new_book(1, 0, 0), 0)
    prove(model)
    if isinstance(model, PriceModel) and model.unfit:
        return f"ONNX Runtime runs its whole window for each vector: {model.unfit}"
    return model.slower if isinstance(model, DirectionModel) else ""


def _fill(manifests: "list[Manifest]") -> None:
    """ModelError where the shared tables are too small for the store."""
    import numpy as np

    from engine import limits
    from engine.registry.manifest import fill_versions
    from engine.registry.plans import fill_plans
    from fastpath import layout

    names = np.zeros(limits.FEATURE_NAMES_MAX, f"S{limits.FEATURE_NAME_BYTES}")
    fill_versions(manifests, np.zeros(limits.VERSIONS_MAX, layout.version_row_dtype), names)
    fill_plans(manifests, np.zeros(layout.plans_max, layout.plan_row_dtype))


def _missing_models(there: set[str]) -> Iterator[Finding]:
    """Models that some tier is to be answered by, and who answers in their place."""
    from engine.tenancy.tiers import BASELINE, BY_SIZE, PLANS, VOTE, Role, fallbacks

    always = {VOTE, BASELINE}
    for role in Role:
        wanted = {plan.wanted(role) for plan in PLANS.values()}
        for model_id in BY_SIZE[role]:
            if model_id in wanted - there - always:
                stand_in = next(each for each in fallbacks(role, model_id) if each in there | always)
                detail = f"{model_id} is not in the store: {stand_in} answers in its place, marked DEGRADED"
                yield Finding(WARN, "models", detail, "add it, for answers of full quality")

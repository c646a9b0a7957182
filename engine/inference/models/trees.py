"""Direction models: boosted trees, their chances and their exact SHAP values.

Owns one version's trees; run by workers. Reads the microbatch's columns, writes `direction` and, where the tier
has it, `shap`. What must stay true: margins and SHAP values are XGBoost's own (`predict`, `pred_contribs`) to float32
rounding; trees that `fastpath.trees` would read otherwise than XGBoost are refused.
"""

import json
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import COLUMN_NAMES, DIRECTION, Batch, Output
from engine.inference.models.names import check_names
from engine.registry.manifest import Manifest, read_artefact
from fastpath.packing import Nodes
from fastpath.trees import Trees

CLASSES = 3  # sell, hold, buy


class Parts(NamedTuple):
    """What `Trees` is made of."""

    trees: list[Nodes]
    of_class: list[int]
    base: list[float]
    inputs: int


def read_parts(learner: dict[str, Any]) -> Parts:
    """From XGBoost's own JSON; ValueError where it holds something else than trees of numbers."""
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree":
        raise ValueError(f"expected a gbtree booster, found {booster['name']}; train it so")
    every = booster["model"]["trees"]
    if any(any(tree["split_type"]) for tree in every):
        raise ValueError("expected splits by numbers, found splits by categories; train it with numbers")
    nodes = [
        Nodes(
            left=tree["left_children"],
            right=tree["right_children"],
            feature=tree["split_indices"],
            below=tree["split_conditions"],
            missing_left=tree["default_left"],
            value=tree["split_conditions"],  # a leaf keeps its value where a split has its condition
            cover=tree["sum_hessian"],
        )
        for tree in every
    ]
    told = learner["learner_model_param"]
    base = np.asarray(json.loads(told["base_score"]), "f8").reshape(-1)
    classes = max(1, int(told["num_class"]))
    return Parts(
        nodes, booster["model"]["tree_info"], np.broadcast_to(base, classes).tolist(), int(told["num_feature"])
    )


class DirectionModel:
    role = DIRECTION

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.slower = ""  # why SHAP values take longer than they could; empty: they do not
        self._bound: tuple[Batch, Output] | None = None

    def open(self) -> None:
        import xgboost  # slow to import, and needed here alone

        check_names(self.manifest, COLUMN_NAMES)
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(read_artefact(self.manifest)))
            learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise ModelError(
                f"{self.manifest.path}: expected an XGBoost model, found: {str(error).splitlines()[0]}; save it again"
            ) from error
        objective = learner["objective"]["name"]
        if objective != "multi:softprob" or int(learner["learner_model_param"]["num_class"]) != CLASSES:
            raise ModelError(
                f"{self.manifest.path}: expected multi:softprob over {CLASSES} classes, found {objective}; train it so"
            )
        if booster.num_features() != len(self.manifest.features):
            raise ModelError(
                f"{self.manifest.path}: expected {len(self.manifest.features)} features, as in its manifest, "
                f"found {booster.num_features()}"
            )
        try:
            self.trees = Trees(*read_parts(learner))
        except ValueError as error:
            raise ModelError(f"{self.manifest.path}: {error}") from error
        if self.trees.without_table:
            self.slower = (
                f"{self.trees.without_table} of {self.trees.count} trees are too deep or too many for tables, and "
                "explained edge by edge"
            )
        self._columns = np.array([COLUMN_NAMES.index(name) for name in self.manifest.features])
        self._slope = float(self.manifest.calibration.get("slope", (1.0,))[0])
        self._bias = np.array(self.manifest.calibration.get("bias", (0.0,) * CLASSES))

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        if self._bound is None or self._bound[0] is not batch or self._bound[1] is not output:
            self.trees.bind(
                batch.columns, self._columns, self._slope, self._bias, batch.plan, output.direction, output.shap
            )
            self._bound = batch, output
        self.trees.run(slots, importance)

    def sound(self, slots: list[int], output: Output) -> bool:
        """Of the output that was written last."""
        return self.trees.sound(slots)

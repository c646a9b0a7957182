"""Direction models: boosted trees, their chances and their exact SHAP values.

Owns one version's trees as flat arrays; run by workers. Reads the microbatch's columns, writes
`direction` and, where the tier has it, `shap`. What must stay true: margins and SHAP values are
XGBoost's own (`predict`, `pred_contribs`) to float32 rounding.
"""

import json
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ModelError
from engine.inference.batch import COLUMN_NAMES, DIRECTION, Batch, Output, are_chances, are_finite
from engine.inference.jit import kernel
from engine.inference.models.names import check_names
from engine.inference.shap import DEPTH_MAX, Leaves, explain
from engine.registry.manifest import Manifest, read_artefact

CLASSES = 3  # sell, hold, buy


class Trees(NamedTuple):
    """Nodes of all trees, one after another; a leaf's `left` is -1."""

    root: np.ndarray  # of each tree
    of_class: np.ndarray  # of each tree
    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    below: np.ndarray  # go left when the feature is less
    missing_left: np.ndarray
    value: np.ndarray  # of a leaf
    base: np.ndarray  # margin of each class before any tree


@kernel
def margins(trees, columns, out):
    """Sum of the leaves that the columns lead to, by class."""
    out[:] = trees.base
    for t in range(len(trees.root)):
        node = trees.root[t]
        while trees.left[node] >= 0:
            x = columns[trees.feature[node]]
            goes_left = x < trees.below[node] or (np.isnan(x) and trees.missing_left[node] != 0)
            node = trees.left[node] if goes_left else trees.right[node]
        out[trees.of_class[t]] += trees.value[node]


@kernel
def decide(trees, columns, chosen, slope, bias, row, margin, out):
    """Calibrated chances of the classes, softmax of slope * margin + bias; `row` becomes the model's own inputs."""
    for n in range(len(chosen)):
        row[n] = columns[chosen[n]]
    margins(trees, row, margin)
    high = -np.inf
    for k in range(CLASSES):
        out[k] = slope * margin[k] + bias[k]
        high = max(high, out[k])
    total = 0.0
    for k in range(CLASSES):
        out[k] = np.exp(out[k] - high)
        total += out[k]
    out /= total


def flatten(model: dict[str, Any]) -> tuple[Trees, list[dict[str, Any]]]:
    """XGBoost's own JSON as flat arrays, and the trees as they were."""
    learner = model["learner"]
    every = learner["gradient_booster"]["model"]
    trees = every["trees"]
    sizes = np.array([len(tree["left_children"]) for tree in trees])
    root = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def column(name: str, dtype: str) -> np.ndarray:
        return np.concatenate([np.asarray(tree[name], dtype) for tree in trees])

    shift = np.repeat(root, sizes)
    left, right = column("left_children", "i4"), column("right_children", "i4")
    base = np.asarray(json.loads(learner["learner_model_param"]["base_score"]), "f8").reshape(-1)
    return Trees(
        root=root.astype("i4"),
        of_class=np.asarray(every["tree_info"], "i4"),
        left=np.where(left >= 0, left + shift, -1).astype("i4"),
        right=np.where(left >= 0, right + shift, -1).astype("i4"),
        feature=column("split_indices", "i4"),
        below=column("split_conditions", "f4"),
        missing_left=column("default_left", "u1"),
        value=column("split_conditions", "f4").astype("f8"),  # a leaf keeps its value where a split has its condition
        base=np.broadcast_to(base, CLASSES).copy(),
    ), trees


class DirectionModel:
    role = DIRECTION

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._margin, self._row = np.zeros(CLASSES), np.zeros(len(manifest.features), "f4")
        self._scratch = np.zeros((3, max(DEPTH_MAX, len(manifest.features)) + 1))

    def open(self) -> None:
        import xgboost  # slow to import, and needed here alone

        check_names(self.manifest, COLUMN_NAMES)
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(read_artefact(self.manifest)))
            model = json.loads(bytes(booster.save_raw("json")))
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise ModelError(
                f"{self.manifest.path}: expected an XGBoost model, found: {str(error).splitlines()[0]}; save it again"
            ) from error
        objective = model["learner"]["objective"]["name"]
        if objective != "multi:softprob" or int(model["learner"]["learner_model_param"]["num_class"]) != CLASSES:
            raise ModelError(
                f"{self.manifest.path}: expected multi:softprob over {CLASSES} classes, found {objective}; train it so"
            )
        if booster.num_features() != len(self.manifest.features):
            raise ModelError(
                f"{self.manifest.path}: expected {len(self.manifest.features)} features, as in its manifest, "
                f"found {booster.num_features()}"
            )
        self._columns = np.array([COLUMN_NAMES.index(name) for name in self.manifest.features])
        self.trees, trees = flatten(model)
        self.leaves = [Leaves.of_class(self.manifest.path, trees, self.trees.of_class, k) for k in range(CLASSES)]
        self._slope = float(self.manifest.calibration.get("slope", (1.0,))[0])
        self._bias = np.array(self.manifest.calibration.get("bias", (0.0,) * CLASSES))

    def run(self, slots: list[int], batch: Batch, output: Output, importance: np.ndarray) -> None:
        for i in slots:
            row, chance = self._row, output.direction[i]
            decide(self.trees, batch.columns[i], self._columns, self._slope, self._bias, row, self._margin, chance)
            if importance[batch.plan[i]]:
                primary = int(chance.argmax())
                explain(self.leaves[primary].arrays, row, self.trees.base[primary], self._scratch, output.shap[i])

    def sound(self, slots: list[int], output: Output) -> bool:
        return all(are_chances(output.direction[i]) and are_finite(output.shap[i]) for i in slots)

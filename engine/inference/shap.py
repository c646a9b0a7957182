"""Exact SHAP values of boosted trees, leaf by leaf.

Owns the kernel and the arrays it reads; run by workers. What must stay true: the values are those of
the path-dependent algorithm of Lundberg, Erion and Lee (Consistent Individualized Feature Attribution
for Tree Ensembles, 2018), which XGBoost's `pred_contribs` computes.

A leaf of a tree gives its value to whoever meets the conditions on its path. Take the path's distinct
features: knowing one, the condition is met or not (one, 0 or 1); not knowing it, it is met with the
share of the training data that went that way (zero). The Shapley value of a feature over the leaf is
value * (one - zero) * sum over sets of the other features of |S|! (n - |S| - 1)! / n! times the
product of ones in S and of zeros outside; the sums over sets of equal size are coefficients of the
polynomial prod (zero_j + one_j t), built once a feature. Paths are short, so this is cheap.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.errors import ModelError
from engine.inference.jit import kernel

DEPTH_MAX = 16
SHARES = np.zeros((DEPTH_MAX + 1, DEPTH_MAX))  # [n, s] = s! (n - s - 1)! / n!
for _n in range(1, DEPTH_MAX + 1):
    for _s in range(_n):
        SHARES[_n, _s] = math.factorial(_s) * math.factorial(_n - _s - 1) / math.factorial(_n)


class LeafArrays(NamedTuple):
    """Leaves of one class; conditions of leaf k are first[k] to first[k + 1]."""

    value: np.ndarray
    first: np.ndarray
    feature: np.ndarray
    low: np.ndarray  # met when low <= x < high ...
    high: np.ndarray
    missing: np.ndarray  # ... or when x is missing and all splits send such on
    zero: np.ndarray  # share of the training data that met it
    expected: float  # value of all trees when nothing is known


class Leaves:
    """Built once at load from XGBoost's trees."""

    def __init__(self, arrays: LeafArrays) -> None:
        self.arrays = arrays

    @classmethod
    def of_class(cls, path: Path, trees: list[dict[str, Any]], of_class: np.ndarray, k: int) -> "Leaves":
        values: list[float] = []
        first = [0]
        conditions: list[tuple[int, float, float, int, float]] = []
        expected = 0.0
        for tree, tree_class in zip(trees, of_class, strict=True):
            if tree_class != k:
                continue
            for value, met in _leaves(tree):
                if len(met) > DEPTH_MAX:
                    raise ModelError(
                        f"{path}: expected at most {DEPTH_MAX} features on a path, found {len(met)}; "
                        "train shallower trees"
                    )
                values.append(value)
                conditions += [(feature, *bounds) for feature, bounds in met.items()]
                first.append(len(conditions))
                expected += value * math.prod(bounds[3] for bounds in met.values())
        columns = list(zip(*conditions, strict=True)) or [()] * 5
        return cls(
            LeafArrays(
                value=np.array(values),
                first=np.array(first),
                feature=np.array(columns[0], "i8"),
                low=np.array(columns[1], "f4"),
                high=np.array(columns[2], "f4"),
                missing=np.array(columns[3], "u1"),
                zero=np.array(columns[4], "f8"),
                expected=expected,
            )
        )


def _leaves(tree: dict[str, Any]) -> list[tuple[float, dict[int, tuple[float, float, int, float]]]]:
    """Each leaf's value and what its path asks of each feature: low, high, missing is fine, share."""
    found = []
    stack: list[tuple[int, dict[int, tuple[float, float, int, float]]]] = [(0, {})]
    while stack:
        node, met = stack.pop()
        if tree["left_children"][node] < 0:
            found.append((float(tree["split_conditions"][node]), met))
            continue
        feature, below = tree["split_indices"][node], float(tree["split_conditions"][node])
        low, high, missing, share = met.get(feature, (-math.inf, math.inf, 1, 1.0))
        for child, left in ((tree["left_children"][node], True), (tree["right_children"][node], False)):
            part = tree["sum_hessian"][child] / tree["sum_hessian"][node]
            stays = missing and bool(tree["default_left"][node]) == left
            bounds = (low, min(high, below)) if left else (max(low, below), high)
            stack.append((child, {**met, feature: (*bounds, int(stays), share * part)}))
    return found


@kernel
def explain(leaves, row, base, scratch, out):
    """out[: features + 1]: one value a feature, then the bias; they sum to the margin.

    scratch: (3, n) float64, n above the number of features and DEPTH_MAX; sums are kept in it, because
    `out` may be float32.
    """
    one, sums, values = scratch[0], scratch[1], scratch[2]
    values[: len(row)] = 0.0
    for k in range(len(leaves.value)):
        first, count = leaves.first[k], leaves.first[k + 1] - leaves.first[k]
        for a in range(count):
            x = row[leaves.feature[first + a]]
            if np.isnan(x):
                one[a] = leaves.missing[first + a]
            else:
                one[a] = 1.0 if leaves.low[first + a] <= x < leaves.high[first + a] else 0.0
        for a in range(count):
            sums[0], size = 1.0, 0
            for b in range(count):
                if b == a:
                    continue
                zero = leaves.zero[first + b]
                sums[size + 1] = sums[size] * one[b]
                for s in range(size, 0, -1):
                    sums[s] = sums[s] * zero + sums[s - 1] * one[b]
                sums[0] *= zero
                size += 1
            total = 0.0
            for s in range(size + 1):
                total += sums[s] * SHARES[count, s]
            values[leaves.feature[first + a]] += leaves.value[k] * (one[a] - leaves.zero[first + a]) * total
    out[: len(row)] = values[: len(row)]
    out[len(row)] = base + leaves.expected

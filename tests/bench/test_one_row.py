"""The benchmark of trees in small, and the file that its baseline reads."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.goals import GOALS
from bench.onnx_file import trees_file
from bench.trees import WHO, cases


def test_every_way_gets_a_figure_and_all_ways_agree(tmp_path):
    command = [sys.executable, "-m", "bench.trees", "--seconds", "0.5", "--seed", "5", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed 5, 0.5 s" in done.stdout
    assert "goal (at most 15 us): 100 trees of depth 5, SHAP values: " in done.stdout
    found = json.loads((tmp_path / "trees.json").read_text())
    assert all(figure["measured"] and figure["baseline"] for figure in found["figures"].values())
    assert {goal.figure for goal in GOALS if goal.bench == "trees"} == set(found["figures"])
    assert [each["name"] for each in found["cases"]] == ["100 trees of depth 5", "xgboost_direction"]
    for case in found["cases"]:
        assert set(case["times_ns"]) == set(WHO)
        assert all(all(rounds) for rounds in case["times_ns"].values())
        assert set(case["ratios_of_medians"]) == {"run", "margins", "values", "edges"}
        assert (case["different"], case["compared"] > 0) == (0, True)
        assert set(case["errors"]) == {"margins", "onnxruntime", "values", "edges", "sum"}
        assert max(case["errors"].values()) < 1e-5


def test_the_made_up_trees_are_as_many_and_as_deep_as_is_said():
    parts = cases(7)[0].parts
    assert len(parts.trees) == 100
    for tree in parts.trees:
        depth = [0] * len(tree.left)
        for node, (left, right) in enumerate(zip(tree.left, tree.right, strict=True)):
            if left >= 0:
                depth[left] = depth[right] = depth[node] + 1
        assert max(depth) == 5
    leaves = np.mean([tree.left.count(-1) for tree in parts.trees])
    assert leaves > 24  # of 32


def test_the_baselines_file_is_an_onnx_file():
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(trees_file(*cases(8)[0].parts)), full_check=True)

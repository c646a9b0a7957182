"""The LSTM benchmark in small, and the file that its baseline reads."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.lstm import WHO, made_up
from bench.onnx_file import lstm_file
from engine.inference.models.recurrent import read_weights


def test_every_way_gets_a_figure_and_all_ways_agree(tmp_path):
    command = [sys.executable, "-m", "bench.lstm", "--seconds", "0.5", "--seed", "5", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "seed 5, 0.5 s" in done.stdout
    assert "goal (at most 3 us at p99): 2 x 100 units, 100 inputs: " in done.stdout
    found = json.loads((tmp_path / "lstm.json").read_text())
    assert [each["name"] for each in found["cases"]] == ["2 x 100 units, 100 inputs", "advanced_lstm", "basic_lstm"]
    for case in found["cases"]:
        assert set(case["times_ns"]) == set(WHO)
        assert all(any(case["times_ns"][name]) for name in ("lanes", "whole", "onnxruntime", "work", "refill"))
        assert (case["different"], case["compared"] > 0, case["error"] < 1e-5) == (0, True, True)


def test_the_baselines_file_holds_the_weights_that_the_lanes_have():
    rng = np.random.default_rng(6)
    layers = [
        tuple(rng.normal(0, 1, shape).astype("f4") for shape in ((4 * units, wide), (4 * units, units), (4 * units,)))
        for wide, units in ((3, 5), (5, 2))
    ]
    heads = [(rng.normal(0, 1, (2, count)).astype("f4"), rng.normal(0, 1, count).astype("f4")) for count in (3, 4)]
    found = read_weights(lstm_file(layers, heads, 10))
    assert found.linear == 3
    for read, written in zip(found.layers, layers, strict=True):
        for a, b in zip(read, written, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found.head_w, np.concatenate([w.T for w, _ in heads]))
    np.testing.assert_array_equal(found.head_bias, np.concatenate([bias for _, bias in heads]))


def test_the_baselines_file_is_an_onnx_file():
    onnx = pytest.importorskip("onnx")
    onnx.checker.check_model(onnx.load_from_string(made_up(1, 7, (4, 3, 2))), full_check=True)

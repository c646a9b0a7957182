"""The ensemble's graph by the engine's own kernel: ONNX Runtime's answers, and every other graph left to it."""

import numpy as np
import pytest

from engine.inference.models.onnx_graph import Unfit
from engine.inference.models.stacker import FIRST_DIRECTION, MEMBERS, StackerModel
from engine.inference.models.stacking import read_stack, stack
from engine.registry.manifest import read_manifest
from tests.fastpath.texts import whole
from tests.inference.conftest import STORE

FOLDER = STORE / "ensemble_meta" / "1.5"
FILE = (FOLDER / "model.onnx").read_bytes()


def members(rng: np.random.Generator) -> np.ndarray:
    row = rng.normal(0.0, 1.5, MEMBERS).astype("f4")
    chances = rng.dirichlet((0.3, 0.3, 0.3))
    row[FIRST_DIRECTION - 1 :][:4] = rng.choice([(1.0, *chances), (1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)])
    return row


def test_own_answers_are_onnx_runtimes():
    print("seed 81")
    rng = np.random.default_rng(81)
    own, oracle = StackerModel(read_manifest(FOLDER)), StackerModel(read_manifest(FOLDER))
    own.open()
    oracle.open()
    assert own.unfit == ""
    oracle._session.open()
    oracle.unfit = "asked for"
    found = np.zeros((2, 3))
    for _ in range(500):
        row = members(rng)
        own.run_members(row, found[0])
        oracle.run_members(row, found[1])
        np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-6)
        assert abs(found[0].sum() - 1.0) < 1e-12


def test_what_is_not_known_is_not_hidden():
    weights, hidden, out = read_stack(FILE, MEMBERS, FIRST_DIRECTION), np.zeros(8), np.zeros(3)
    print("seed 82")
    for at in (0, FIRST_DIRECTION, MEMBERS - 1):
        row = members(np.random.default_rng(82))
        row[at] = np.nan
        stack(*weights, row, FIRST_DIRECTION, hidden, out)
        assert np.isnan(out).all()


def swapped(old: bytes, new: bytes) -> bytes:
    """The bundled graph with other bytes of the same length."""
    assert len(old) == len(new)
    assert old in FILE
    return FILE.replace(old, new)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ((STORE / "simple_pattern" / "1.0" / "model.onnx").read_bytes(), "it has 9 nodes, not 13"),
        (swapped(b"\x04Tanh", b"\x04Relu"), "Relu hidden: expected Tanh of 1 inputs here"),
        (swapped(b"\x0a\x04logs", b"\x0a\x04base"), "Mul own: expected logs, found base"),
        (swapped(b"\x0a\x06hidden", b"\x0a\x06direct"), "Gemm change: expected hidden, found direct"),
    ],
)
def test_other_graphs_are_left_to_onnx_runtime(data, found):
    with pytest.raises(Unfit, match=whole(found)):
        read_stack(data, MEMBERS, FIRST_DIRECTION)


def test_weights_of_another_row_are_left_to_onnx_runtime():
    with pytest.raises(Unfit, match=whole("w1: expected a constant of shape (23, 8)")):
        read_stack(FILE, MEMBERS + 1, FIRST_DIRECTION)
    with pytest.raises(Unfit, match=whole("mask_begin: expected a constant of 16")):
        read_stack(FILE, MEMBERS, FIRST_DIRECTION - 1)

"""Boosted trees against XGBoost's own: margins and contributions, whatever a row holds, in whatever order rows come."""

import json
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.inference.models.trees import read_parts
from fastpath.packing import PATH_MAX, Nodes
from fastpath.trees import Trees
from tests.fastpath.texts import whole as exactly

SEEDS = st.integers(0, 2**32 - 1)
FLT_MAX = np.finfo("f4").max
TINY = np.float32(1e-45)
EXTREME = np.array([0.0, -0.0, TINY, -TINY, 1e-38, -1e-38, FLT_MAX, -FLT_MAX, np.nan, 1.0, -1.0], "f4")
INPUTS = 6
ROWS = 60


def learner(booster: xgboost.Booster) -> dict[str, Any]:
    return json.loads(bytes(booster.save_raw("json")))["learner"]


def forest(rng: np.random.Generator, depth: int, **more: Any) -> xgboost.Booster:
    """Random trees over rows with extremes and missing values, in fit and out of it."""
    rows = spoiled(rng, 400, 0.15)
    labels = rng.normal(size=len(rows)) + np.where(np.nan_to_num(rows[:, 0]) > 0, 1.0, 0.0)
    if "num_class" in more:
        labels = rng.integers(more["num_class"], size=len(rows))
    fit = {"max_depth": depth, "eta": 0.3, "min_child_weight": 0.0, "seed": int(rng.integers(1 << 31)), "nthread": 1}
    return xgboost.train(fit | more, xgboost.DMatrix(rows, label=labels), 6)


def spoiled(rng: np.random.Generator, count: int, share: float) -> np.ndarray:
    rows = rng.normal(0, 1, (count, INPUTS)).astype("f4")
    bad = rng.random(rows.shape) < share
    rows[bad] = rng.choice(EXTREME, bad.sum())
    rows[:, 1] *= TINY * 100  # among denormals alone
    return rows


def at_thresholds(rng: np.random.Generator, booster: xgboost.Booster, count: int) -> np.ndarray:
    """Rows of the values that splits ask for, and of their neighbours."""
    rows = spoiled(rng, count, 0.2)
    every = learner(booster)["gradient_booster"]["model"]["trees"]
    asked = [
        (feature, below)
        for tree in every
        for feature, below, left in zip(
            tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
        )
        if left >= 0
    ]
    for row in rows:
        for n in rng.integers(len(asked), size=INPUTS) if asked else ():
            feature, below = asked[n]
            beside = [np.float32(below), np.nextafter(np.float32(below), np.float32(rng.choice([-1, 1]) * FLT_MAX))]
            row[feature] = np.clip(beside[rng.integers(2)], -FLT_MAX, FLT_MAX)  # XGBoost takes no infinities here
    return rows


def answers(trees: Trees, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    margins = np.zeros((len(rows), trees.classes))
    values = np.zeros((len(rows), trees.classes, trees.inputs + 1), "f4")
    for n, row in enumerate(rows):
        trees.margins(row, margins[n])
        for k in range(trees.classes):
            trees.explain(row, k, values[n, k])
    return margins, values


def by_xgboost(booster: xgboost.Booster, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    data = xgboost.DMatrix(rows)
    margins = booster.predict(data, output_margin=True).reshape(len(rows), -1)
    return margins, booster.predict(data, pred_contribs=True).reshape(len(rows), margins.shape[1], -1)


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS, depth=st.integers(1, 8), classes=st.sampled_from([1, 3]), tables=st.booleans(), portable=st.booleans()
)
def test_margins_and_values_are_xgboosts(seed, depth, classes, tables, portable):
    rng = np.random.default_rng(seed)
    more = {"objective": "multi:softprob", "num_class": classes} if classes > 1 else {}
    booster = forest(rng, depth, **more)
    rows = np.concatenate([spoiled(rng, ROWS, 0.2), at_thresholds(rng, booster, ROWS)])
    trees = Trees(*read_parts(learner(booster)), **({} if tables else {"tables_bytes": 0}), portable=portable)
    assert (trees.without_table > 0) == (not tables or depth > 6)
    margins, values = answers(trees, rows)
    expected, contributions = by_xgboost(booster, rows)
    np.testing.assert_allclose(margins, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values, contributions, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(values.sum(2), margins, rtol=1e-5, atol=1e-5)


def test_infinities_go_where_xgboost_sends_them():
    print("seed 71")
    rng = np.random.default_rng(71)
    booster = forest(rng, 5)
    rows = spoiled(rng, 300, 0.2)
    infinite = rng.random(rows.shape) < 0.3
    rows[infinite] = rng.choice(np.array([np.inf, -np.inf], "f4"), infinite.sum())
    trees = Trees(*read_parts(learner(booster)))
    margins, values = answers(trees, rows)
    expected = booster.inplace_predict(rows, predict_type="margin")
    np.testing.assert_allclose(margins[:, 0], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(values.sum(2), margins, rtol=0, atol=1e-5)  # XGBoost explains no infinite rows


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, depth=st.integers(1, 7))
def test_plain_code_and_other_turns_give_the_same_bits(seed, depth):
    rng = np.random.default_rng(seed)
    booster = forest(rng, depth, objective="multi:softprob", num_class=3)
    rows = spoiled(rng, ROWS, 0.2)
    parts = read_parts(learner(booster))
    trees, portable = Trees(*parts), Trees(*parts, portable=True)
    assert portable.portable
    margins, values = answers(trees, rows)
    turns = rng.permutation(len(rows))
    for other in (trees, portable):
        again = answers(other, rows[turns])
        assert again[0].tobytes() == margins[turns].tobytes()
        assert again[1].tobytes() == values[turns].tobytes()


def test_slots_are_answered_alike_in_any_microbatch():
    print("seed 72")
    rng = np.random.default_rng(72)
    trees = Trees(*read_parts(learner(forest(rng, 4, objective="multi:softprob", num_class=3))))
    slots, chosen = 16, rng.permutation(INPUTS)
    columns = spoiled(rng, slots, 0.2)
    plan, explained = rng.integers(2, size=slots).astype("u1"), np.array([0, 1], "u1")
    slope, bias = 1.25, np.array([0.5, 0.0, -0.25])

    def run(*batches: list[int]) -> tuple[np.ndarray, np.ndarray]:
        chances, shap = np.full((slots, 3), 9.0), np.full((slots, INPUTS + 3), 9.0, "f4")
        trees.bind(columns, chosen, slope, bias, plan, chances, shap)
        for batch in batches:
            trees.run(batch, explained)
            assert trees.sound(batch)
        return chances, shap

    def apart() -> tuple[np.ndarray, np.ndarray]:
        """The same with everything of a slot in a record of its own."""
        kind = [("plan", "u1"), ("columns", "f4", columns.shape[1]), ("chances", "f8", 3), ("shap", "f4", INPUTS + 3)]
        records = np.zeros(slots, np.dtype(kind, align=True))
        records["columns"], records["plan"], records["shap"] = columns, plan, 9.0
        trees.bind(records["columns"], chosen, slope, bias, records["plan"], records["chances"], records["shap"])
        trees.run(list(range(slots)), explained)
        return records["chances"], records["shap"]

    chances, shap = run(list(range(slots)))
    assert [each.tobytes() for each in apart()] == [chances.tobytes(), shap.tobytes()]
    for batches in ([[n] for n in range(slots)], [rng.permutation(slots).tolist()], [[3, 1], [15, 0], list(range(16))]):
        found = run(*batches)
        assert (found[0].tobytes(), found[1].tobytes()) == (chances.tobytes(), shap.tobytes())
    margins, values = answers(trees, np.ascontiguousarray(columns[:, chosen]))
    logit = slope * margins + bias
    np.testing.assert_allclose(chances, np.exp(logit) / np.exp(logit).sum(1, keepdims=True), rtol=0, atol=1e-12)
    likeliest = values[np.arange(slots), chances.argmax(1)]
    assert shap[plan == 1, : INPUTS + 1].tobytes() == likeliest[plan == 1].tobytes()
    assert (shap[plan == 0] == 9.0).all()
    assert (shap[:, INPUTS + 1 :] == 9.0).all()


def stump(**changes: Any) -> Nodes:
    plain = Nodes([1, -1, -1], [2, -1, -1], [0, 0, 0], [0.5, 0, 0], [0, 0, 0], [0, 1.0, 2.0], [4.0, 1.0, 3.0])
    return plain._replace(**changes)


def line(depth: int) -> Nodes:
    """A path that asks another feature at each of its nodes."""
    count = 2 * depth + 1
    left = [n + 1 if n % 2 == 0 and n < count - 1 else -1 for n in range(count)]
    right = [n + 2 if n % 2 == 0 and n < count - 1 else -1 for n in range(count)]
    feature = [n // 2 for n in range(count)]
    return Nodes(
        left, right, feature, [0.0] * count, [1] * count, [1.0] * count, [float(count - n) for n in range(count)]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_not_sound(value):
    columns, chances, shap = np.zeros((1, 1), "f4"), np.zeros((1, 1)), np.zeros((1, 2), "f4")
    trees = Trees([stump(value=[0, value, 2.0])], [0], [0.0], 1)
    trees.bind(columns, [0], 1.0, np.zeros(1), np.zeros(1, "u1"), chances, shap)
    trees.run([0], np.ones(1, "u1"))
    assert not trees.sound([0])


def test_a_threshold_that_is_no_number_has_nothing_below_it():
    for missing_left, expected in ((1, 1.0), (0, 2.0)):
        trees = Trees([stump(below=[np.nan, 0, 0], missing_left=[missing_left, 0, 0])], [0], [0.0], 1)
        rows = np.array([[-np.inf], [-FLT_MAX], [0.0], [np.inf], [np.nan]], "f4")
        assert answers(trees, rows)[0][:, 0].tolist() == [2.0, 2.0, 2.0, 2.0, expected]


def test_data_that_nobody_went_with_leaves_values_finite_and_whole():
    trees = Trees([stump(cover=[4.0, 0.0, 4.0]), stump(cover=[0.0, 0.0, 0.0])], [0, 0], [0.25], 1)
    margins, values = answers(trees, np.array([[0.0], [1.0]], "f4"))
    assert margins[:, 0].tolist() == [2.25, 4.25]
    assert values.sum(2)[:, 0].tolist() == [2.25, 4.25]


def test_a_lone_leaf_and_no_tree_at_all_say_the_same_to_every_row():
    leaf = Nodes([-1], [-1], [0], [0.0], [0], [1.5], [1.0])
    for trees, expected in ((Trees([leaf], [0], [0.25], 2), 1.75), (Trees([], [], [0.25], 2), 0.25)):
        margins, values = answers(trees, np.array([[0.0, np.nan]], "f4"))
        assert margins.tolist() == [[expected]]
        assert values.tolist() == [[[0.0, 0.0, expected]]]


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        (stump(left=[1, -1]), "tree 0: expected arrays of one length, found [2, 3, 3, 3, 3, 3, 3]"),
        (Nodes([], [], [], [], [], [], []), "tree 0: expected arrays of one length, found [0, 0, 0, 0, 0, 0, 0]"),
        (stump(left=[3, -1, -1]), "tree 0: node 0: expected two children of its own, found 3 and 2"),
        (stump(right=[-1, -1, -1]), "tree 0: node 0: expected two children of its own, found 1 and -1"),
        (stump(right=[1, -1, -1]), "tree 0: node 0: expected two children of its own, found 1 and 1"),
        (stump(left=[1, 0, -1], right=[2, 2, -1]), "tree 0: node 1: expected two children of its own, found 0 and 2"),
        (stump(feature=[1, 0, 0]), "tree 0: node 0: expected a feature from 0 to 0, found 1"),
        (stump(feature=[-1, 0, 0]), "tree 0: node 0: expected a feature from 0 to 0, found -1"),
    ],
)
def test_what_is_no_tree_is_refused(tree, found):
    with pytest.raises(ValueError, match=exactly(found)):
        Trees([tree], [0], [0.0], 1)


def test_long_paths_are_exact_up_to_their_limit_and_refused_beyond():
    print("seed 73")
    rows = np.random.default_rng(73).normal(size=(20, PATH_MAX + 1)).astype("f4")
    margins, values = answers(Trees([line(PATH_MAX)], [0], [0.0], PATH_MAX + 1), rows)
    np.testing.assert_allclose(values.sum(2), margins, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=exactly("tree 0: expected at most 16 features on a path, found 17")):
        Trees([line(PATH_MAX + 1)], [0], [0.0], PATH_MAX + 1)


def test_arrays_that_do_not_fit_are_refused():
    trees = Trees([stump()], [0], [0.0], 1)
    columns, chances, shap, plan = np.zeros((2, 3), "f4"), np.zeros((2, 1)), np.zeros((2, 2), "f4"), np.zeros(2, "u1")
    bias, explained = np.zeros(1), np.ones(1, "u1")
    with pytest.raises(ValueError, match=exactly("trees: expected bound arrays, found none; call bind")):
        trees.run([0], explained)
    with pytest.raises(ValueError, match=exactly("bind: expected 1 columns from 0 to 2, found [3]")):
        trees.bind(columns, [3], 1.0, bias, plan, chances, shap)
    told = "bind: expected a bias and a chance of each of 1 classes and room for 2 values, found 1, 1 and 1"
    with pytest.raises(ValueError, match=exactly(told)):
        trees.bind(columns, [0], 1.0, bias, plan, chances, np.zeros((2, 1), "f4"))
    with pytest.raises(ValueError, match=exactly("bind: expected 2 slots in every array")):
        trees.bind(columns, [0], 1.0, bias, plan[:1], chances, shap)
    told = "bind: expected what belongs to a slot in one piece, found strides within it"
    for wide, out in ((np.zeros((2, 6), "f4")[:, ::2], shap), (columns, np.zeros((2, 4), "f4")[:, ::2])):
        with pytest.raises(ValueError, match=exactly(told)):
            trees.bind(wide, [0], 1.0, bias, plan, chances, out)
    trees.bind(columns, [2], 1.0, bias, plan, chances, shap)
    with pytest.raises(IndexError, match=exactly("trees: expected slots from 0 to 1, found 2")):
        trees.run([2], explained)
    plan[1] = 1
    with pytest.raises(IndexError, match=exactly("run: slot 1: expected a plan below 1, found 1")):
        trees.run([1], explained)
    with pytest.raises(ValueError, match=exactly("margins: expected 1 inputs and 1 outputs, found 2 and 1")):
        trees.margins(np.zeros(2, "f4"), np.zeros(1))

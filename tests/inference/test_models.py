"""Models against their oracles, and what is refused before they are loaded."""

import hashlib
import json
import logging
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import xgboost

from engine.contract.names import Status
from engine.errors import ModelError
from engine.inference.batch import COLUMN_NAMES, IMAGE_MINUTES, Output, new_batch
from engine.inference.image import HEIGHT, draw
from engine.inference.models.onnx_bytes import check_onnx
from engine.inference.models.trees import DirectionModel
from engine.inference.predictor import Predictor
from engine.registry.manifest import read_manifest, read_store
from engine.shared import Breaker, Phase
from fastpath import layout
from tests.inference.conftest import MAX_BATCH, STORE, answer, make_predictor
from tests.inference.market import Market, walk, windows

XGBOOST = STORE / "xgboost_direction" / "3.2"


@pytest.fixture(scope="module")
def trees():
    model = DirectionModel(read_manifest(XGBOOST))
    model.open()
    booster = xgboost.Booster()
    booster.load_model(str(XGBOOST / "model.ubj"))
    return model, booster


def run_trees(model, columns):
    """Margins' chances and SHAP values of the likeliest class, row by row."""
    batch, output = new_batch(1), Output(1)
    batch.plan[0] = 3
    chances, shap = [], []
    for row in columns:
        batch.columns[0] = row
        model.run([0], batch, output, np.ones(4, "u1"))
        chances.append(output.direction[0].copy())
        shap.append(output.shap[0, : len(COLUMN_NAMES) + 1].copy())
    return np.array(chances), np.array(shap)


def random_columns(seed, count=400):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    columns = rng.normal(0, 1.5, (count, len(COLUMN_NAMES))).astype("f4")
    columns[rng.random(columns.shape) < 0.15] = np.nan
    return columns


def test_tree_chances_equal_xgboosts_calibrated(trees):
    model, booster = trees
    columns = random_columns(41)
    chances, _ = run_trees(model, columns)
    margin = booster.predict(xgboost.DMatrix(columns, feature_names=list(COLUMN_NAMES)), output_margin=True)
    calibration = model.manifest.calibration
    logit = margin * calibration["slope"][0] + np.array(calibration["bias"])
    expected = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    np.testing.assert_allclose(chances, expected, atol=1e-6)


def test_shap_values_equal_xgboosts_contributions_of_the_primary_class(trees):
    model, booster = trees
    columns = random_columns(42)
    chances, shap = run_trees(model, columns)
    data = xgboost.DMatrix(columns, feature_names=list(COLUMN_NAMES))
    expected = booster.predict(data, pred_contribs=True)[np.arange(len(columns)), chances.argmax(1)]
    np.testing.assert_allclose(shap, expected, atol=1e-5)
    margin = booster.predict(data, output_margin=True)[np.arange(len(columns)), chances.argmax(1)]
    np.testing.assert_allclose(shap.sum(1), margin, atol=1e-5)


def test_shap_values_are_exact_where_a_path_asks_a_feature_twice(tmp_path):
    """Deep trees over few features, with missing values in training."""
    rng = np.random.default_rng(43)
    columns = rng.normal(size=(3000, len(COLUMN_NAMES))).astype("f4")
    columns[:, 3:] = 0.0
    columns[rng.random(columns.shape) < 0.1] = np.nan
    label = np.nan_to_num(np.floor(np.abs(columns[:, 0] * 2 + columns[:, 1])) % 3).astype(int)
    data = xgboost.DMatrix(columns, label=label, feature_names=list(COLUMN_NAMES))
    booster = xgboost.train(
        {"objective": "multi:softprob", "num_class": 3, "max_depth": 7, "eta": 0.3, "seed": 1}, data, 8
    )
    folder = copy_model(XGBOOST, tmp_path, artefact=bytes(booster.save_raw("ubj")))
    model = DirectionModel(read_manifest(folder))
    model.open()
    assert model.slower == "24 of 24 trees are too deep or too many for tables, and explained edge by edge"
    chances, shap = run_trees(model, columns[:200])
    expected = booster.predict(xgboost.DMatrix(columns[:200], feature_names=list(COLUMN_NAMES)), pred_contribs=True)
    np.testing.assert_allclose(shap, expected[np.arange(200), chances.argmax(1)], atol=1e-5)


def test_onnx_models_answer_as_onnx_runtime_does_on_plain_arrays(predictor):
    market = Market(tier=1)
    for n, mid in enumerate(walk(np.random.default_rng(44), 80)):
        market.minute(0, n, mid)
    answer(predictor, market.slots(), 80, windows(1), largest=1)
    batch, output = predictor._batch, predictor._output
    image = np.zeros((1, 1, HEIGHT, IMAGE_MINUTES), "f4")
    draw(batch.path[0], image[0, 0])
    feeds = {"basic_lstm": {"rows": batch.rows[:1]}, "simple_pattern": {"image": image}}
    for model_id, feed in feeds.items():
        session = onnxruntime.InferenceSession(
            STORE / model_id / "1.0" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        for name, value in zip((each.name for each in session.get_outputs()), session.run(None, feed), strict=True):
            # The LSTM runs by lanes, whose sums have an order of their own.
            most = 1e-6 if model_id == "basic_lstm" else 0.0
            np.testing.assert_allclose(getattr(output, name)[0], value[0].astype("f8"), rtol=0, atol=most)


def test_image_spans_its_height_and_lights_each_minute_once():
    path = walk(np.random.default_rng(45), IMAGE_MINUTES)
    image = np.full((HEIGHT, IMAGE_MINUTES), 9.0, "f4")
    draw(path, image)
    np.testing.assert_allclose(image.sum(0), 1.0, atol=1e-6)
    assert image[0, path.argmax()] == 1.0
    assert image[-1, path.argmin()] == 1.0
    height = (image * np.arange(HEIGHT)[::-1, None]).sum(0)
    np.testing.assert_allclose(height, 15 * (path - path.min()) / (path.max() - path.min()), atol=1e-4)
    draw(np.full(IMAGE_MINUTES, 1.3), image)
    assert (image.sum(0) == 1.0).all()


# -- what is refused -------------------------------------------------------------------------------


def copy_model(folder: Path, store: Path, artefact: bytes | None = None, **changes: str) -> Path:
    """A version's folder in another store, with another artefact or other lines in its manifest."""
    to = store / folder.parent.name / folder.name
    shutil.copytree(folder, to)
    text = (to / "model.toml").read_text()
    if artefact is not None:
        table = tomllib.loads(text)["artefact"]
        (to / table["file"]).write_bytes(artefact)
        text = text.replace(table["sha256"], hashlib.sha256(artefact).hexdigest())
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (to / "model.toml").write_text(text)
    return to


def field(number: int, payload: bytes | int) -> bytes:
    """One protobuf field; short payloads only."""
    if isinstance(payload, int):
        return bytes([number << 3, payload])
    assert len(payload) < 128
    tag = number << 3 | 2
    return (bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])) + bytes([len(payload)]) + payload


NODE = field(1, field(4, b"Relu"))
TENSOR_OUTSIDE = field(13, field(1, b"location") + field(2, b"/etc/passwd"))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "expected an ONNX model with one graph, found 0 bytes of something else; export it again"),
        (b"\x80" * 30, "expected an ONNX model with one graph, found 30 bytes of something else; export it again"),
        (
            field(7, NODE)[:-3],
            "expected an ONNX model with one graph, found 7 bytes of something else; export it again",
        ),
        (
            field(7, NODE) * 2,
            "expected an ONNX model with one graph, found 20 bytes of something else; export it again",
        ),
        (
            field(7, field(5, TENSOR_OUTSIDE)),
            "expected all weights within the file, found external data; export with the weights inside",
        ),
        (
            field(7, field(5, field(14, 1))),
            "expected all weights within the file, found external data; export with the weights inside",
        ),
        (
            field(7, field(1, field(5, field(5, TENSOR_OUTSIDE)))),
            "expected all weights within the file, found external data; export with the weights inside",
        ),
        (
            field(7, field(1, field(7, b"com.evil"))),
            "expected standard operators, found the domain 'com.evil'; export without custom operators",
        ),
        (
            field(7, field(1, field(5, field(6, field(1, field(7, b"com.evil")))))),
            "expected standard operators, found the domain 'com.evil'; export without custom operators",
        ),
        (
            field(8, field(1, b"com.microsoft")),
            "expected standard operators, found the domain 'com.microsoft'; export without custom operators",
        ),
        (
            field(25, b"x"),
            "expected a graph of standard operators, found functions of its own; inline them before exporting",
        ),
    ],
)
def test_onnx_bytes_that_reach_outside_are_refused(data, found):
    with pytest.raises(ModelError) as refused:
        check_onnx(data, Path("m/model.onnx"))
    assert str(refused.value) == f"m/model.onnx: {found}"


def test_cut_off_onnx_bytes_never_raise_anything_else():
    data = (STORE / "simple_pattern" / "1.0" / "model.onnx").read_bytes()
    rng = np.random.default_rng(46)
    for _ in range(300):
        spoilt = bytearray(data[: int(rng.integers(len(data)))])
        for at in rng.integers(0, max(len(spoilt), 1), 5) if spoilt else ():
            spoilt[at] = int(rng.integers(256))
        try:
            check_onnx(bytes(spoilt), Path("m"))
        except ModelError:
            continue


def test_bundled_models_pass_every_check_and_are_all_loaded(predictor):
    found = {model.manifest.name for model in predictor.models.values()}
    assert found == {each.name for each in read_store(STORE)}
    assert found >= {"basic_lstm 1.0", "simple_pattern 1.0", "cnn_patterns 1.8", "xgboost_direction 3.2"}


def store_with(tmp_path: Path, *left_alone: str) -> Path:
    for each in left_alone:
        shutil.copytree(STORE / each, tmp_path / each)
    return tmp_path


def test_changed_artefact_is_left_out_and_told(tmp_path, caplog):
    store = store_with(tmp_path, "basic_lstm", "simple_pattern", "xgboost_direction")
    path = store / "basic_lstm" / "1.0" / "model.onnx"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes() + b"\0")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with caplog.at_level(logging.ERROR):
        predictor = make_predictor(store)
    assert caplog.messages == [
        f"model basic_lstm 1.0 is left out, its fallback answers: {path}: expected sha256 {expected}, found {found}; "
        f"restore the file or correct `artefact.sha256` in {path.parent / 'model.toml'}"
    ]
    market = Market(tier=1)
    for n, mid in enumerate(walk(np.random.default_rng(47), 70)):
        market.minute(0, n, mid)
    last = answer(predictor, market.slots(), 70, windows(1))[69]
    assert last["status"] == Status.DEGRADED
    assert list(last["contribution_fallback"][:2]) == [1, 0]


def test_model_that_gives_nan_for_a_plain_input_is_left_out(tmp_path, caplog):
    lstm = STORE / "basic_lstm" / "1.0"
    data = (lstm / "model.onnx").read_bytes()
    at = data.rindex(b"rise_b")  # the tensor's name; its four floats stand within the bytes around it
    floats = next(n for n in range(at - 24, at + 24) if data[n : n + 2] == b"\x4a\x10")
    spoilt = data[: floats + 2] + np.full(4, np.nan, "f4").tobytes() + data[floats + 18 :]
    store = store_with(tmp_path, "simple_pattern", "xgboost_direction")
    copy_model(lstm, store, artefact=spoilt)
    with caplog.at_level(logging.ERROR):
        predictor = make_predictor(store)
    assert caplog.messages[-1] == (
        f"model basic_lstm 1.0 is left out, its fallback answers: {store / 'basic_lstm' / '1.0' / 'model.onnx'}: rise: "
        "expected four chances from 0 to 1, found [nan, nan, nan, nan]; correct its output"
    )
    assert "basic_lstm" not in {model.manifest.id for model in predictor.models.values()}


def test_version_before_answers_for_a_newer_one_that_cannot_be_loaded(tmp_path):
    store = store_with(tmp_path, "basic_lstm", "simple_pattern", "xgboost_direction")
    newer = store / "basic_lstm" / "1.1"
    shutil.copytree(store / "basic_lstm" / "1.0", newer)
    text = (newer / "model.toml").read_text().replace('version = "1.0"', 'version = "1.1"')
    (newer / "model.toml").write_text(text)
    (newer / "model.onnx").write_bytes(b"not a model")
    predictor = make_predictor(store)
    market = Market(tier=1)
    for n, mid in enumerate(walk(np.random.default_rng(48), 70)):
        market.minute(0, n, mid)
    last = answer(predictor, market.slots(), 70, windows(1))[69]
    row = last["contribution_version"][0]
    assert (predictor.versions["model_id"][row], predictor.versions["version"][row]) == (b"basic_lstm", b"1.0")
    assert (last["contribution_fallback"][0], last["status"]) == (1, Status.DEGRADED)


def test_loading_leaves_the_workers_row_and_the_breakers_alone(loaded):
    """A restarted worker takes over counts that only grow, and must not look as if it were in a model."""
    child = np.zeros(1, layout.child_row_dtype)
    child["failures"], child["successes"], child["phase"], child["pulse_ns"] = 7, 9, Phase.LOADING, 5
    versions = loaded.versions.copy()
    versions["breaker"] = Breaker.OPEN
    before = child.tobytes(), versions.tobytes()
    predictor = Predictor(STORE, versions, loaded.plans, child, MAX_BATCH)
    predictor.load()
    assert len(predictor.models) == len(read_store(STORE))
    assert (child.tobytes(), versions.tobytes()) == before


def test_model_with_other_tensors_is_refused_with_both_shapes(tmp_path, caplog):
    store = store_with(tmp_path, "basic_lstm", "xgboost_direction")
    cnn = STORE / "simple_pattern" / "1.0"
    copy_model(cnn, store, artefact=(STORE / "basic_lstm" / "1.0" / "model.onnx").read_bytes())
    with caplog.at_level(logging.ERROR):
        make_predictor(store)
    path = store / "simple_pattern" / "1.0" / "model.onnx"
    assert caplog.messages == [
        f"model simple_pattern 1.0 is left out, its fallback answers: {path}: expected the tensors ['image', "
        "'pattern'], "
        "found ['move', 'rise', 'rows']; export with these names"
    ]


def test_trees_of_another_kind_are_refused(tmp_path):
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(np.zeros((4, 20)), label=[0, 1, 0, 1]), 1)
    folder = copy_model(XGBOOST, tmp_path, artefact=bytes(booster.save_raw("ubj")))
    with pytest.raises(ModelError) as refused:
        DirectionModel(read_manifest(folder)).open()
    assert str(refused.value) == (
        f"{folder / 'model.ubj'}: expected multi:softprob over 3 classes, found binary:logistic; train it so"
    )
    assert json.loads(bytes(booster.save_raw("json")))["learner"]["objective"]["name"] == "binary:logistic"


def refused_trees(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        DirectionModel(read_manifest(folder)).open()
    return str(refused.value).removeprefix(f"{folder / 'model.ubj'}: ")


def three_classes(columns: np.ndarray, rounds: int = 1, types: list[str] | None = None, **more) -> xgboost.Booster:
    data = xgboost.DMatrix(
        columns, label=np.arange(len(columns)) % 3, feature_types=types, enable_categorical=types is not None
    )
    fit = {"objective": "multi:softprob", "num_class": 3, "min_child_weight": 0, "max_depth": 2, **more}
    return xgboost.train(fit, data, rounds)


def test_trees_that_split_by_categories_or_are_dropped_are_refused(tmp_path):
    """The engine's columns are numbers, and every tree counts whole."""
    columns = np.repeat(np.arange(3.0), 20).reshape(3, 20)
    grouped = three_classes(columns, types=["c"] * 20, max_cat_to_onehot=10)
    folder = copy_model(XGBOOST, tmp_path / "grouped", artefact=bytes(grouped.save_raw("ubj")))
    assert refused_trees(folder) == "expected splits by numbers, found splits by categories; train it with numbers"
    dropped = three_classes(columns, booster="dart")
    folder = copy_model(XGBOOST, tmp_path / "dropped", artefact=bytes(dropped.save_raw("ubj")))
    assert refused_trees(folder) == "expected a gbtree booster, found dart; train it so"

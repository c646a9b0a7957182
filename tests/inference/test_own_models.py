"""A company's own models in a worker: whom they answer, who stands in for them, and golden rows."""

import base64
import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.contract.ml.feature_vectors_pb2 import FeatureVectorBatch
from engine.contract.names import Status, Tier
from engine.inference.predictor import Predictor
from engine.shared import Breaker
from engine.tenancy.plans import FIRST_OWN
from engine.tenancy.tiers import Role
from tests.inference.conftest import STORE, answer, make_predictor
from tests.inference.market import Market, walk, windows

onnx = pytest.importorskip("onnx")

FEATURES = ["move_1", "volatility_ratio", "our_number"]
BIAS = np.array([0.1, 0.2, 0.3], "f4")
EXTRA = 'extra = ["not_used", "our_number"]\n'
PULL = 0.5  # of the company's own number on BUY


def classifier(spoil: str = "", ir_version: int = 8, opset: int = 17, imputer: bool = False) -> bytes:
    """Chances from a bias and the company's own number; `spoil` names another operator than Softmax."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.zeros((3, 3), "f4")
    weight[2, 2] = PULL
    graph = helper.make_graph(
        [
            helper.make_node("IsNaN", ["columns"], ["unknown"]),
            helper.make_node("Where", ["unknown", "nil", "columns"], ["known"]),
            helper.make_node("Gemm", ["known" if imputer else "columns", "w", "b"], ["logit"]),
            helper.make_node(spoil, ["logit"], ["direction"])
            if spoil
            else helper.make_node("Softmax", ["logit"], ["direction"], axis=1),
        ],
        "own",
        [helper.make_tensor_value_info("columns", floats, ["rows", 3])],
        [helper.make_tensor_value_info("direction", floats, ["rows", 3])],
        [
            onnx.numpy_helper.from_array(each, name)
            for name, each in (("w", weight), ("b", BIAS), ("nil", np.zeros(1, "f4")))
        ],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    ).SerializeToString()


def add_own(store: Path, company: str = "acme", golden: str = "", artefact: bytes = b"", also: str = "") -> Path:
    folder = store / "acme_sides" / "1.0"
    folder.mkdir(parents=True)
    artefact = artefact or classifier()
    (folder / "model.onnx").write_bytes(artefact)
    (folder / "model.toml").write_text(
        f'id = "acme_sides"\nversion = "1.0"\ncompany = "{company}"\nkind = "other"\nrole = "direction"\n'
        f"features = {json.dumps(FEATURES)}\nclosed_minutes = 0\noutputs = []\nhorizons = [15]\nweight = 0.5\n"
        f"{also or EXTRA}"
        f'[artefact]\nfile = "model.onnx"\nsha256 = "{hashlib.sha256(artefact).hexdigest()}"\n'
        "[calibration]\n[training]\n[quality]\n"
    )
    if golden:
        (folder / "golden.json").write_text(golden)
        sha256 = hashlib.sha256(golden.encode()).hexdigest()
        with (folder / "model.toml").open("a") as file:
            file.write(f'[golden]\nfile = "golden.json"\nsha256 = "{sha256}"\n')
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    store = tmp_path_factory.mktemp("own") / "models"
    shutil.copytree(STORE, store)
    add_own(store)
    return make_predictor(store)


def ask(predictor: Predictor, plans: list[int], numbers: list[float], largest: int = 32) -> np.ndarray:
    """The last minute's answers: one key for each plan, with the company's number in `extra`."""
    market, mids = Market(tier=Tier.ENTERPRISE), walk(np.random.default_rng(91), 100)
    for key, (plan, number) in enumerate(zip(plans, numbers, strict=True)):
        slot = market.minute(key, 0, float(mids[-1]), history=mids[:-1])
        slot["plan"], slot["extra_count"], slot["extra"][:2] = plan, 2, (-9.0, number)
    return answer(predictor, market.slots(), len(plans), windows(len(plans)), largest=largest)[: len(plans)]


def ids(predictor: Predictor, found: np.void) -> list[str]:
    rows = found["contribution_version"][: found["contribution_count"]]
    return [predictor.versions["model_id"][row].decode() for row in rows]


def chances(number: float) -> np.ndarray:
    logit = BIAS + np.array([0.0, 0.0, PULL * number])
    return np.exp(logit) / np.exp(logit).sum()


def test_own_model_that_does_worse_than_nothing_for_its_company_is_not_asked_for_it(own: Predictor) -> None:
    direction = Role.DIRECTION - 1
    try:
        own.plans["skill"][FIRST_OWN, direction] = Breaker.OPEN
        (found,) = ask(own, [FIRST_OWN], [2.0])
        assert (found["status"], "xgboost_direction" in ids(own, found)) == (Status.DEGRADED, True)
        assert "acme_sides" not in ids(own, found)
        own.plans["skill"][FIRST_OWN, direction] = Breaker.CLOSED
        own.plans["skill"][FIRST_OWN, Role.PRICE - 1] = Breaker.OPEN  # its price model, if it had one
        (found,) = ask(own, [FIRST_OWN], [2.0])
        assert (found["status"], "acme_sides" in ids(own, found)) == (Status.OK, True)
    finally:
        own.plans["skill"] = Breaker.CLOSED


def test_own_model_answers_its_plan_with_the_companys_own_number_and_nobody_else(own: Predictor) -> None:
    found = ask(own, [FIRST_OWN, 0, FIRST_OWN], [2.0, 2.0, -1.0])
    names = [set(ids(own, each)) for each in found]
    assert ["acme_sides" in each for each in names] == [True, False, True]
    assert ["xgboost_direction" in each for each in names] == [False, True, False]
    for each, number in ((found[0], 2.0), (found[2], -1.0)):
        np.testing.assert_allclose([each["sell"], each["hold"], each["buy"]], chances(number), atol=1e-6)
    assert [each["shap_count"] > 0 for each in found] == [False, True, False]


def test_answers_do_not_depend_on_who_else_is_in_the_microbatch(own: Predictor) -> None:
    plans, numbers = [FIRST_OWN, 0, FIRST_OWN, 0, 0], [2.0, 2.0, -1.0, 0.0, 1.0]
    together, alone = ask(own, plans, numbers), ask(own, plans, numbers, largest=1)
    assert together.tobytes() == alone.tobytes()


def test_shared_model_stands_in_for_an_own_one_that_fails(own: Predictor) -> None:
    row = next(row for row, model in own.models.items() if model.manifest.id == "acme_sides")
    whole = own.models.pop(row)
    try:
        (found,) = ask(own, [FIRST_OWN], [1.0])
    finally:
        own.models[row] = whole
    at = ids(own, found).index("xgboost_direction")
    assert (found["contribution_fallback"][at], found["status"]) == (1, Status.DEGRADED)


def test_version_whose_golden_rows_are_off_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = pytest.importorskip("engine.training.golden")
    store = tmp_path / "models"
    shutil.copytree(STORE, store)
    folder = add_own(store)
    training.write_all(store, STORE.parent / "data" / "fx_m1", ["acme_sides"])
    assert "acme_sides" in {model.manifest.id for model in make_predictor(store).models.values()}
    golden = json.loads((folder / "golden.json").read_text())
    golden["rows"][1]["expected"]["direction"][0] += 2e-5
    expected = golden["rows"][1]["expected"]["direction"]
    data = json.dumps(golden)
    text = (folder / "model.toml").read_text()
    sha256 = hashlib.sha256((folder / "golden.json").read_bytes()).hexdigest()
    (folder / "golden.json").write_text(data)
    (folder / "model.toml").write_text(text.replace(sha256, hashlib.sha256(data.encode()).hexdigest()))
    with caplog.at_level(logging.ERROR):
        predictor = make_predictor(store)
    found = [expected[0] - 2e-5, *expected[1:]]
    assert "acme_sides" not in {model.manifest.id for model in predictor.models.values()}
    assert caplog.messages[-1].startswith(
        f"model acme_sides 1.0 is left out, its fallback answers: {folder / 'golden.json'}: row 2: direction: "
        f"expected {expected}, found ["
    )
    assert caplog.messages[-1].endswith(
        ", more than 1e-05 apart; the artefact, the features or the runtime are not those that it was made with: "
        "train it again or restore them"
    )
    assert abs(found[0] - golden["rows"][1]["expected"]["direction"][0]) > 1e-5


def without_extra(message: str) -> str:
    """A golden row's message, from a producer that sends none of the company's numbers."""
    batch = FeatureVectorBatch.FromString(base64.b64decode(message))
    del batch.feature_vectors[0].extra[:]
    return base64.b64encode(batch.SerializeToString(deterministic=True)).decode()


@pytest.mark.parametrize("imputer", [True, False])
def test_a_golden_row_without_the_companys_numbers_asks_what_the_version_makes_of_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, imputer: bool
) -> None:
    training = pytest.importorskip("engine.training.golden")
    add_own(tmp_path / "rows")
    training.write_all(tmp_path / "rows", STORE.parent / "data" / "fx_m1", ["acme_sides"])
    (row, *_) = json.loads((tmp_path / "rows" / "acme_sides" / "1.0" / "golden.json").read_text())["rows"]
    assert row["expected"]["direction"] != pytest.approx(chances(0.0), abs=1e-5)  # its number is not nil there
    row["message"], row["expected"]["direction"] = without_extra(row["message"]), chances(0.0).tolist()
    golden = json.dumps({"tolerance": 1e-5, "rows": [row]})
    store = tmp_path / "models"
    folder = add_own(store, golden=golden, artefact=classifier(imputer=imputer))
    if imputer:
        assert "acme_sides" in {model.manifest.id for model in make_predictor(store).models.values()}
    else:
        assert why_left_out(store, caplog) == (
            f"{folder / 'golden.json'}: row 1: direction: expected {chances(0.0).tolist()}, found [nan, nan, nan], "
            "more than 1e-05 apart; the artefact, the features or the runtime are not those that it was made with: "
            "train it again or restore them"
        )


def test_own_model_that_fails_on_one_input_is_told_with_tensor_values_and_what_was_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "models"
    shutil.copytree(STORE, store)
    add_own(store)
    predictor = make_predictor(store)
    with caplog.at_level(logging.ERROR):
        fine, spoilt = ask(predictor, [FIRST_OWN, FIRST_OWN], [1.0, np.nan])
    assert ("acme_sides" in ids(predictor, fine), fine["status"]) == (True, Status.OK)
    assert ("acme_sides" in ids(predictor, spoilt), spoilt["status"]) == (False, Status.DEGRADED)
    assert caplog.messages[0] == (
        "model acme_sides 1.0 failed, the 1. time; its fallback answers: direction: expected three chances that sum to "
        "1, found [nan, nan, nan], where our_number = NaN; make the model take NaN (an imputer), or correct its output"
    )


def test_golden_rows_that_are_none_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = tmp_path / "models"
    shutil.copytree(STORE, store)
    folder = add_own(store, golden='{"tolerance": 1e-05, "rows": [{"expected": {}}]}')
    with caplog.at_level(logging.ERROR):
        make_predictor(store)
    assert caplog.messages[-1] == (
        f"model acme_sides 1.0 is left out, its fallback answers: {folder / 'golden.json'}: expected golden rows with "
        "messages and what they must give, found KeyError: 'message'; make them again with "
        "`python -m engine.training.golden`"
    )


def why_left_out(store: Path, caplog: pytest.LogCaptureFixture) -> str:
    """The last line of a worker's log, less what each begins with."""
    with caplog.at_level(logging.ERROR):
        predictor = make_predictor(store)
    assert "acme_sides" not in {model.manifest.id for model in predictor.models.values()}
    return caplog.messages[-1].removeprefix("model acme_sides 1.0 is left out, its fallback answers: ")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (
            "Log",
            "direction: expected three chances that sum to 1, found [-2.302585, -1.609438, -1.203973]; "
            "correct its output",
        ),
        (
            "Sqrt",
            "direction: expected three chances that sum to 1, found [0.316228, 0.447214, 0.547723]; correct its output",
        ),
    ],
)
def test_numbers_that_are_no_chances_are_told_with_tensor_and_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: str, found: str
) -> None:
    folder = add_own(tmp_path, artefact=classifier(spoil))
    assert why_left_out(tmp_path, caplog) == f"{folder / 'model.onnx'}: {found}"


def test_model_that_cannot_take_what_is_not_known_is_told_which_input_that_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = add_own(tmp_path)
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text().replace('"volatility_ratio"', '"correlation_mean"'))
    assert why_left_out(tmp_path, caplog) == (
        f"{folder / 'model.onnx'}: direction: expected three chances that sum to 1, found [nan, nan, nan], where "
        "correlation_mean = NaN; make the model take NaN (an imputer), or correct its output"
    )


def test_a_file_newer_than_the_runtime_is_told_what_to_set_before_saving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = f"ONNX Runtime {pytest.importorskip('onnxruntime').__version__}"
    folder = add_own(tmp_path, artefact=classifier(ir_version=99))
    told = why_left_out(tmp_path, caplog)
    most = told.split("IR version ")[1].split()[0]
    assert told == (
        f"{folder / 'model.onnx'}: expected IR version {most} at most, which {runtime} reads, found 99; "
        f"set model.ir_version = {most} before saving"
    )
    shutil.rmtree(folder)
    folder = add_own(tmp_path, artefact=classifier(opset=99))
    told = why_left_out(tmp_path, caplog)
    most = told.split("opset ")[1].split()[0]
    assert told == (
        f"{folder / 'model.onnx'}: expected opset {most} of ai.onnx at most, which {runtime} reads, found 99; "
        "export it with that"
    )


@pytest.mark.parametrize(
    ("also", "found"),
    [
        (
            'extra = ["our_numbr"]\n',
            "features: our_number is not a feature of the engine for this role; name it in `extra` if your vectors "
            "carry it; did you mean our_numbr?",
        ),
        (
            'extra = ["our_number", "rsi_14"]\n',
            "extra: expected names that no feature of the engine has, found ['rsi_14']; rename them",
        ),
        (
            f"extra = {json.dumps([f'n{n}' for n in range(65)])}\n",
            "extra: expected at most 64 names, found 65; send fewer numbers",
        ),
    ],
)
def test_a_mistyped_name_is_never_one_of_the_companys_own_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, also: str, found: str
) -> None:
    folder = add_own(tmp_path, also=also)
    assert why_left_out(tmp_path, caplog) == f"{folder / 'model.toml'}: {found}"

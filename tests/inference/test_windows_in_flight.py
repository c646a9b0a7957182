"""Price models by lanes: the same answers with them, without, and after they were lost; which graphs have them."""

import numpy as np
import onnxruntime
import pytest

from bench.lstm import made_up
from engine.inference.models.cnn import PatternModel
from engine.inference.models.lstm import PriceModel
from engine.inference.models.onnx_graph import Unfit
from engine.inference.models.recurrent import difference, read_weights
from fastpath import layout
from fastpath.lanes import Lanes
from tests.inference.conftest import STORE, answer
from tests.inference.market import windows
from tests.inference.test_repeats import KEYS, busy_market


def lanes_of(predictor):
    return [model._lanes for model in predictor.models.values() if isinstance(model, PriceModel)]


def patterns_of(predictor):
    return [model for model in predictor.models.values() if isinstance(model, PatternModel)]


def made_up_rows(predictor):
    return sum(lanes.made_up for lanes in lanes_of(predictor))


def by_session(data):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda rows: np.concatenate(session.run(["move", "rise"], {"rows": rows[None]}), axis=None)


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_the_same_bytes_with_lanes_without_and_after_they_were_lost(predictor, seed):
    print(f"seed {seed}")
    count, rng = 400, np.random.default_rng(200 + seed)
    slots = busy_market(rng, count).slots()
    kept = [(model, model._lanes) for model in predictor.models.values() if isinstance(model, PriceModel)]
    for model, lanes in kept:
        model._lanes, model._bound = Lanes(lanes.network, 0), None
    expected = answer(predictor, slots, count, windows(KEYS))[:count].tobytes()
    for model, lanes in kept:
        model._lanes, model._bound = lanes, None
    for lose, rest in ((0.0, 0.0), (0.0, 1.0), (0.2, 0.7)):
        window, answers, position = windows(KEYS), np.zeros(len(slots), layout.answer_slot_dtype), 0
        while position < count:
            end = min(position + int(rng.integers(1, 9)), count)
            answer(predictor, slots, end, window, first=position, answers=answers)
            position = end
            while rng.random() < rest and predictor.catch_up():
                pass
            if rng.random() < lose:
                for _, lanes in kept:
                    lanes.reset(KEYS)
                for model in patterns_of(predictor):
                    model.keep(KEYS)
        assert answers[:count].tobytes() == expected


@pytest.mark.parametrize("seed", range(3))
def test_a_path_that_was_looked_at_is_not_looked_at_again_and_answers_are_the_same_bytes(predictor, monkeypatch, seed):
    count, runs = 400, []
    slots = busy_market(np.random.default_rng(300 + seed), count).slots()
    for model in patterns_of(predictor):
        run = model._session.run
        monkeypatch.setattr(model._session, "run", lambda rows=1, run=run: (runs.append(1), run(rows)))
    found = answer(predictor, slots, count, windows(KEYS))[:count].tobytes()
    with_memory = len(runs)
    for model in patterns_of(predictor):
        monkeypatch.setattr(model, "keep", lambda keys: None)
        model._known = model._known[:0]
    assert answer(predictor, slots, count, windows(KEYS))[:count].tobytes() == found
    assert 0 < with_memory < len(runs) - with_memory


def test_what_an_answer_put_off_spares_the_next_one_its_window(predictor):
    slots = busy_market(np.random.default_rng(9), 300).slots()
    lazy, window = made_up_rows(predictor), windows(KEYS)
    answer(predictor, slots, 300, window, largest=1)
    lazy = made_up_rows(predictor) - lazy
    eager, window, answers = made_up_rows(predictor), windows(KEYS), np.zeros(len(slots), layout.answer_slot_dtype)
    for n in range(300):
        answer(predictor, slots, n + 1, window, first=n, answers=answers)
        while predictor.catch_up():
            pass
    eager = made_up_rows(predictor) - eager
    assert 0 < eager < lazy / 3


def test_both_bundled_networks_have_lanes_within_their_bound(predictor):
    assert [lanes.blocks > 500 for lanes in lanes_of(predictor)] == [True, True]


@pytest.mark.parametrize("model", ["basic_lstm/1.0", "advanced_lstm/2.1"])
def test_bundled_networks_answer_as_onnx_runtime_does(model):
    data = (STORE / model / "model.onnx").read_bytes()
    assert difference(read_weights(data).network(50), by_session(data)) <= 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_stacked_networks_answer_as_onnx_runtime_does(seed):
    rng = np.random.default_rng(seed)
    data = made_up(seed, int(rng.integers(1, 40)), rng.integers(1, 70, int(rng.integers(1, 4))).tolist())
    assert difference(read_weights(data).network(50), by_session(data), seed) <= 1e-5


def reason(data):
    with pytest.raises(Unfit) as caught:
        read_weights(data)
    return str(caught.value)


def changed(node=None, **attributes):
    """The file of a small network with a node changed by hand."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(made_up(1, 3, (4, 4)))
    found = next(each for each in model.graph.node if each.op_type == node)
    for name, value in attributes.items():
        found.attribute.append(onnx.helper.make_attribute(name, value))
    return model.SerializeToString()


def test_a_graph_of_another_shape_is_told_with_its_node():
    assert reason(changed("LSTM", direction="reverse")) == "LSTM y0: direction: expected forward, found reverse"
    assert reason(changed("LSTM", clip=3.0)) == "LSTM y0: clip: expected none, found 3.0"
    assert reason(changed("Gemm", alpha=2.0)) == "Gemm move: alpha: expected 1.0, found 2.0"
    assert reason((STORE / "cnn_patterns/1.8/model.onnx").read_bytes()).endswith("expected Transpose here")
    assert reason(b"") == "its bytes are not those of one graph"
    whole = made_up(1, 3, (4,))
    for size in range(0, len(whole), 7):
        with pytest.raises(Unfit):
            read_weights(whole[:size])

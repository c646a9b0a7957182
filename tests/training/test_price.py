"""How the price models are taught: what is drawn, withheld, mirrored, watched; and controls that find nothing."""

import tomllib

import numpy as np
import pytest

pytest.importorskip("jax", reason="the extra `train` is not installed")
pytest.importorskip("optax", reason="the extra `train` is not installed")

from engine.contract.names import HORIZON_MINUTES
from engine.inference.features import FEATURE_NAMES
from engine.training import artefacts, controls, left_out, network, price
from engine.training.bootstrap import When
from engine.training.data import CLOSE, HIGH, LOW, OPEN, Bars, Examples, drawn, labelled, walk
from tests.inference.conftest import STORE


def made(seed: int = 71, count: int = 900) -> tuple[Bars, Examples]:
    """Bars of a random walk with four quotes a minute, all of the training part."""
    rng = np.random.default_rng(seed)
    quotes = 1.3 * np.exp(np.cumsum(rng.normal(0.0, 5e-5, (count, 4)).ravel()).reshape(count, 4))
    quarters = np.stack([quotes[:, 0], quotes.max(axis=1), quotes.min(axis=1), quotes[:, -1]], axis=1)
    bars = Bars("SIM", 23_000_000 + np.arange(count), quotes[:, -1] - 5e-5, quotes[:, -1] + 5e-5, quarters)
    part = np.full(count, "train")
    shown = drawn(bars, part)
    return bars, labelled(bars, walk(bars, np.full((count, 1), np.nan), shown), shown, part)


def test_the_open_minute_shows_each_of_its_bars_four_mids_and_closed_ones_their_close():
    bars, examples = made()
    assert bars.quarters is not None
    shown = drawn(bars, examples.part)
    assert set(shown.quarter) == {OPEN, HIGH, LOW, CLOSE}
    rows = np.arange(len(shown.mid)), shown.quarter
    np.testing.assert_allclose(shown.mid, bars.quarters[rows], rtol=1e-12)
    assert (shown.passed_ns[shown.quarter == OPEN] < 2_000_000_000).all()
    gap = examples.rows[100:, :, FEATURE_NAMES.index("gap")]
    np.testing.assert_array_equal(gap[:, :-1], np.float32(np.log1p(1.0)))
    np.testing.assert_allclose(gap[:, -1], np.log1p(shown.passed_ns[100:] / 60e9), rtol=1e-6)


def test_labels_begin_at_the_open_or_at_the_close_and_never_at_an_extreme():
    bars, examples = made()
    mid = bars.mid
    for n in (200, 201, 202, 203, 204, 205, 206, 207):
        for h, minutes in enumerate(HORIZON_MINUTES):
            if examples.quarter[n] == OPEN:
                assert bars.quarters is not None
                move = np.log(mid[n + minutes - 1] / bars.quarters[n, OPEN])
            else:
                move = np.log(mid[n + minutes] / mid[n])
            assert examples.move[n, h] == pytest.approx(1e4 * move / (examples.sigma[n] * np.sqrt(minutes)))


def test_a_mirrored_market_gives_mirrored_rows():
    """So mirroring examples is the same as teaching of markets upside down."""
    bars, _ = made()
    flip = 1.3**2
    upside_down = Bars("SIM", bars.minute, flip / bars.mid, flip / bars.mid)
    plain = Bars("SIM", bars.minute, bars.mid, bars.mid)
    nothing = np.full((len(bars.minute), 1), np.nan)
    rows, mirrored = walk(plain, nothing)["rows"][400], walk(upside_down, nothing)["rows"][400]
    np.testing.assert_allclose(rows * price.MIRROR, mirrored, atol=2e-3)


def test_withheld_spreads_and_indicators_look_as_they_do_where_there_are_none():
    rng = np.random.default_rng(72)
    rows = np.ones((4000, 50, 16), "f4")
    out, move = price.disturb(rng, rows, np.ones((4000, 4), "f4"))
    spread = out[:, :, FEATURE_NAMES.index("spread")]
    assert set(np.unique(spread)) == {-1.0, 1.0}
    assert (np.diff(spread, axis=1) >= 0).all()  # unknown first, known from some minute on
    assert 0.45 < (spread[:, 0] == -1.0).mean() < 0.55
    assert 0.07 < (out[:, 0, FEATURE_NAMES.index("rsi_14")] == 0.0).mean() < 0.13
    assert 0.45 < (move[:, 0] == -1.0).mean() < 0.55
    assert (rows == 1.0).all()


def test_watched_rows_lie_hours_after_those_that_teach():
    _, examples = made(count=4000)
    teach, watched = price.last_days(examples, price.ready_rows(examples, "train"))
    assert len(watched) > 400
    assert examples.minute[watched].min() - examples.minute[teach].max() >= 240


def test_a_scale_that_chance_may_have_made_is_no_scale():
    rng = np.random.default_rng(73)
    move, median = rng.normal(size=(3000, 4)), 0.1 * rng.normal(size=(3000, 4))
    parameters = network.lstm_parameters(1, 16, (4,), 4)
    when = When(np.arange(3000), np.full(3000, "SIM"), np.full(3000, "SIM"))
    scale, slope = price.scale_heads(parameters, median, median, move, when)
    assert scale.max() < 0.5
    assert slope.max() < 0.5
    scale, slope = price.scale_heads(parameters, median, 2.0 * median, move + 3.0 * median, when)
    assert (scale > 1.5).all()
    assert (slope > 0.5).all()


def test_two_layers_as_onnx_are_those_that_were_taught():
    onnxruntime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(74)
    parameters = network.lstm_parameters(5, 16, (48, 48), 4)
    parameters = {name: (each + 0.1 * rng.normal(size=each.shape)).astype("f4") for name, each in parameters.items()}
    rows = rng.normal(size=(1, 50, 16)).astype("f4")
    move, logit = network.predict(network.lstm, parameters, rows)
    session = onnxruntime.InferenceSession(artefacts.lstm_bytes(parameters, 4), providers=["CPUExecutionProvider"])
    found = session.run(["move", "rise"], {"rows": rows})
    np.testing.assert_allclose(found[0], move, atol=1e-5)
    np.testing.assert_allclose(found[1], 1.0 / (1.0 + np.exp(-logit)), atol=1e-5)


def test_shuffled_labels_stay_in_their_part_and_lagged_ones_are_of_hours_later():
    _, examples = made(count=1200)
    move = controls.shuffled(examples, 75)
    np.testing.assert_allclose(np.nansum(move), np.nansum(examples.move), rtol=1e-9)
    assert (move[:500] != examples.move[:500]).mean() > 0.9
    late = controls.lagged(examples)
    np.testing.assert_array_equal(late[:500], examples.move[300:800])
    assert np.isnan(late[-300:]).all()


def test_an_opinion_that_never_changes_is_right_half_of_the_time_whatever_prices_did():
    """On rows and their mirror images together; on the rows alone it gains whatever the drift is."""
    rng = np.random.default_rng(76)
    rows = rng.normal(size=(3000, 50, 16)).astype("f4")
    move = rng.normal(0.4, 1.0, 3000)  # a market that rises
    never = network.lstm_parameters(76, 16, (24,), 4)
    never["rise_b"] = np.full(4, -0.1, "f4")
    logit = network.predict(network.lstm, never, rows)[1][:, 0]
    upside_down = network.predict(network.lstm, never, rows * price.MIRROR)[1][:, 0]
    assert ((logit > 0.0) == (move > 0.0)).mean() < 0.4
    scores = controls.mirrored(logit, upside_down, move)
    assert (scores.right == 0.5).all()
    np.testing.assert_allclose(scores.excess, (1.0 / (1.0 + np.exp(0.1)) - 0.5) ** 2, rtol=1e-5)


def test_an_opinion_that_knows_something_is_seen_in_mirror_images_as_well():
    rng = np.random.default_rng(77)
    move = rng.normal(0.2, 1.0, 5000)
    logit = 0.5 * move + rng.normal(size=5000)
    scores = controls.mirrored(logit, -logit, move)
    assert scores.right.mean() > 0.6
    assert scores.excess.mean() < -0.01


@pytest.mark.parametrize("model", ["basic_lstm", "advanced_lstm"])
def test_controls_of_the_bundled_models_found_no_skill(model):
    """A share of right signs above chance, or a Brier score below one half's, would be a leak."""
    (file,) = (STORE / model).glob("*/model.toml")
    quality = tomllib.loads(file.read_text())["quality"]
    for name in ("shuffled", "lagged"):
        right, error = np.array(quality[f"{name}_right"]), np.array(quality[f"{name}_right_standard_error"])
        assert (right - 0.5 <= 2.0 * error).all(), (name, right, error)
        excess, error = np.array(quality[f"{name}_excess"]), np.array(quality[f"{name}_excess_standard_error"])
        assert (excess >= -2.0 * error).all(), (name, excess, error)


def test_a_network_without_a_symbol_is_not_taught_by_it(monkeypatch):
    _, examples = made(count=1200)
    half = np.where(np.arange(1200) < 600, "ONE", "TWO")
    examples = examples._replace(symbol=half, part=np.full(1200, "train"))
    taught = []

    def learn(examples, rows, plan, report):
        taught.append(set(examples.symbol[rows]))
        return network.Fitted({}, [], [])

    monkeypatch.setattr(price, "learn", learn)
    assert set(left_out.networks(examples, price.BASIC, lambda line: None)) == {"ONE", "TWO"}
    assert taught == [{"TWO"}, {"ONE"}]

"""What a window says of each minute, against plain twins."""

import numpy as np
import pytest

from engine.inference.batch import new_batch
from engine.training.data import read_bars
from fastpath import layout
from tests.inference import twin
from tests.inference.conftest import STORE, answer
from tests.inference.market import FIRST_MINUTE, Market, walk, windows

DATA = STORE.parent / "data" / "fx_m1"


def closed(window: np.ndarray, step: int, depth: int) -> np.ndarray:
    """The closed entries before `step`, oldest first."""
    return window[np.arange(step - depth, step) & (layout.window - 1)]


@pytest.mark.parametrize("symbol", ["EURUSD", "USDJPY"])
def test_window_of_real_minutes_equals_the_plain_twin(predictor, symbol):
    bars = read_bars(DATA / f"{symbol}.csv.gz")
    begin = 700
    bars = bars._replace(minute=bars.minute[begin:][:400], bid=bars.bid[begin:][:400], ask=bars.ask[begin:][:400])
    market = Market()
    for n in range(400):
        market.vector(
            0, int(bars.minute[n] + 1) * 60_000_000_000 - 1_000_000, bars.mid[n], spread=bars.ask[n] - bars.bid[n]
        )
    window = windows(1)
    answer(predictor, market.slots(), 400, window)
    last = market.given[-1]
    step, depth = int(last["step"]), int(last["depth"])
    assert depth == 240
    kept = closed(window[0], step, depth)
    mids, minutes, masked = kept["mid"], kept["minute"], kept["masked"] == 1
    own = window[0][step & 255]
    moves, spans = twin.moves_and_spans(mids, minutes, masked)
    moves[0], spans[0] = kept["move"][0], kept["span"][0]  # its predecessor is no longer kept
    np.testing.assert_allclose(kept["move"], moves, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(kept["span"], spans)
    assert own["sigma"] == pytest.approx(twin.sigma(moves, spans, masked), rel=1e-12)
    np.testing.assert_allclose(own["indicators"], twin.indicators(mids), rtol=1e-9, atol=1e-12)
    assert own["trend"] == pytest.approx(twin.trend(mids, minutes, masked, own["sigma"]), rel=1e-9)
    here = float(own["mid"]), int(own["minute"]), float(own["spread"])
    np.testing.assert_allclose(
        own["row"], twin.row((mids, minutes, masked), (moves, spans), *here), rtol=1e-5, atol=1e-6
    )


def test_every_feature_equals_the_plain_twin_while_the_window_grows(predictor):
    """With no minute gone from the window, the twin sees all that the kernels saw."""
    rng = np.random.default_rng(11)
    mids, market, window = walk(rng, 230), Market(), windows(1)
    minute, minutes = 0, []
    for n in range(230):
        minute += int(rng.choice([1, 1, 1, 1, 2, 4]))
        minutes.append(FIRST_MINUTE + minute)
        market.minute(0, minute, mids[n], spread=mids[n] * 1e-4 * rng.random())
    count = next(n for n, slot in enumerate(market.given) if slot["depth"] >= 235)
    answer(predictor, market.slots(), count, window)
    last = market.given[count - 1]
    step, depth = int(last["step"]), int(last["depth"])
    kept, own = closed(window[0], step, depth), window[0][step & 255]
    masked = kept["masked"] == 1
    assert masked.sum() > 50
    before = kept["mid"], kept["minute"], masked
    here = float(own["mid"]), int(own["minute"]), float(own["spread"])
    expected = twin.row(before, twin.moves_and_spans(*before), *here)
    np.testing.assert_allclose(own["row"], expected, rtol=1e-5, atol=1e-6)


def test_one_vector_a_minute_and_ten_a_second_close_the_same_minutes(predictor):
    rng = np.random.default_rng(12)
    mids = walk(rng, 60)
    slow, fast = Market(), Market()
    for n, mid in enumerate(mids):
        begin = (FIRST_MINUTE + n) * 60_000_000_000
        for tenth in range(40):  # ten a second for four seconds, then the close
            fast.vector(0, begin + tenth * 100_000_000, mid * (1 + 1e-4 * rng.normal()))
        fast.minute(0, n, mid)
        slow.minute(0, n, mid)
    ours, theirs = windows(1), windows(1)
    answer(predictor, slow.slots(), len(slow.given), ours)
    answer(predictor, fast.slots(), len(fast.given), theirs)
    assert ours.tobytes() == theirs.tobytes()


def test_price_history_stands_for_the_minutes_it_names(predictor):
    mids = walk(np.random.default_rng(13), 241)
    by_vectors, by_history = Market(), Market()
    for n, mid in enumerate(mids):
        by_vectors.minute(0, n, mid)
    by_history.minute(0, 240, mids[240], history=mids[:240])
    ours, theirs = windows(1), windows(1)
    answer(predictor, by_vectors.slots(), 241, ours)
    answer(predictor, by_history.slots(), 1, theirs)
    long, short = closed(ours[0], 480, 240), closed(theirs[0], 240, 240)
    for name in ("minute", "mid", "move", "sigma", "trend", "indicators", "row", "span", "masked"):
        np.testing.assert_array_equal(long[name], short[name], err_msg=name)
    for name in ("mid", "sigma", "trend", "indicators", "row"):
        np.testing.assert_array_equal(ours[0][480 & 255][name], theirs[0][240][name], err_msg=name)


def test_empty_minutes_are_masked_and_a_long_hole_is_one_step(predictor):
    market, window = Market(), windows(1)
    for n, mid in ((0, 1.0), (1, 1.001), (5, 1.002), (25, 1.003)):
        market.minute(0, n, mid)
    answer(predictor, market.slots(), 4, window)
    kept = closed(window[0], 248, 8)
    assert list(kept["masked"]) == [0, 0, 1, 1, 1, 0, 1, 0]
    assert list(kept["minute"] - FIRST_MINUTE) == [0, 1, 2, 3, 4, 5, 24, 25]
    assert list(kept["mid"]) == [1.0, 1.001, 1.001, 1.001, 1.001, 1.002, 1.002, 1.003]
    assert list(kept["span"]) == [0, 1, 1, 2, 3, 4, 19, 20]
    assert list(kept["move"][[2, 3, 4, 6]]) == [0.0] * 4


def test_a_return_over_a_long_hole_leaves_the_volatility_alone(predictor):
    calm, jumped = Market(), Market()
    for market, level in ((calm, 1.0), (jumped, 1.5)):
        for n in range(30):
            market.minute(0, n, 1.0 + 1e-4 * (n % 2))
        for n in range(50, 80):
            market.minute(0, n, level * (1.0 + 1e-4 * (n % 2)))
    ours, theirs = windows(1), windows(1)
    answer(predictor, calm.slots(), 60, ours)
    answer(predictor, jumped.slots(), 60, theirs)
    step = int(calm.given[-1]["step"]) & 255
    assert ours[0][step]["sigma"] == theirs[0][step]["sigma"]


def test_given_indicators_stand_in_for_computed_ones(predictor):
    market, window = Market(), windows(1)
    for n in range(40):
        market.minute(0, n, 1.0 + 1e-4 * (n % 3))
    plain, given = market.slots(), market.slots()
    given[39]["indicators"][4] = 80.0
    answer(predictor, plain, 40, window)
    computed = window[0][279 & 255]["row"].copy()
    answer(predictor, given, 40, window, first=39)
    row = window[0][279 & 255]["row"]
    assert row[12] == np.float32(0.6)
    np.testing.assert_array_equal(np.delete(row, 12), np.delete(computed, 12))


def test_batch_arrays_hold_a_row_for_each_slot():
    batch = new_batch(5)
    assert {len(getattr(batch, name)) for name in batch.dtype.names} == {5}
    batch.path[3, 7] = 1.5
    assert batch.records[3]["path"][7] == 1.5

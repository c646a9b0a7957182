"""Windows in flight give what the whole window gives, to the bit, by AVX2 and by plain C."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpath.lanes import Lanes, block_bytes
from fastpath.lstm import Network
from tests.fastpath.networks import LINEAR, OUTPUTS, Made, Slot, made, twin, whole
from tests.fastpath.texts import whole as exactly

UNITS = st.lists(st.integers(1, 41), min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)
FULL = 1 << 60  # ns: a budget that is never spent


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """NaN is NaN, whatever else its bits say."""
    return bool(((a.view("u4") == b.view("u4")) | (np.isnan(a) & np.isnan(b))).all())


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS, inputs=st.integers(1, 20), units=UNITS, window=st.integers(2, 60), scale=st.sampled_from([0.5, 1, 3])
)
def test_portable_code_gives_the_bits_of_avx2(seed, inputs, units, window, scale):
    rng = np.random.default_rng(seed)
    of = made(rng, inputs, units, scale)
    rows = rng.normal(0, 2, (window, inputs)).astype("f4")
    portable = of.network(window, portable=True)
    assert portable.portable
    assert whole(of.network(window), rows).tobytes() == whole(portable, rows).tobytes()


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, inputs=st.integers(1, 20), units=UNITS, window=st.integers(2, 60))
def test_a_whole_window_is_that_of_the_formulas(seed, inputs, units, window):
    rng = np.random.default_rng(seed)
    of = made(rng, inputs, units)
    rows = rng.normal(0, 2, (window, inputs)).astype("f4")
    np.testing.assert_allclose(whole(of.network(window), rows), twin(of, rows), rtol=0, atol=5e-6)


EXTREME = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e10, -1e10, 1.0, -9.0, 9.0], "f4"
)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, units=UNITS, window=st.integers(2, 20), share=st.floats(0, 1), tiny=st.booleans())
def test_extreme_inputs_and_weights_give_the_same_bits_and_no_crash(seed, units, window, share, tiny):
    rng = np.random.default_rng(seed)
    of = made(rng, 4, units, 1e-40 if tiny else 1.0)
    rows = rng.normal(0, 1, (window, 4)).astype("f4")
    spoiled = rng.random(rows.shape) < share
    rows[spoiled] = rng.choice(EXTREME, spoiled.sum())
    network, portable = of.network(window), of.network(window, portable=True)
    expected = whole(network, rows)
    assert same_bits(expected, whole(portable, rows))
    slot = Slot(network)
    for _ in range(2):
        assert same_bits(slot.ask(rows, 0, 100), expected)
        slot.lanes.work(FULL)


@pytest.mark.parametrize("at", [0, 7, 19])
@pytest.mark.parametrize("portable", [False, True])
def test_nan_in_any_row_gives_nan_in_every_output(at, portable):
    rng = np.random.default_rng(at)
    network = made(rng, 5, (20, 9)).network(20, portable)
    rows = rng.normal(0, 1, (20, 5)).astype("f4")
    rows[at, 3] = np.nan
    assert np.isnan(whole(network, rows)).all()
    assert np.isnan(Slot(network).ask(rows, 0, 50)).all()


def activations(x: np.ndarray, portable: bool) -> tuple[np.ndarray, np.ndarray]:
    """tanh and sigmoid as the kernels compute them: the tanh of a gate's and cell's, the sigmoid of an output's."""
    out = np.zeros((2, len(x)), "f4")
    big = np.array([100.0, 100.0, -100.0], "f4")  # input and output gates open, the forget gate shut
    for n, value in enumerate(x):
        zero = np.zeros((4, 1), "f4")
        layer = (zero, zero, np.array([*big, value], "f4"))
        both = Network([layer], np.array([[1.0], [0.0]], "f4"), np.array([0.0, value], "f4"), 1, 2, portable)
        out[:, n] = whole(both, np.zeros((2, 1), "f4"))
    return out[0], out[1]


@pytest.mark.parametrize("portable", [False, True])
def test_tanh_and_sigmoid_are_within_a_millionth(portable):
    x = np.concatenate([np.linspace(-20, 20, 4001), np.geomspace(1e-30, 1e30, 200), [0.0]]).astype("f4")
    tanh_of_tanh, sigmoid = activations(x, portable)
    exact = x.astype("f8")
    np.testing.assert_allclose(tanh_of_tanh, np.tanh(np.tanh(exact)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sigmoid, 0.5 + 0.5 * np.tanh(0.5 * exact), rtol=0, atol=1e-6)
    assert sigmoid.min() >= 0.0
    assert sigmoid.max() <= 1.0


@settings(max_examples=80, deadline=None)
@given(
    seed=SEEDS, inputs=st.integers(1, 8), units=st.lists(st.integers(1, 26), min_size=1, max_size=3).map(tuple),
    window=st.integers(2, 24), keys=st.integers(1, 4), blocks=st.integers(0, 4), portable=st.booleans(),
    picked=st.booleans(),
)  # fmt: skip
def test_lanes_give_the_bits_of_the_whole_window(seed, inputs, units, window, keys, blocks, portable, picked):
    """Whatever was worked off, guessed, evicted, repeated, skipped or rewritten between."""
    rng = np.random.default_rng(seed)
    features = inputs + int(picked)
    columns = rng.permutation(features)[:inputs] if picked else np.arange(inputs)
    slot = Slot(made(rng, inputs, units).network(window, portable), blocks, keys, columns, features)
    history = rng.normal(0, 2, (keys, 400, features)).astype("f4")
    history[:, : window + 3] = 0.0  # before the first row there is none
    step, generation = rng.integers(window, window + 9, keys), np.ones(keys, int)
    for _ in range(60):
        key = int(rng.integers(keys))
        kind = rng.random()
        if kind < 0.45:
            step[key] += 1
        elif kind < 0.5:
            step[key] += rng.integers(1, window + 3)
        elif kind < 0.54:
            step[key] = max(step[key] - rng.integers(0, 4), window)  # a repeat
        elif kind < 0.58:
            history[key, step[key] - rng.integers(1, window)] += 1.0  # a row is rewritten
        elif kind < 0.6:
            generation[key] += 1
            history[key] = rng.normal(0, 2, (400, features))
        elif kind < 0.62:
            slot.lanes.reset(keys)
        history[key, step[key]] = rng.normal(0, 2, features)
        rows = history[key, step[key] - window + 1 : step[key] + 1].copy()
        closing = rows[-1].copy()
        rows[-1] += rng.choice([0.0, 0.5])  # what the open minute looks like, and how it would close
        asked_key = key if rng.random() > 0.1 else -1  # as one that stays outside
        found = slot.ask(rows, asked_key, int(step[key]), int(generation[key]), closing)
        assert found.tobytes() == slot.expected(rows).tobytes()
        if rng.random() < 0.6:
            slot.lanes.work(int(rng.choice([0, 20_000, FULL])))


def steady(window: int = 50, **more: object) -> tuple[Slot, np.ndarray]:
    rng = np.random.default_rng(5)
    slot = Slot(made(rng, 16, (24, 24)).network(window), **more)  # type: ignore[arg-type]
    return slot, rng.normal(0, 1, (400, 16)).astype("f4")


def made_up(slot: Slot, rows: np.ndarray, step: int, key: int = 0, closing: np.ndarray | None = None) -> int:
    """Rows that an answer had to run before its last one."""
    before = slot.lanes.made_up
    window = rows[step - slot.lanes.network.window + 1 : step + 1]
    assert slot.ask(window, key, step, closing=closing).tobytes() == slot.expected(window).tobytes()
    return slot.lanes.made_up - before


def test_a_vector_runs_one_row_and_lost_lanes_come_back_when_there_is_time():
    slot, rows = steady()
    assert made_up(slot, rows, 100) == 49  # nothing is there yet
    assert made_up(slot, rows, 100) == 0
    assert made_up(slot, rows, 101) == 49  # its lane was never worked off
    while slot.lanes.work(20_000):
        pass
    assert [made_up(slot, rows, step, closing=rows[0]) for step in (102, 102, 103)] == [
        0,
        0,
        2,
    ]  # guessed; not; no time
    while slot.lanes.work(20_000):
        pass
    assert made_up(slot, rows, 104, closing=rows[0]) == 1  # another row than the one that was guessed
    slot.lanes.reset(8)
    assert made_up(slot, rows, 105) == 49


def test_a_minute_is_worked_off_in_pieces_and_an_answer_between_them_runs_what_is_left():
    slot, rows = steady()
    made_up(slot, rows, 100)
    pieces = 0
    while slot.lanes.work(0):
        pieces += 1
    assert pieces > 48 * 24 / 3  # of lanes that each lack up to 48 rows, three at a time at most
    made_up(slot, rows, 101)
    assert slot.lanes.work(0)
    assert made_up(slot, rows, 102) <= 1


def test_lanes_are_bounded_and_a_key_that_was_not_used_for_long_makes_room():
    slot, rows = steady(blocks=2)
    for key in (0, 1, 0, 1):
        made_up(slot, rows, 100, key)
    assert [made_up(slot, rows, 100, 2) for _ in range(8)] == 7 * [49] + [0]  # four answers a block
    assert [made_up(slot, rows, 100, key) for key in (2, 1, 0)] == [0, 0, 49]
    assert made_up(slot, rows, 100, 7) == 49
    assert made_up(slot, rows, 100, 8) == made_up(slot, rows, 100, 8) == 49  # no such key: never a lane


def test_of_more_keys_in_turn_than_have_room_some_have_lanes_always():
    slot, rows = steady(blocks=2)
    turns = [[made_up(slot, rows, 100, key) for key in range(4)] for _ in range(20)]
    assert turns == [[49, 49, 49, 49], *19 * [[0, 0, 49, 49]]]


def test_a_window_that_does_not_reach_back_far_enough_has_no_lanes():
    slot, rows = steady(window=2)
    network = slot.lanes.network
    window = rows[:2]
    assert slot.ask(window, 0, 0).tobytes() == whole(network, window).tobytes()
    assert slot.lanes.made_up == 1


def test_memory_of_a_key_is_told_and_grows_with_the_network():
    small, large = (made(np.random.default_rng(0), 16, units).network(50) for units in ((24,), (48, 48)))
    assert 8_000 < block_bytes(small) < block_bytes(large) < 50_000


def refused(text: str, **change: object) -> None:
    of = made(np.random.default_rng(0), 3, (4, 5))
    arguments = {
        "layers": of.layers, "head_w": of.head_w, "head_bias": of.head_bias, "linear": LINEAR, "window": 10, **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=exactly(text)):
        Network(**arguments)  # type: ignore[arg-type]


def test_wrong_shapes_of_weights_are_refused():
    of: Made = made(np.random.default_rng(0), 3, (4, 5))
    (w, r, bias), second = of.layers
    refused("layers: expected 1 to 8, found 0", layers=[])
    refused("window: expected 2 to 1025 rows, found 1", window=1)
    refused("layer 0: w: expected shape (16, 3), found (15, 3)", layers=[(w[:-1], r, bias), second])
    refused("layer 0: bias: expected shape (16,), found (15,)", layers=[(w, r, bias[1:]), second])
    refused("layer 0: r: expected shape (16, 4), found (16, 3)", layers=[(w, r[:, 1:], bias), second])
    refused("layer 0: expected 1 to 4096 inputs and units, found 3 and 0", layers=[(w, r[:0], bias)])
    refused("layer 1: w: expected shape (20, 5), found (20, 4)", layers=[second, second])
    refused("head_w: expected shape (5, 5), found (5, 2)", head_w=of.head_w[:, :2])
    refused("heads: expected 1 to 4096 outputs, at most as many linear ones, found 5 and 6", linear=6)


def test_wrong_shapes_of_windows_are_refused():
    network = made(np.random.default_rng(0), 3, (4,)).network(10)
    text = "run: expected rows of shape (10, 3) and 5 outputs, found (9, 3) and 5"
    with pytest.raises(ValueError, match=exactly(text)):
        network.run(np.zeros((9, 3), "f4"), np.zeros(OUTPUTS, "f4"))
    lanes = Lanes(network, 1)
    text = "run: expected bound arrays, found none; call bind"
    with pytest.raises(ValueError, match=exactly(text)):
        lanes.run([0])
    slot = Slot(network)
    text = "run: expected slots from 0 to 0, found 1"
    with pytest.raises(IndexError, match=exactly(text)):
        slot.lanes.run([1])
    arrays = slot.rows, slot.columns, slot.closing, slot.key, slot.generation, slot.step, slot.plain, slot.chances
    text = "bind: expected rows, closing rows and columns of ((1, 10, 3), (1, 3), 3), found ((1, 9, 3), (1, 3), 3)"
    with pytest.raises(ValueError, match=exactly(text)):
        lanes.bind(slot.rows[:, 1:], *arrays[1:])
    text = "bind: expected 3 plain outputs and 2 chances, found (3,) and (3,)"
    with pytest.raises(ValueError, match=exactly(text)):
        lanes.bind(*arrays[:-1], np.zeros((1, 3)))
    text = "bind: expected what belongs to a slot in one piece, found strides within it"
    for rows, closing in (
        (np.asfortranarray(slot.rows), slot.closing),
        (slot.rows, np.zeros((1, 6), "f4")[:, ::2]),
        (np.zeros((1, 10, 6), "f4")[:, :, ::2], slot.closing),
    ):
        with pytest.raises(ValueError, match=exactly(text)):
            lanes.bind(rows, slot.columns, closing, *arrays[3:])
    text = "bind: expected 1 slots in every array"
    with pytest.raises(ValueError, match=exactly(text)):
        lanes.bind(*arrays[:3], np.zeros(2, "i8"), *arrays[4:])
    text = "blocks: expected 0 or more, found -1"
    with pytest.raises(ValueError, match=exactly(text)):
        Lanes(network, -1)

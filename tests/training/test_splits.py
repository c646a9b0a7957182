"""No label crosses a part's edge, whatever the minutes are; files of one time are cut at the same instants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.training import splits
from engine.training.splits import Part
from tests.training.conftest import exactly, untimed

SHARES = {"train": 0.6, "calibration": 0.18, "test": 0.22}


@st.composite
def files(draw):
    """One to three files of one group: minutes with holes, weekends among them."""
    seed, count = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 3))
    rng = np.random.default_rng(seed)
    every = []
    for _ in range(count):
        steps = rng.choice(
            [1, 1, 1, 1, 2, 7, 60, 2880], p=[0.22, 0.22, 0.22, 0.22, 0.08, 0.03, 0.008, 0.002], size=4000
        )
        every.append(rng.integers(0, 500) + np.cumsum(steps))
    return every


@untimed
@given(files(), st.integers(1, 60), st.integers(60, 600))
def test_no_label_uses_a_minute_of_another_part(minutes, reach, embargo):
    minute = np.concatenate(minutes)
    name = splits.assign(minute, np.zeros(len(minute)), reach, SHARES, embargo)
    for one in SHARES:
        for other in SHARES:
            if one < other and (name == one).any() and (name == other).any():
                first, second = sorted((minute[name == one], minute[name == other]), key=np.min)
                assert first.max() + reach < second.min() - embargo


@untimed
@given(files(), st.integers(1, 60))
def test_files_of_one_time_are_cut_at_the_same_instants(minutes, reach):
    """A row's part follows from its minute alone, whichever file it stands in."""
    minute = np.concatenate(minutes)
    name = splits.assign(minute, np.zeros(len(minute)), reach, SHARES)
    parts: dict[int, str] = {}
    for at, part in zip(minute.tolist(), name.tolist(), strict=True):
        assert parts.setdefault(at, part) == part


@untimed
@given(files(), st.integers(1, 60), st.integers(2, 6), st.integers(0, 300))
def test_what_is_fitted_on_keeps_its_distance_from_what_is_judged(minutes, reach, count, embargo):
    minute = np.concatenate(minutes)
    for fold in splits.time_folds(minute, np.zeros(len(minute)), reach, count, embargo):
        fit, judge = minute[fold.fit], minute[fold.judge]
        if len(fit) and len(judge):
            before, after = fit[fit < judge.min()], fit[fit > judge.max()]
            assert len(before) + len(after) == len(fit)
            assert (before + reach + embargo < judge.min()).all()
            assert (after >= judge.max() + reach + embargo).all()


@untimed
@given(files(), st.integers(1, 60), st.integers(2, 6))
def test_every_row_is_judged_once_or_its_label_crosses_an_edge(minutes, reach, count):
    minute = np.concatenate(minutes)
    judged = np.zeros(len(minute), int)
    for fold in splits.time_folds(minute, np.zeros(len(minute)), reach, count):
        judged[fold.judge] += 1
    assert judged.max() == 1
    left_out = minute[judged == 0]
    assert len(np.unique(left_out)) <= count * reach


def test_shares_are_shares_of_instants_with_a_quote():
    """A weekend belongs to no share."""
    minute = np.concatenate([np.arange(600), np.arange(600) + 4000])
    parts = splits.parts_by_time(minute, {"early": 0.5, "late": 0.5}, embargo=60)
    assert parts == [Part("early", 0, 4000), Part("late", 4060, 4600)]


def test_a_left_out_symbol_is_judged_at_instants_that_no_other_taught():
    minute = np.tile(np.arange(5000), 3)
    symbol = np.repeat(["EURUSD", "NZDUSD", "XAUUSD"], 5000)
    part = splits.assign(minute, np.zeros(15_000), 60, SHARES)
    folds = list(splits.symbol_folds(symbol, part))
    assert [fold.name for fold in folds] == ["EURUSD", "NZDUSD", "XAUUSD"]
    for fold in folds:
        assert set(symbol[fold.judge]) == {fold.name}
        assert fold.name not in symbol[fold.fit]
        assert minute[fold.fit].max() + 60 + splits.EMBARGO_MINUTES < minute[fold.judge].min()


@untimed
@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3000)), min_size=1, max_size=4), st.integers(0, 60))
def test_hours_beside_judged_minutes_are_left_out_with_their_labels(spans, reach):
    minute = np.arange(0, 30_000, 7)
    ranges = [(first, first + length) for first, length in spans]
    free = minute[splits.outside(minute, ranges, reach, margin=2880)]
    for first, last in ranges:
        assert ((free + reach < first - 2880) | (free > last + 2880)).all()


def test_bundled_files_fall_into_three_times():
    """As `data/README.md` says: three files are simultaneous, two stand alone."""
    day = 1440
    found = splits.groups_by_time(
        {
            "USDJPY": np.array([500 * day, 528 * day]),
            "XAUUSD": np.array([900 * day, 914 * day]),
            "EURUSD": np.array([900 * day, 914 * day]),
            "GBPUSD": np.array([100 * day, 128 * day]),
            "NZDUSD": np.array([900 * day, 914 * day]),
        }
    )
    assert found == {"GBPUSD": "GBPUSD", "USDJPY": "USDJPY", "EURUSD": "EURUSD", "NZDUSD": "EURUSD", "XAUUSD": "EURUSD"}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: splits.parts_by_time(np.arange(100), {"train": 0.6, "test": 0.5}),
            "shares: expected positive numbers that add up to 1, found {'train': 0.6, 'test': 0.5}; correct them",
        ),
        (
            lambda: splits.parts_by_time(np.arange(100), {"train": 0.6, "test": 0.4}, embargo=40),
            "part test: expected more than the embargo of 40 minutes, found 40 from minute 60 on; "
            "give it a larger share or more data",
        ),
        (
            lambda: list(splits.time_folds(np.arange(9), np.zeros(9), 1, 1)),
            "folds: expected at least 2, found 1; give a larger number",
        ),
        (
            lambda: list(splits.symbol_folds(np.array(["A"]), np.array(["test"]), ("test",), ("test",))),
            "parts: expected each to fit or to judge, found ['test'] in both; take it out of one",
        ),
    ],
)
def test_impossible_splits_are_refused(call, sentence):
    with pytest.raises(ValueError, match=exactly(sentence)):
        call()

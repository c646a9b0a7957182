"""What is said of latencies: percentiles with enough behind them, ratios within rounds, noise."""

import random
from bisect import bisect_left, bisect_right
from fractions import Fraction

import pytest

from bench.figures import BEYOND_MIN, Ratio, milliseconds, percentile, ratio, summarise, table, told_apart


def test_percentile_is_the_least_value_that_a_share_does_not_exceed():
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(200):
        values = sorted(
            draw.randrange(10**9) for _ in range(draw.choice((10_000, 11_000, draw.randrange(6_000, 9_000))))
        )
        for percent in ("50", "90", "99", "99.9"):
            found, share = percentile(values, float(percent)), Fraction(percent) / 100 * len(values)
            assert found is not None
            assert bisect_right(values, found) >= share  # exact: 99.9 % of 11,000 are 10,989, not one more
            assert bisect_left(values, found) < share


def test_percentile_with_too_few_observations_beyond_it_is_not_claimed():
    enough = list(range(100 * BEYOND_MIN))
    assert percentile(enough, 99.0) == 99 * BEYOND_MIN - 1
    assert percentile(enough[1:], 99.0) is None
    assert percentile([], 50.0) is None


def test_summary_counts_and_keeps_the_maximum_whatever_is_claimed():
    found = summarise([3, 1, 2])
    assert (found.messages, found.max_ns) == (3, 3)
    assert set(found.percentiles_ns.values()) == {None}


def test_ratio_is_of_medians_within_each_round():
    # The second round is ten times slower for both: their ratio knows nothing of it.
    over, under = [[4, 4, 100], [40], [6]], [[2], [20, 20], [2]]
    assert ratio(over, under) == Ratio(middle=2.0, low=2.0, high=3.0, rounds=3)


def test_round_without_an_answer_is_no_round():
    assert ratio([[4], []], [[2], [1]]).rounds == 1
    with pytest.raises(ValueError, match="at least one round") as raised:
        ratio([[]], [[1]])
    assert str(raised.value) == (
        "expected at least one round in which both contenders answered, found none; measure longer"
    )


def test_ratio_within_the_band_of_equal_contenders_is_no_difference():
    same = Ratio(1.0, 0.9, 1.2, 12)
    assert not told_apart(Ratio(1.2, 1.0, 1.5, 12), same)
    assert told_apart(Ratio(1.21, 1.0, 1.5, 12), same)
    assert told_apart(Ratio(0.5, 0.4, 0.6, 12), same)


@pytest.mark.parametrize(
    ("value_ns", "text"),
    [(None, "-"), (0, "0.00"), (1_234, "0.0012"), (98_765, "0.0988"), (1_234_567, "1.23"), (123_456_789, "123")],
)
def test_milliseconds_show_three_digits(value_ns, text):
    assert milliseconds(value_ns) == text


def test_table_aligns_names_to_the_left_and_numbers_to_the_right():
    assert table(("who", "ms"), [("echo", "0.1"), ("e", "10.0")]) == "who     ms\necho   0.1\ne     10.0"

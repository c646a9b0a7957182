"""Latencies counted in histograms say what the latencies themselves say."""

import numpy as np
import pytest

from bench.figures import PERCENTILES, percentile
from bench.recorded import as_json, middle_ns, row_of, summary


def test_percentiles_are_the_lists_own_to_a_part_in_64():
    rng = np.random.default_rng(7)
    values = [int(each) for each in rng.lognormal(10, 1.5, 20_000)]
    rows = np.concatenate([row_of(values[:5_000]), row_of(values[5_000:])])
    told = summary(rows)
    assert (told.messages, told.max_ns) == (20_000, max(values))
    for percent in PERCENTILES:
        assert told.percentiles_ns[percent] == pytest.approx(percentile(sorted(values), percent), rel=1 / 64)
    assert middle_ns(row_of(values)) == pytest.approx(told.percentiles_ns[50.0], abs=1)


def test_too_few_observations_have_no_percentile():
    told = summary(row_of(range(100)))
    assert (told.percentiles_ns[90.0], told.percentiles_ns[99.0]) == (89, None)


def test_what_programs_get_holds_every_observation():
    found = as_json(row_of([5, 5, 1_000_000]))
    assert (found["count"], found["max_ns"], found["p50_ns"]) == (3, 1_000_000, None)
    assert [count for _, count in found["buckets"]] == [2, 1]

"""Rows of numbers are found usable where NumPy says so of each row, whatever lies in the others and between them."""

import numpy as np
import pytest

from fastpath.checks import are_chances, are_finite, are_shares

WILD = (0.0, 1.0, 0.25, 0.5, -1e-9, 1.0 + 1e-9, 5e-324, np.nan, np.inf, -np.inf)
TOLERANCE = 1e-3


def chances(row: np.ndarray) -> bool:
    return bool(((row >= 0.0) & (row <= 1.0)).all())


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_usable_where_numpy_says_so(seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for _ in range(300):
        rows = rng.choice(WILD, size=(6, 3), p=[0.15] * 4 + [0.4 / 6] * 6)
        if rng.random() < 0.5:
            rows[rng.integers(6)] = rng.dirichlet((1.0, 1.0, 1.0)) * rng.choice([1.0, 1.0009, 1.0011])
        among = np.zeros(6, [("before", "f8"), ("rows", "f8", 3), ("after", "u1")])["rows"]
        among[:] = rows
        which = rng.choice(6, size=rng.integers(0, 7), replace=False).tolist()
        asked = [rows[i] for i in which]
        assert are_finite(among, which) == all(np.isfinite(row).all() for row in asked)
        assert are_chances(among, which) == all(map(chances, asked))
        expected = all(chances(row) and abs(row.sum() - 1.0) <= TOLERANCE for row in asked)
        assert are_shares(among, which, TOLERANCE) == expected


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_is_not_there_is_an_error(row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} of 2"):
        are_finite(np.zeros((2, 3)), [row])

"""Results by rank within a row: by hand, against counting in float64, and what has no rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.kernels.ranks import SHORTEST, spread_by_rank


def by_counting(values, middle, half, ranked_zeros):
    """middle + half·(2r − 1) from how many magnitudes of a row are smaller and how many are equal."""
    out = np.full(values.shape, middle)
    for row, found in zip(np.abs(values), out, strict=True):
        counted = row if ranked_zeros else row[row > 0]
        for i, size in enumerate(row):
            if size > 0 or ranked_zeros:
                smaller, equal = (counted < size).sum(), (counted == size).sum()
                rank = (smaller + (equal - 1) / 2) / (len(counted) - 1) if len(counted) > 1 else 0.5
                found[i] = middle + half * (2 * rank - 1)
    return out.astype(np.float32)


def test_by_hand():
    """Of 64 entries 61 are 0 and share rank 30; then come 1, −2 and 2, ranks 61 and 62.5 twice, of 63."""
    row = np.zeros((1, 64), np.float32)
    row[0, [5, 9, 40]] = 1, -2, 2
    found = spread_by_rank(row, 0.5, 0.25, True)
    np.testing.assert_array_equal(found[0, [0, 5]], np.float32([0.25 + 0.5 * 30 / 63, 0.25 + 0.5 * 61 / 63]))
    np.testing.assert_array_equal(found[0, [9, 40]], np.float32([0.25 + 0.5 * 62.5 / 63] * 2))
    # Without zeros three are left: the smallest, and two that share 1½ of 2.
    found = spread_by_rank(row, 0.5, 0.25, False)
    assert found[0, [0, 5, 9, 40]].tolist() == [0.5, 0.25, 0.625, 0.625]


VALUES = {
    "few upper bits": lambda rng, shape: rng.integers(-4, 5, shape) * np.float32(2.0**-9),
    "many upper bits": lambda rng, shape: np.float32(2.0) ** rng.integers(-60, 60, shape),
    "lower bits": lambda rng, shape: rng.standard_normal(shape).astype(np.float32) * (rng.random(shape) < 0.7),
    "one bin, many values": lambda rng, shape: np.float32(1) + rng.integers(0, 100, shape) * np.float32(2.0**-23),
    "subnormal": lambda rng, shape: rng.integers(-3, 4, shape) * np.float32(1e-45),
    "infinite": lambda rng, shape: np.where(rng.random(shape) < 0.1, -np.inf, rng.integers(0, 3, shape)),
    "all zero": lambda rng, shape: np.zeros(shape),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(SHORTEST, 3 * SHORTEST), st.booleans())
def test_equals_counting(kind, seed, rows, columns, ranked_zeros):
    """Bit for bit: both add, divide and round once in float64, in the same order."""
    values = VALUES[kind](np.random.default_rng(seed), (rows, columns)).astype(np.float32)
    found = spread_by_rank(values, 0.4, 0.3, ranked_zeros)
    np.testing.assert_array_equal(found, by_counting(values, 0.4, 0.3, ranked_zeros))


def test_nothing_is_left_behind_for_the_next_rows():
    rng = np.random.default_rng(1)
    for kind in VALUES:
        spread_by_rank(VALUES[kind](rng, (3, 100)).astype(np.float32), 0.4, 0.3, False)
    values = np.arange(64, dtype=np.float32)[None]
    assert spread_by_rank(values, 0.0, 1.0, True)[0].tolist() == pytest.approx(np.linspace(-1, 1, 64))


def test_what_is_not_ranked_this_way():
    row = np.zeros((1, SHORTEST), np.float32)
    assert spread_by_rank(row[:, 1:].copy(), 0.5, 0.1, True) is None
    assert spread_by_rank(np.where(np.arange(SHORTEST) == 7, np.float32(np.nan), row), 0.5, 0.1, True) is None
    with pytest.raises(ValueError, match="C-contiguous float32"):
        spread_by_rank(row.astype(np.float64), 0.5, 0.1, True)

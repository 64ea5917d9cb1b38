"""Results by rank within a row: by hand, against counting in float64, and what has no rank."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlmerge.kernels import compiler, ranks
from rlmerge.kernels.blocks import Input, run_blocks
from rlmerge.kernels.deltas import Kind, decode_deltas
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32
from rlmerge.kernels.ranks import SHORTEST, Ranking, scratch_bytes, spread_by_rank
from rlmerge.kernels.values import Spread

from .tiles import awkward, expert_of


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


SPREADS = [Spread(0.4, 0.3, True), Spread(0.5, 0.1, False), Spread(0.25, 0.0, False)]


def ranked(kind, arrays, columns, step):
    """What a ranking makes of stored arrays, ``step`` entries at a time, and whether a row held NaN."""
    memory = np.empty((len(kind.experts), step), np.float32)
    found, odd = [], False
    for start in range(0, len(arrays[0]), step):
        part = [x[start : start + step] for x in arrays]
        call = Ranking(kind, columns, SPREADS).call(memory)
        inputs = [Input(-1, 0, x.itemsize, x.ctypes.data) for x in part]
        assert run_blocks([call], inputs, len(part[0]), start, step, False) is not None
        found.append(memory[:, : len(part[0])].copy())
        odd |= call.odd
    return np.concatenate(found, axis=1), odd


@pytest.mark.parametrize("packs", [512, 256, 0])
@pytest.mark.parametrize("dtypes", [(BFLOAT16,) * 4, (BFLOAT16, FLOAT32, BFLOAT16, FLOAT16)])
@pytest.mark.parametrize("columns", [SHORTEST, 100, 1023])
def test_rows_as_they_are_stored(monkeypatch, packs, dtypes, columns):
    """Mixed types have rows of bits below their bins, some of them in every bin; the last step has fewer rows."""
    rng = np.random.default_rng(columns)
    host = compiler.find_host()
    if packs > host.packs:
        pytest.skip("no such vectors here")
    for made in (ranks._of_arrays, ranks._of_inputs):
        made.cache_clear()
    monkeypatch.setattr(ranks, "find_host", lambda: dataclasses.replace(host, packs=packs))
    base = awkward(rng, 7 * columns, dtypes[0], special=False)
    kind = Kind(dtypes[0], dtypes[1:], np.dtype(np.float32))
    values = [expert_of(rng, awkward(rng, 7 * columns, dtype, special=False), dtype) for dtype in dtypes[1:]]
    values[0] = expert_of(rng, base, BFLOAT16) if dtypes[1] is BFLOAT16 else values[0]
    found, odd = ranked(kind, [base, *values], columns, 3 * columns)
    _, deltas = decode_deltas(kind, [base, *values])
    expected = [
        by_counting(delta.reshape(-1, columns), *spread).reshape(-1)
        for delta, spread in zip(deltas, SPREADS, strict=True)
    ]
    assert not odd
    np.testing.assert_array_equal(found, expected)
    for made in (ranks._of_arrays, ranks._of_inputs):
        made.cache_clear()


@pytest.mark.parametrize("zero", [True, False])
def test_nan_is_told_of_unless_it_counts_as_zero(zero):
    rng = np.random.default_rng(2)
    base = awkward(rng, 4 * 80, BFLOAT16, special=False)
    experts = [expert_of(rng, base, BFLOAT16) for _ in SPREADS]
    experts[1][200] = 0x7FC0
    kind = Kind(BFLOAT16, (BFLOAT16,) * 3, np.dtype(np.float32), zero=zero)
    found, odd = ranked(kind, [base, *experts], 80, 160)
    assert odd is not zero
    if zero:
        _, deltas = decode_deltas(kind, [base, *experts])
        np.testing.assert_array_equal(found[1], by_counting(deltas[1].reshape(4, 80), *SPREADS[1]).reshape(-1))


def test_what_a_ranking_takes():
    kind = Kind(BFLOAT16, (BFLOAT16,), np.dtype(np.float32))
    assert Ranking.takes(kind, SHORTEST)
    assert not Ranking.takes(kind, SHORTEST - 1)
    assert not Ranking.takes(dataclasses.replace(kind, real=np.dtype(np.float64)), SHORTEST)
    with pytest.raises(ValueError, match="a spread of its own"):
        Ranking(kind, SHORTEST, SPREADS)


def test_what_a_thread_keeps_is_what_it_is_said_to_keep():
    for columns in (64, 5000, 65536):
        kept = sum(array.nbytes for array in ranks._arrays(columns))
        assert kept <= scratch_bytes(columns) <= kept + 1024

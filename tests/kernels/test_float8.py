"""Floats of 8 and 4 bits against ml_dtypes, torch and their definitions."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.kernels.float8 import E2M1, E4M3, E5M2, E8M0_VALUES, encode_e8m0

CODES = np.arange(256, dtype=np.uint8)
KINDS = [
    pytest.param(E4M3, ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn, id="e4m3"),
    pytest.param(E5M2, ml_dtypes.float8_e5m2, torch.float8_e5m2, id="e5m2"),
]


@pytest.mark.parametrize(("kind", "known", "_"), KINDS)
def test_the_value_of_every_code(kind, known, _):
    expected = CODES.view(known).astype(np.float32)
    np.testing.assert_array_equal(kind.values.view(np.uint32) & 0x80000000, expected.view(np.uint32) & 0x80000000)
    np.testing.assert_array_equal(kind.values, expected)


def test_the_value_of_every_fp4_code():
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert E2M1.values.tolist() == [*positive, *(-x for x in positive)]
    assert np.signbit(E2M1.values[8])


def test_the_value_of_every_power_of_two():
    assert E8M0_VALUES[:255].tolist() == [2.0 ** (code - 127) for code in range(255)]
    assert np.isnan(E8M0_VALUES[255])


@pytest.mark.parametrize(("kind", "_", "cast"), KINDS)
def test_every_code_rounds_to_itself(kind, _, cast):
    known = ~np.isnan(kind.values)
    np.testing.assert_array_equal(kind.encode(kind.values)[known], CODES[known])
    assert np.isnan(kind.values[kind.encode(kind.values)][~known]).all()


@pytest.mark.parametrize(("kind", "_", "cast"), KINDS)
def test_rounding_is_torchs_cast(kind, _, cast):
    """Random bit patterns of all magnitudes, and values around every border between two codes."""
    rng = np.random.default_rng(3)
    finite = np.unique(kind.values[np.isfinite(kind.values)])
    borders = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    near = [np.nextafter(borders.astype(np.float32), np.float32(to)) for to in (-np.inf, np.inf)]
    special = np.array([np.inf, -np.inf, 0.0, -0.0, 449, 464, 465, 480, 1e6, 61439, 61440, 61441, 1e-45], np.float32)
    words = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    normal = (rng.standard_normal(200_000) * rng.choice([1e-3, 0.1, 1, 100], 200_000)).astype(np.float32)
    values = np.concatenate([borders.astype(np.float32), *near, special, words[~np.isnan(words)], normal])
    expected = torch.from_numpy(values).to(cast).view(torch.uint8).numpy()
    np.testing.assert_array_equal(kind.encode(values), expected)
    assert np.isnan(kind.values[kind.encode(np.array([np.nan, -np.nan], np.float32))]).all()


@given(st.floats(-8, 8, width=32))
def test_fp4_takes_the_nearest_and_of_two_the_even(value):
    code = int(E2M1.encode(np.array([value], np.float32))[0])
    distances = np.abs(E2M1.values.astype(np.float64) - value)
    assert distances[code] == distances.min() or abs(value) > 6
    assert abs(value) <= 6 or abs(E2M1.values[code]) == 6
    ties = np.flatnonzero(distances == distances.min())
    assert len(set(np.abs(E2M1.values[ties]))) == 1 or code % 2 == 0


def test_fp4_has_no_nan():
    with pytest.raises(ValueError, match="no code for NaN"):
        E2M1.encode(np.array([np.nan], np.float32))


def test_powers_of_two_are_rounded_up():
    values = np.array(
        [1, 1.0000001, 0.75, 2.0**-127, 2.0**-130, 2.0**127, 1.5 * 2.0**127, 0, np.inf, np.nan], np.float32
    )
    assert encode_e8m0(values).tolist() == [127, 128, 127, 0, 0, 254, 255, 0, 255, 255]

"""Bitmaps: the order of bits, what counts as a difference, and values put in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlmerge.kernels import bitmaps


def test_the_first_element_is_the_lowest_bit():
    mask = np.zeros(10, bool)
    mask[[0, 3, 9]] = True
    assert bitmaps.pack(mask).tolist() == [0b1001, 0b10]
    assert bitmaps.count(bitmaps.pack(mask)) == 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bits_are_compared_not_numbers(dtype):
    one = np.array([0.0, np.nan, 1.0, -1.0], dtype)
    other = np.array([-0.0, np.nan, 1.0, 1.0], dtype)
    assert bitmaps.differing(one, other).tolist() == [True, False, False, True]
    payload = one.copy()
    payload.view(f"u{one.dtype.itemsize}")[1] ^= 1
    assert bitmaps.differing(one, payload).tolist() == [False, True, False, False]


@given(arrays(bool, st.integers(0, 70)))
def test_packing_and_back(mask):
    bitmap = bitmaps.pack(mask)
    assert bitmaps.unpack(bitmap, len(mask)).tolist() == mask.tolist()
    assert bitmaps.count(bitmap) == mask.sum()


@given(arrays(bool, st.integers(1, 70)), st.sampled_from(["u1", "f2", "f4", "f8", "?"]))
def test_values_take_their_places_in_order(mask, dtype):
    rng = np.random.default_rng(len(mask))
    old, new = (rng.integers(0, 2, len(mask)).astype(dtype) for _ in range(2))
    target = old.copy()
    bitmaps.scatter(target, mask, new[mask])
    np.testing.assert_array_equal(target, np.where(mask, new, old))


def test_a_signalling_nan_arrives_as_it_is():
    target, values = np.zeros(1, np.float32), np.array([0x7F800001], np.uint32).view(np.float32)
    bitmaps.scatter(target, np.array([True]), values)
    assert target.view(np.uint32)[0] == 0x7F800001

"""Bitmaps: the order of bits, what counts as a difference, and values put in place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlmerge.kernels import bitmaps


def padded(mask):
    """The bitmap in whole words."""
    bitmap = bitmaps.pack(mask)
    return np.pad(bitmap, (0, -len(bitmap) % 8))


def test_the_first_element_is_the_lowest_bit():
    mask = np.zeros(10, bool)
    mask[[0, 3, 9]] = True
    assert bitmaps.pack(mask).tolist() == [0b1001, 0b10]
    assert bitmaps.count(padded(mask)) == 3


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
    assert bitmaps.count(padded(mask)) == mask.sum()


@given(arrays(bool, st.integers(1, 70)), st.sampled_from(["u1", "f2", "f4", "f8", "?"]))
def test_values_take_their_places_in_order(mask, dtype):
    rng = np.random.default_rng(len(mask))
    old, new = (rng.integers(0, 2, len(mask)).astype(dtype) for _ in range(2))
    target = old.copy()
    bitmaps.scatter(target, mask, new[mask])
    np.testing.assert_array_equal(target, np.where(mask, new, old))
    compiled = old.copy()
    bitmaps.scatter_words(compiled, padded(mask), new[mask])
    np.testing.assert_array_equal(compiled, target)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_many_values_take_their_places(dtype, share):
    rng = np.random.default_rng(1)
    mask = rng.random(65536) < share
    old, new = (rng.integers(0, 256, len(mask)).astype(dtype) for _ in range(2))
    compiled = old.copy()
    bitmaps.scatter_words(compiled, padded(mask), new[mask])
    np.testing.assert_array_equal(compiled, np.where(mask, new, old))


def test_unaligned_arrays_are_written_too():
    mask = np.arange(128) % 3 == 0
    bitmap = np.concatenate([[0], padded(mask)]).astype(np.uint8)[1:]
    values = np.frombuffer(b"\0" + np.arange(43, dtype=np.uint16).tobytes(), np.uint16, offset=1)
    target = np.zeros(128, np.uint16)
    bitmaps.scatter_words(target, bitmap, values)
    assert target[mask].tolist() == list(range(43))
    assert not target[~mask].any()


@pytest.mark.parametrize(("elements", "bits", "values"), [(60, 61, 61), (64, 64, 63), (64, 0, 1), (1, 65, 65)])
def test_nothing_is_written_elsewhere(elements, bits, values):
    bitmap = padded(np.ones(bits, bool)) if bits else np.zeros(8, np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        bitmaps.scatter_words(np.zeros(elements, np.uint16), bitmap, np.zeros(values, np.uint16))


def test_a_signalling_nan_arrives_as_it_is():
    target, values = np.zeros(1, np.float32), np.array([0x7F800001], np.uint32).view(np.float32)
    bitmaps.scatter(target, np.array([True]), values)
    assert target.view(np.uint32)[0] == 0x7F800001

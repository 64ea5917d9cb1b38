"""What each operation means, by hand."""

import numpy as np
import pytest

from rlmerge.kernels.namespace import NumpyNamespace

XP = NumpyNamespace(np.float32)
TAU = np.array([[1, -2, 0], [4, -2, np.nan]], np.float32)
PLUS, MINUS = np.zeros(40, np.float32), -np.zeros(40, np.float32)


def test_reductions_over_experts():
    np.testing.assert_array_equal(XP.sum(TAU), [5, -4, np.nan])
    np.testing.assert_array_equal(XP.max(TAU), [4, -2, np.nan])
    np.testing.assert_array_equal(XP.min(TAU), [1, -2, np.nan])
    np.testing.assert_array_equal(XP.count(TAU > 0), [2, 0, 0])
    np.testing.assert_array_equal(XP.any(TAU > 1), [True, False, False])
    np.testing.assert_array_equal(XP.all(TAU != 0), [True, True, False])


def test_sum_adds_in_written_order():
    rows = np.array([[1e8], [1], [-1e8], [1]], np.float32)
    assert XP.sum(rows) == 1.0  # pairwise, or in another order, it would be 0 or 2
    assert XP.sum(rows[::-1]) == 0.0


def test_count_is_a_float_of_the_namespace():
    assert XP.count(TAU > 0).dtype == np.float32
    assert NumpyNamespace(np.float64).count(TAU > 0).dtype == np.float64


def test_minimum_and_maximum_spread_nan_from_either_side():
    x, y = np.array([1, np.nan, 1], np.float32), np.array([2, 1, np.nan], np.float32)
    np.testing.assert_array_equal(XP.minimum(x, y), [1, np.nan, np.nan])
    np.testing.assert_array_equal(XP.maximum(x, y), [2, np.nan, np.nan])


@pytest.mark.parametrize("extreme", [XP.minimum, XP.maximum])
def test_of_two_zeros_the_second_is_taken_whatever_the_processor(extreme):
    assert np.signbit(extreme(PLUS, MINUS)).all()
    assert not np.signbit(extreme(MINUS, PLUS)).any()


def test_sign_of_zeros_is_plus_zero_and_of_nan_is_nan():
    np.testing.assert_array_equal(XP.sign(np.array([-3, 5, np.nan], np.float32)), [-1, 1, np.nan])
    assert not np.signbit(XP.sign(MINUS)).any()


def test_numbers_take_the_type_of_the_namespace():
    for result in (XP.sqrt(2.0), XP.abs(-2), XP.sign(3), XP.maximum(0.1, 0.2), XP.where(True, 1.0, 2.0)):
        assert result.dtype == np.float32
        assert (np.ones(2, np.float32) * result).dtype == np.float32


def test_where_keeps_masks_and_turns_numbers_into_floats():
    mask = np.array([True, False])
    assert XP.where(mask, mask, ~mask).dtype == np.bool_
    np.testing.assert_array_equal(XP.where(mask, TAU[:, :2], 0.5), np.array([[1, 0.5], [4, 0.5]], np.float32))


def test_isfinite():
    assert XP.isfinite(np.array([1, np.inf, -np.inf, np.nan], np.float32)).tolist() == [True, False, False, False]


def test_a_sum_of_masks_is_refused_because_numpy_would_or_them():
    with pytest.raises(TypeError, match=r"use xp\.count"):
        XP.sum(TAU > 0)

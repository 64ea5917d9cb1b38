"""The steps that methods share, one by one, on numbers small enough to follow."""

import numpy as np
import pytest

from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.methods.parts import (
    elect_sign,
    elected_sum,
    keep_all,
    scale_to_l1,
    top_share,
    trim,
    weighted_sum,
    weights_do_not_cancel,
)

xp = NumpyNamespace(np.float64)
TAU = np.array([[1.0, -3.0, 0.0, 2.0], [2.0, 1.0, 0.0, -2.0]])


def test_trim_keeps_what_reaches_the_threshold_of_its_expert():
    trimmed = trim(xp, TAU, np.array([[2.0], [2.0]]))
    np.testing.assert_array_equal(trimmed, [[0, -3, 0, 2], [2, 0, 0, -2]])


def test_an_infinite_threshold_keeps_nothing_and_zero_keeps_all():
    np.testing.assert_array_equal(trim(xp, TAU, np.inf), np.zeros((2, 4)))
    np.testing.assert_array_equal(trim(xp, TAU, 0.0), TAU)


def test_a_sum_of_zero_elects_plus():
    np.testing.assert_array_equal(elect_sign(xp, TAU), [1, -1, 1, 1])


def test_elected_entries_add_up_or_are_averaged():
    weight = np.array([[1.0], [3.0]])
    # Weighted: 1 + 6; −3 + 3 = 0 elects +, 3 agrees; nothing; 2 − 6 elects −.
    np.testing.assert_array_equal(elected_sum(xp, TAU, weight, normalize=False), [7, 3, 0, -6])
    np.testing.assert_array_equal(elected_sum(xp, TAU, weight, normalize=True), [7 / 4, 1, 0, -2])


def test_weighted_sums_are_divided_by_the_weights_when_asked():
    weight = np.array([[1.0], [3.0]])
    np.testing.assert_array_equal(weighted_sum(xp, TAU, weight, normalize=False), [7, 0, 0, -4])
    np.testing.assert_array_equal(weighted_sum(xp, TAU, weight, normalize=True), [7 / 4, 0, 0, -1])


@pytest.mark.parametrize(("density", "rank"), [(0.0, 0), (0.001, 1), (0.3, 3), (0.39, 3), (1.0, 10)])
def test_the_rank_of_a_share_of_ten_entries(density, rank):
    assert top_share(10, np.zeros(1), {"density": np.array([density])}) == rank


def test_thresholds_are_known_without_a_scan_only_when_all_is_kept():
    np.testing.assert_array_equal(keep_all({"density": np.ones(2)}), [0, 0])
    assert keep_all({"density": np.array([1.0, 0.9])}) is None


def test_factors_that_restore_a_norm_leave_empty_vectors_alone():
    found = scale_to_l1(np.array([6.0, 0.0, 5.0]), np.array([2.0, 0.0, 0.0]))
    np.testing.assert_array_equal(found, [3, 1, 1])


def test_cancelling_weights_are_a_problem_only_for_normalize():
    weight = np.array([0.5, -0.5])
    assert weights_do_not_cancel({"normalize": True, "weight": weight})
    assert not weights_do_not_cancel({"normalize": False, "weight": weight})
    assert not weights_do_not_cancel({"normalize": True, "weight": weight + 0.1})

"""One tile of sparse complementary fusion, with rows and thresholds given by hand."""

import numpy as np
import pytest

from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.methods.complementary import Fusion

BASE = np.array([0.0, 1.0, 2.0, 3.0])
THETA = np.array([[0.0, 3.0, 2.5, 1.0], [1.0, 3.0, 5.0, 3.0]])


def fusion(importance="row", direction="reverse", order="sequential", rows=None, sensitivity=None):
    rows = [[np.full(4, 2.0)], [np.full(4, 1.0)]] if rows is None else rows
    return Fusion(NumpyNamespace(np.float64), BASE, THETA, importance, direction, order, rows, sensitivity)


def test_importance_of_rows_and_of_sensitivity():
    np.testing.assert_array_equal(fusion().importance_of(0, BASE), [0, 4, 1, 4])
    np.testing.assert_array_equal(fusion("fisher").importance_of(1, BASE), [0.5, 2, 4.5, 0])
    measured = np.array([[1.0, 1, 1, 1], [4.0, 0, 2, 1]])
    np.testing.assert_array_equal(fusion("fisher", sensitivity=measured).importance_of(1, BASE), [2, 0, 9, 0])


@pytest.mark.parametrize("direction", ["reverse", "forward"])
def test_importance_of_entries_is_their_term_of_the_divergence(direction):
    q, p = (np.exp(w) / np.exp(w).sum() for w in (BASE, THETA[0]))
    totals = [np.log(np.exp(w).sum()) for w in (BASE, THETA[0])]
    rows = [np.full(4, totals[direction == "forward"]), np.full(4, totals[1] - totals[0])]
    found = fusion("element", direction, rows=[rows]).importance_of(0, BASE)
    expected = q * np.log(q / p) if direction == "reverse" else p * np.log(p / q)
    np.testing.assert_allclose(found, np.where(THETA[0] == BASE, 0, np.abs(expected)), rtol=1e-12)


def test_a_later_expert_is_compared_with_what_is_there():
    fused, taken = fusion().fuse([np.array([4.0]), np.array([2.0])])
    # The first gives 3 and 1; beside these the second has importances 1, 0, 3, 2.
    np.testing.assert_array_equal(fused, [0, 3, 5, 3])
    np.testing.assert_array_equal(taken, [[0, 1, 0, 0], [0, 0, 1, 1]])


def test_the_most_important_expert_gives_each_weight():
    best, whose = fusion(order="argmax").largest()
    np.testing.assert_array_equal(best, [1, 4, 3, 4])
    np.testing.assert_array_equal(whose, [[0, 1, 0, 1], [1, 0, 1, 0]])
    fused, taken = fusion(order="argmax").fuse([np.array([3.0])])
    np.testing.assert_array_equal(fused, [0, 3, 5, 1])
    np.testing.assert_array_equal(taken, [[0, 1, 0, 1], [0, 0, 1, 0]])

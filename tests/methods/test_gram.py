"""Scalar products of three small vectors."""

import numpy as np

from rlmerge.methods.gram import matrix, products, row_products

VECTORS = np.array([[[1.0, 2.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [2.0, 0.0]]])


def test_products_come_pair_by_pair():
    sums = [float(x.sum()) for x in products(VECTORS)]
    # (1, 2, 0, 1)², with (3, 0, 1, 1), with (0, 1, 2, 0); (3, 0, 1, 1)², with (0, 1, 2, 0); (0, 1, 2, 0)².
    assert sums == [6, 4, 2, 11, 2, 5]


def test_row_products_are_the_same_row_by_row():
    np.testing.assert_array_equal(row_products(VECTORS), [[5, 1], [3, 1], [2, 0], [9, 2], [0, 2], [1, 4]])


def test_the_matrix_is_symmetric():
    np.testing.assert_array_equal(matrix([6, 4, 2, 11, 2, 5], 3), [[6, 4, 2], [4, 11, 2], [2, 2, 5]])
    rows = matrix(row_products(VECTORS), 3)
    np.testing.assert_array_equal(rows[:, :, 1], [[1, 1, 0], [1, 2, 2], [0, 2, 4]])

"""Fixed-order products, factors and solutions: by hand, against LAPACK, and with bits that no BLAS decides."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.kernels import matrix
from rlmerge.kernels.matrix import DEPTH, NotPositiveError, add_to, cholesky, divide, gram, product, squares, unmix


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def definite(n, seed=0):
    return gram(normal(n + 5, n, seed=seed))


def in_order(left, right):
    """The documented order: rising within blocks of DEPTH, block after block."""
    total = np.zeros((len(left), right.shape[1]))
    for start in range(0, left.shape[1], DEPTH):
        part = np.zeros_like(total)
        for k in range(start, min(start + DEPTH, left.shape[1])):
            part += left[:, k, None].astype(np.float64) * right[k]
        total += part
    return total


def test_a_product_by_hand():
    assert product(np.array([[1.0, 2], [3, 4]]), np.array([[5.0], [6]])).tolist() == [[17], [39]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 300, 5), (260, 7, 33), (5, 513, 40), (0, 3, 4), (3, 0, 4), (3, 4, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_is_the_documented_one(shape, dtype):
    m, k, n = shape
    left, right = normal(m, k).astype(dtype), normal(k, n, seed=1)
    np.testing.assert_array_equal(product(left, right), in_order(left, right))
    turned = np.asfortranarray(left), np.asfortranarray(right)
    np.testing.assert_array_equal(product(*turned), product(left, right))


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 20))
def test_parts_of_a_product_are_products_of_parts(m, cut, n):
    left, right = normal(m, 400), normal(400, n, seed=2)
    whole, cut = product(left, right), min(cut, m)
    np.testing.assert_array_equal(product(left[:cut], right), whole[:cut])
    np.testing.assert_array_equal(product(left, right[:, : n // 2]), whole[:, : n // 2])


def test_adding_onto_a_matrix():
    total = np.full((2, 3), 10.0)
    found = add_to(total, np.array([[1.0], [2]]), np.array([[1.0, 2, 3]]), -2.0)
    assert found is total
    assert total.tolist() == [[8, 6, 4], [6, 2, -2]]


def test_gram_matrices_are_exactly_symmetric():
    found = gram(normal(300, 40))
    np.testing.assert_array_equal(found, found.T)
    assert squares(np.array([3.0, 4.0], np.float32)) == 25.0


def test_integers_are_no_matrix():
    with pytest.raises(TypeError, match="float32 or float64, not int64"):
        product(np.ones((2, 2), np.int64), np.ones((2, 2)))


def test_a_factor_by_hand():
    np.testing.assert_array_equal(cholesky(np.array([[4.0, 2], [2, 10]])), [[2, 0], [1, 3]])


@pytest.mark.parametrize("n", [1, 5, 64, 65, 200])
def test_factors_and_solutions_are_lapacks(n):
    found = definite(n)
    lower = cholesky(found)
    # Both are backward stable: n · 2^-53 of the matrix, times its condition (below 1e7 here) in the solution.
    np.testing.assert_allclose(lower, np.linalg.cholesky(found), rtol=0, atol=1e-8 * np.sqrt(np.abs(found).max()))
    np.testing.assert_allclose(lower @ lower.T, found, rtol=0, atol=n * 2.0**-50 * np.abs(found).max())
    rows = normal(7, n, seed=3)
    np.testing.assert_allclose(divide(rows, lower) @ found, rows, rtol=0, atol=1e-7)
    np.testing.assert_allclose(unmix(rows, lower) @ lower.T, rows, rtol=0, atol=1e-9)


def test_a_matrix_that_is_not_positive_is_refused():
    with pytest.raises(NotPositiveError, match="pivot 1"):
        cholesky(np.array([[1.0, 1], [1, 1]]))
    with pytest.raises(NotPositiveError):
        cholesky(np.array([[np.nan]]))
    with pytest.raises(NotPositiveError):
        cholesky(0.5 * np.eye(2), margin=0.5)


def test_semidefinite_matrices_leave_columns_at_0():
    thin = normal(3, 80)
    found = gram(thin)
    lower = cholesky(found, margin=None)
    assert np.count_nonzero(np.diagonal(lower)) == 3
    np.testing.assert_allclose(lower @ lower.T, found, rtol=0, atol=1e-12 * np.abs(found).max())
    # A row in the span of the matrix is found again.
    rows = product(normal(4, 3, seed=1), thin)
    np.testing.assert_allclose(divide(rows, lower) @ found, rows, rtol=0, atol=1e-8)


PRINT = """
import hashlib, numpy as np
from rlmerge.kernels.matrix import cholesky, divide, gram
x = np.random.default_rng(0).standard_normal((300, 130))
lower = cholesky(gram(x))
print(hashlib.sha256(lower.tobytes() + divide(x, lower).tobytes()).hexdigest())
"""


@pytest.mark.parametrize("kernel", ["Prescott", "Haswell"])
def test_no_blas_decides_about_bits(kernel):
    """OpenBLAS with another kernel and another number of threads, in another process."""
    x = normal(300, 130)
    lower = cholesky(gram(x))
    here = hashlib.sha256(lower.tobytes() + divide(x, lower).tobytes()).hexdigest()
    environment = os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


def test_rows_at_a_time_change_nothing(monkeypatch):
    left, right = normal(100, 300), normal(300, 50, seed=1)
    expected = product(left, right)
    monkeypatch.setattr(matrix, "_ROWS", 7)
    np.testing.assert_array_equal(product(left, right), expected)

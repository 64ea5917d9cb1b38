"""Bases, sketches and eigenvectors against LAPACK's singular values, and where matrices lack rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.kernels.spectrum import orthonormal, polar, singular, sketch, symmetric


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_orthonormal(basis):
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), rtol=0, atol=1e-13)


def test_a_basis_by_hand():
    """(3, 4) is five times (0.6, 0.8); the second column repeats it, the third adds (−0.8, 0.6)."""
    found = orthonormal(np.array([[3.0, 6, 1], [4, 8, 0]]))
    np.testing.assert_allclose(np.abs(found), [[0.6, 0.8], [0.8, 0.6]], rtol=1e-14)
    assert_orthonormal(found)


def test_columns_of_0_have_no_basis():
    assert orthonormal(np.zeros((5, 3))).shape == (5, 0)
    assert sketch(np.zeros((4, 6)), 2).shape == (6, 0)


@given(st.integers(0, 50))
def test_scales_of_many_orders_keep_the_basis_orthonormal(seed):
    columns = normal(40, 6, seed=seed) * 10.0 ** np.random.default_rng(seed).uniform(-12, 6, 6)
    basis = orthonormal(columns)
    assert basis.shape == (40, 6)
    assert_orthonormal(basis)


def test_a_sketch_spans_a_matrix_of_its_rank():
    rows = normal(70, 12) @ normal(12, 90, seed=1)
    basis = sketch(rows, 20)
    assert basis.shape == (90, 12)
    assert_orthonormal(basis)
    np.testing.assert_allclose(rows @ basis @ basis.T, rows, rtol=0, atol=1e-12)


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_the_error_of_a_sketch_is_within_its_bound(passes):
    """Halko, Martinsson and Tropp, corollary 10.10, with the best k, on a spectrum that falls slowly."""
    m, n, rank = 80, 120, 20
    left, _, right = np.linalg.svd(normal(m, n), full_matrices=False)
    sigma = 1 / (1 + np.arange(m))
    rows = left * sigma @ right
    basis = sketch(rows, rank, passes)
    assert basis.shape == (n, rank)
    error = np.linalg.norm(rows - rows @ basis @ basis.T, 2)
    power = 2 * passes + 1
    bounds = [
        (
            (1 + np.sqrt(k / (rank - k - 1))) * sigma[k] ** power
            + np.e * np.sqrt(rank) / (rank - k) * np.sqrt(np.sum(sigma[k:] ** (2 * power)))
        )
        ** (1 / power)
        for k in range(1, rank - 1)
    ]
    assert sigma[rank] <= error * (1 + 1e-12)
    # The bound is on the mean over all sketches; this one is no outlier.
    assert error <= min(bounds)


def test_a_full_sketch_is_everything():
    assert sketch(normal(3, 5), 5).tolist() == np.eye(5).tolist()
    assert sketch(normal(3, 5), 3).shape == (5, 3)


def test_eigenvalues_fall():
    values, vectors = symmetric(np.diag([1.0, 3, 2]))
    assert values.tolist() == [3, 2, 1]
    np.testing.assert_array_equal(np.abs(vectors), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (20, 20)])
def test_singular_triplets_rebuild_the_matrix(shape):
    rows = normal(*shape)
    left, sigma, right = singular(rows, min(shape))
    np.testing.assert_allclose(sigma, np.linalg.svd(rows, compute_uv=False), rtol=1e-11)
    # Vectors through a Gram matrix: the condition (below 1e3 here) times 2^-52, squared once.
    np.testing.assert_allclose(left * sigma @ right, rows, rtol=0, atol=1e-10)
    few = singular(rows, 3)
    assert [x.shape for x in few] == [(shape[0], 3), (3,), (3, shape[1])]


def test_triplets_stop_at_the_rank():
    assert len(singular(normal(30, 4) @ normal(4, 20), 10)[1]) == 4
    assert len(singular(np.zeros((3, 4)), 2)[1]) == 0


def test_rows_of_0_stay_0():
    rows = normal(30, 20)
    rows[3:9] = 0
    left, sigma, _ = singular(rows, 20)
    assert not left[3:9].any()
    assert len(sigma) == 20


def test_the_polar_factor_is_the_product_of_singular_vectors():
    columns = normal(40, 7)
    left, _, right = np.linalg.svd(columns, full_matrices=False)
    np.testing.assert_allclose(polar(columns), left @ right, rtol=0, atol=1e-12)


def test_columns_that_repeat_share_one_direction():
    unit = np.zeros((4, 1))
    unit[1] = 1
    np.testing.assert_allclose(polar(np.hstack([unit, unit])), np.hstack([unit, unit]) / np.sqrt(2), atol=1e-15)

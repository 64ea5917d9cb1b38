"""Truncation of products and extraction from matrices, against full singular value decompositions."""

import numpy as np
import pytest

from rlmerge.adapters.lowrank import extract, share, triangle, truncate

RNG = np.random.default_rng(3)


def pieces(matrix, size):
    return (matrix[first : first + size] for first in range(0, len(matrix), size))


@pytest.mark.parametrize("size", [1, 3, 5, 40])
def test_the_triangle_has_the_gram_matrix(size):
    tall = RNG.standard_normal((40, 5))
    found = triangle(pieces(tall, size), 5)
    assert found.shape == (5, 5)
    # RᵀR = AᵀA up to float64 rounding of sums of 40 squares.
    np.testing.assert_allclose(found.T @ found, tall.T @ tall, rtol=0, atol=1e-12)


def truncated(b, a, rank):
    found = truncate(triangle([b], b.shape[1]), triangle([a.T], len(a)), rank)
    return (b @ found.outer) @ (found.inner @ a), found


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_product_is_truncated_as_its_svd_says(rank):
    b, a = RNG.standard_normal((20, 6)), RNG.standard_normal((6, 30))
    found, result = truncated(b, a, rank)
    u, s, v = np.linalg.svd(b @ a, full_matrices=False)
    np.testing.assert_allclose(found, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=0, atol=1e-10)
    assert result.total == pytest.approx(np.square(s).sum())
    assert result.lost == pytest.approx(np.square(s[rank:6]).sum(), rel=1e-12, abs=1e-20)


def test_the_factors_are_balanced():
    b, a = RNG.standard_normal((20, 6)), RNG.standard_normal((6, 30))
    result = truncate(triangle([b], 6), triangle([a.T], 6), 3)
    np.testing.assert_allclose(np.linalg.norm(b @ result.outer, axis=0), np.linalg.norm(result.inner @ a, axis=1))


def test_a_product_of_smaller_rank_than_asked_for_is_exact_and_finite():
    b = np.repeat(RNG.standard_normal((20, 1)), 4, axis=1)
    a = RNG.standard_normal((4, 30))
    found, result = truncated(b, a, 3)
    np.testing.assert_allclose(found, b @ a, rtol=0, atol=1e-12)
    # Squares of what float64 leaves of three directions that are not there.
    assert result.lost < 1e-25 * result.total


def test_nothing_stays_nothing():
    found, result = truncated(np.zeros((5, 2)), np.zeros((2, 7)), 1)
    assert not found.any() and (result.lost, result.total) == (0, 0)
    assert share(result.lost, result.total) == 0


def test_a_product_of_fewer_rows_than_its_rank():
    b, a = RNG.standard_normal((2, 6)), RNG.standard_normal((6, 4))
    found, _ = truncated(b, a, 3)
    np.testing.assert_allclose(found, b @ a, rtol=0, atol=1e-12)


def extracted(matrix, rank, size=7):
    def rows():
        for first in range(0, len(matrix), size):
            yield first, matrix[first : first + size]

    return extract(rows, matrix.shape, rank, 11)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (5, 60), (60, 5)])
def test_a_matrix_of_low_rank_is_found_exactly(shape):
    matrix = RNG.standard_normal((shape[0], 3)) @ RNG.standard_normal((3, shape[1]))
    found = extracted(matrix, 4)
    assert (found.b.shape, found.a.shape) == ((shape[0], 4), (4, shape[1]))
    np.testing.assert_allclose(found.b @ found.a, matrix, rtol=0, atol=1e-11)
    # What remains of ‖Δ‖² − Σσ² in float64.
    assert found.lost <= 1e-13 * found.total


def test_a_decaying_spectrum_is_cut_where_the_svd_cuts_it():
    u, v = (np.linalg.qr(RNG.standard_normal((80, 80)))[0] for _ in range(2))
    matrix = (u * 0.8 ** np.arange(80)) @ v.T
    found = extracted(matrix, 8)
    best = np.square(0.8 ** np.arange(8, 80)).sum()
    lost = np.square(matrix - found.b @ found.a).sum()
    assert found.lost == pytest.approx(lost, rel=1e-9), "the loss is that of these factors"
    assert best <= lost * (1 + 1e-12) and lost <= 1.0001 * best


def test_a_flat_spectrum_loses_little_more_than_it_must():
    matrix = RNG.standard_normal((200, 150))
    found = extracted(matrix, 16)
    values = np.linalg.svd(matrix, compute_uv=False)
    # Pure noise is the hardest case: its directions differ too little for two passes to tell them apart (2 % was seen).
    assert found.lost <= 1.05 * np.square(values[16:]).sum()


def test_a_rank_beyond_the_matrix_is_filled_with_zeros():
    matrix = RNG.standard_normal((3, 5))
    found = extracted(matrix, 6)
    assert not found.b[:, 3:].any() and not found.a[3:].any()
    np.testing.assert_allclose(found.b @ found.a, matrix, rtol=0, atol=1e-12)


def test_a_zero_matrix():
    found = extracted(np.zeros((4, 5)), 2)
    assert not found.b.any() and not found.a.any() and (found.lost, found.total) == (0, 0)

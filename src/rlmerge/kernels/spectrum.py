"""Bases of row spaces, and eigenvectors: the part of linear algebra that methods on subspaces stand on.

``sketch`` and ``orthonormal`` are made of fixed-order products and give the same bits everywhere. ``symmetric`` asks
LAPACK, whose last bits depend on the BLAS and its threads: eigenvalues to about 2⁻⁵⁰ of the largest one, eigenvectors
to that over the gap to the next value, products that do not tell equal values apart to about 1e-13.
"""

from __future__ import annotations

import numpy as np

from . import random
from .matrix import cholesky, gram, product, unmix

_TINY = 1e-12
"""Eigenvalues of this share of the largest one are rounding errors of a Gram matrix in float64 of any usual size."""


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis [n, r ≤ k] of the span of ``columns`` [n, k].

    Cholesky QR, twice. Columns that depend on those before them to rounding are left out.
    """
    found = columns
    for _ in range(2):
        lengths = np.sqrt(np.sum(np.square(found, dtype=np.float64), axis=0))
        found = found[:, lengths > 0] / lengths[lengths > 0]
        lower = cholesky(gram(found), margin=None)
        # What is left of a column by the others is rounding up to about 1e-8·√k; the second pass sees to the digits.
        independent = np.diagonal(lower) > 1e-6
        lower[:, ~independent] = 0.0
        found = unmix(found, lower)[:, independent]
    return found


def sketch(rows: np.ndarray, rank: int, passes: int = 1) -> np.ndarray:
    """An orthonormal basis [n, r ≤ rank] that holds most of the row space of ``rows`` [m, n].

    The randomised range finder (Halko, Martinsson and Tropp, 2011, arXiv 0909.4061, algorithm 4.4) with ``passes``
    power iterations and a fixed stream of uniform numbers. With σ_j the singular values, the expected error of rank r
    is at most (1 + c)^(1 / (2·passes + 1))·σ_{k+1} for c = √(k / (r − k − 1)) + e√r·√(min(m, n) − k) / (r − k) and any
    k < r − 1 (corollary 10.10 there; it has normal numbers where these are uniform). All of it where ``rank`` reaches
    min(m, n).
    """
    m, n = rows.shape
    if rank >= n:
        return np.eye(n)
    basis = orthonormal(product(rows.T, mixing(m, min(rank, m), 0, m)))
    for _ in range(passes):
        basis = orthonormal(product(rows.T, product(rows, basis)))
    return basis


def mixing(m: int, width: int, row: int, count: int) -> np.ndarray:
    """Rows ``row`` … ``row + count`` of the matrix [m, width] that a sketch of m rows begins with: uniform numbers, or
    the identity where ``width`` is m."""
    if width == m:
        return np.eye(count, m, row)
    numbers = random.uniform(random.stream_key("sketch", m, width), row * width, count * width)
    return numbers.reshape(count, width) - np.float32(0.5)


def symmetric(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [n] of a symmetric matrix from the largest down, and its eigenvectors [n, n] in columns (LAPACK)."""
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], np.ascontiguousarray(vectors[:, ::-1])


def singular(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The leading singular triplets of ``matrix`` [m, n]: U [m, r], σ [r] from the largest down, Vᵀ [r, n].

    From the eigenvectors of the smaller Gram matrix, so singular values below 1e-6 of the largest one, of which it has
    lost half of the digits, are left out with those beyond ``rank``.
    """
    m, n = matrix.shape
    upright = m <= n
    values, vectors = symmetric(gram(matrix.T if upright else matrix))
    kept = min(rank, int(np.count_nonzero(values > _TINY * max(values[0], 0.0)))) if len(values) else 0
    sigma, near = np.sqrt(values[:kept]), vectors[:, :kept]
    if not upright:
        return product(matrix, near) / sigma, sigma, np.ascontiguousarray(near.T)
    far = product(near.T, matrix) / sigma[:, None]
    # Back through the matrix, so that its rows of 0 are rows of 0 in U, which eigenvectors have only to rounding.
    return product(matrix, far.T) / sigma, sigma, far


def polar(columns: np.ndarray) -> np.ndarray:
    """The closest matrix with orthonormal columns, X·(XᵀX)^(−1/2) [n, k], where X [n, k] has full rank.

    Columns that repeat share one direction: the inverse root is the pseudo-inverse's.
    """
    values, vectors = symmetric(gram(columns))
    kept = values > _TINY * max(values[0], 0.0) if len(values) else values > 0
    turned = vectors[:, kept]
    return product(columns, product(turned / np.sqrt(values[kept]), turned.T))

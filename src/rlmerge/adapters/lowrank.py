"""Best approximations of low rank, of a product of factors and of a matrix that is only read by rows.

Both are in float64 and by LAPACK, whose last bits depend on the machine; no more than a few rows are held beside the
result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from rlmerge.frozen import frozen

OVERSAMPLING = 16
"""Directions that are followed beyond the rank, so that the last ones kept are found as well as the first."""

ROUNDS = 2
"""Passes that turn random directions towards the largest singular values, before the one that gives the result."""


@frozen
class Truncated:
    """How ``B·A`` [out, in] of rank R becomes one of rank r: ``(B·outer)·(inner·A)``.

    ``outer`` [R, r], ``inner`` [r, R]; ``lost`` and ``total`` are squared Frobenius norms of the rest and of B·A.
    """

    outer: np.ndarray
    inner: np.ndarray
    lost: float
    total: float


def triangle(pieces: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """The factor R [≤ columns, columns] of the QR decomposition of a tall matrix given in pieces of rows."""
    found = np.zeros((0, columns))
    for piece in pieces:
        found = np.asarray(np.linalg.qr(np.concatenate((found, piece)), mode="r"))
    return found


def truncate(outer: np.ndarray, inner: np.ndarray, rank: int) -> Truncated:
    """The best approximation of ``B·A`` of ``rank``, from the triangles of B and of Aᵀ.

    With B = Q·R and Aᵀ = P·S the singular values of B·A are those of R·Sᵀ = U·Σ·Vᵀ, and as A·P = Sᵀ, the left factor
    Q·U·Σ is B·(Sᵀ·V); neither Q nor P is needed.
    """
    left, values, right = np.linalg.svd(outer @ inner.T)
    kept = values[:rank]
    # Directions that the product has not at all would be divided by nothing.
    root = np.zeros(rank)
    is_there = kept > values[0] * np.finfo(np.float64).eps if len(values) else np.zeros(0, bool)
    root[: len(kept)][is_there] = 1 / np.sqrt(kept[is_there])
    u, v = np.zeros((len(outer), rank)), np.zeros((len(inner), rank))
    u[:, : len(kept)], v[:, : len(kept)] = left[:, : len(kept)], right[: len(kept)].T
    lost = float(np.square(values[rank:]).sum())
    total = float(np.square(values).sum())
    return Truncated((inner.T @ v) * root, (root * (outer.T @ u)).T, lost, total)


@frozen
class Extracted:
    """The factors ``b`` [out, rank] and ``a`` [rank, in] nearest to a matrix; squared norms as in ``Truncated``."""

    b: np.ndarray
    a: np.ndarray
    lost: float
    total: float


def extract(
    rows: Callable[[], Iterable[tuple[int, np.ndarray]]], shape: tuple[int, int], rank: int, seed: int
) -> Extracted:
    """The factors of ``rank`` nearest to a matrix of ``shape`` [out, in], found by a randomised subspace iteration.

    ``rows()`` gives (first row, float64 [n, in]) over the whole matrix, each time it is called; it is called
    ``ROUNDS`` + 1 times (Halko, Martinsson and Tropp 2011, arXiv 0909.4061). The loss is that of the factors found,
    not an estimate.
    """
    outputs, inputs = shape
    width = min(rank + OVERSAMPLING, outputs, inputs)
    basis = np.random.Generator(np.random.Philox(seed)).standard_normal((inputs, width))
    for _ in range(ROUNDS):
        basis = np.linalg.qr(basis)[0]
        turned = np.zeros_like(basis)
        for _, piece in rows():
            turned += piece.T @ (piece @ basis)
        basis = turned
    basis = np.linalg.qr(basis)[0]
    image, total = np.empty((outputs, width)), 0.0
    for first, piece in rows():
        image[first : first + len(piece)] = piece @ basis
        total += float(np.vdot(piece, piece))
    left, values, right = np.linalg.svd(image, full_matrices=False)
    kept = min(rank, width)
    root = np.sqrt(values[:kept])
    b, a = np.zeros((outputs, rank)), np.zeros((rank, inputs))
    b[:, :kept], a[:kept] = left[:, :kept] * root, (root * (basis @ right[:kept].T)).T
    lost = max(0.0, total - float(np.square(values[:kept]).sum()))
    return Extracted(b, a, lost, total)


def share(lost: float, total: float) -> float:
    """The relative Frobenius norm of what is lost; 0 of nothing."""
    return math.sqrt(lost / total) if total else 0.0

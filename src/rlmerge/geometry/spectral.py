"""How an update moves the singular values and directions of a matrix (arXiv 2511.08567, 2602.11717).

Small matrices are decomposed completely, in float64. Larger ones by randomised SVD (Halko, Martinsson and Tropp, 2011,
algorithms 4.4 and 5.1: Gaussian sketch, power iterations), whose error is bounded afterwards by the residual.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge.frozen import frozen

Matrix = npt.NDArray[Any]

EXACT = 1024
"""Shorter side up to which the decomposition is complete."""

RANK = 32
"""Leading directions that are compared."""

ALPHA = 0.1
"""Share of entries that count as principal."""

_OVERSAMPLING, _POWERS = 16, 2


@frozen(eq=False)
class Decomposition:
    """Leading singular triplets: ``left`` [m, r], ``values`` [r] descending, ``right`` [n, r].

    Each value is within ``error`` · σ₁ of a singular value; 0 means that the decomposition is complete.
    """

    left: Matrix
    values: Matrix
    right: Matrix
    error: float


@frozen(slots=True)
class SpectralShift:
    """Figures of one matrix. NaN where 0/0.

    ``nss``: ‖σ(W₊) - σ(W₀)‖₂ / ‖W₀‖_F, over the leading values only when the decomposition is randomised. Angles: mean
    of the principal angles between the leading ``rank`` directions, in degrees. ``mask_overlap``: share of the changed
    entries among the top ``mask_chance`` of |W₀| rebuilt from its leading directions. ``stable_rank``: ‖τ‖_F²/‖τ‖₂².
    """

    rank: int
    nss: float
    angle_left: float
    angle_right: float
    mask_overlap: float
    mask_chance: float
    stable_rank: float
    error: float
    singular_values: tuple[float, ...]


def decompose(matrix: Matrix, rank: int = RANK, *, exact: int = EXACT, seed: int = 0) -> Decomposition:
    """The leading ``rank`` singular triplets of ``matrix`` [m, n]; all of them up to a shorter side of ``exact``."""
    if min(matrix.shape) <= exact:
        left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        return Decomposition(left, values, right.T, 0.0)
    random = np.random.default_rng(seed)
    width = min(rank + _OVERSAMPLING, min(matrix.shape))
    basis = np.linalg.qr(matrix @ _gaussian(random, matrix, width))[0]
    for _ in range(_POWERS):
        basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis)[0])[0]
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    left, values, right = (basis @ left)[:, :rank], values[:rank], right.T[:, :rank]
    # Aᵀu = σv holds by construction, so this residual alone bounds the distance to a singular value of A (Weyl).
    residual = float(np.linalg.norm(matrix @ right - left * values, axis=0).max())
    return Decomposition(left, values, right, residual / float(values[0]) if values[0] > 0 else 0.0)


def compare(before: Matrix, first: Decomposition, after: Matrix, *, exact: int = EXACT) -> SpectralShift:
    """``after`` against ``before`` [m, n], whose decomposition ``first`` is given."""
    second = decompose(after, exact=exact)
    rank = min(RANK, len(first.values))
    tau = after - before
    norm = float(np.linalg.norm(before))
    square = float(np.linalg.norm(tau)) ** 2
    largest = float(decompose(tau, 1, exact=exact).values[0])
    changed = tau != 0
    principal = _principal(first, rank, changed.size)
    return SpectralShift(
        rank,
        _ratio(float(np.linalg.norm(second.values - first.values)), norm),
        _mean_angle(first.left[:, :rank], second.left[:, :rank]),
        _mean_angle(first.right[:, :rank], second.right[:, :rank]),
        _ratio(int(np.count_nonzero(principal & changed)), int(np.count_nonzero(changed))),
        float(np.mean(principal)),
        _ratio(square, largest**2),
        max(first.error, second.error),
        tuple(float(x) for x in second.values[:RANK]),
    )


def principal_angles(first: Matrix, second: Matrix) -> Matrix:
    """Angles [r] in radians, ascending, between the spans of two orthonormal bases [m, r].

    From sines and cosines together (Björck and Golub, 1973): arccos alone loses angles below 1e-8.
    """
    inner = first.T @ second
    cosines = np.linalg.svd(inner, compute_uv=False)
    sines = np.linalg.svd(second - first @ inner, compute_uv=False)
    return np.arctan2(sines[::-1], cosines)


def _mean_angle(first: Matrix, second: Matrix) -> float:
    return math.degrees(float(principal_angles(first, second).mean()))


def _principal(found: Decomposition, rank: int, size: int) -> Matrix:
    """Mask of the largest entries of the rank-``rank`` reconstruction, ``ALPHA`` of all of them."""
    rebuilt = np.abs((found.left[:, :rank] * found.values[:rank]) @ found.right[:, :rank].T)
    kept = max(1, round(ALPHA * size))
    return rebuilt >= np.partition(rebuilt.reshape(-1), size - kept)[size - kept]


def _gaussian(random: np.random.Generator, matrix: Matrix, width: int) -> Matrix:
    return random.standard_normal((matrix.shape[1], width)).astype(matrix.dtype)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan

"""Products, triangular factors and solutions of matrices whose bits never depend on threads, tiles or BLAS.

Everything is float64. An entry of a product is summed in blocks of ``DEPTH`` along the inner index: rising within a
block, each operation rounded by itself, and block after block onto what is there. Factors and solutions are made of
such products and of elementwise operations in a fixed order.
"""

from __future__ import annotations

import numpy as np

from .dtypes import FLOAT32, FLOAT64, DType
from .lowrank import add_product

DEPTH = 256
"""Terms of a product that are summed before they are added to the entry: part of the arithmetic."""

_ROWS = 256
"""Rows of a product that are computed at a time; no result depends on it."""

_PANEL = 64
"""Columns of a factor that are eliminated one by one, the rest by products: part of the arithmetic."""


class NotPositiveError(ArithmeticError):
    """A matrix is not positive definite by the margin that was asked for."""


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left`` [m, k] times ``right`` [k, n], each float32 or float64 with any strides, as float64 [m, n]."""
    return add_to(np.zeros((len(left), right.shape[1])), left, right)


def add_to(total: np.ndarray, left: np.ndarray, right: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Add ``scale``·``left``·``right`` to ``total`` (float64 [m, n], rows contiguous) in place, and return it."""
    types = FLOAT64, _type(left), _type(right)
    cols = total.shape[1]
    for start in range(0, left.shape[1], DEPTH):
        inner = slice(start, start + DEPTH)
        panel = np.ascontiguousarray(right[inner])
        for first in range(0, len(total) if cols else 0, _ROWS):
            rows = total[first : first + _ROWS].reshape(-1)
            add_product(rows, left[first : first + _ROWS, inner], panel, scale, types, rows)
    return total


def gram(x: np.ndarray) -> np.ndarray:
    """xᵀx [n, n] of ``x`` [m, n], exactly symmetric."""
    return product(x.T, x)


def squares(x: np.ndarray) -> float:
    """Σ x², in float64."""
    return float(np.sum(np.square(x, dtype=np.float64)))


def cholesky(matrix: np.ndarray, *, margin: float | None = 0.0) -> np.ndarray:
    """The lower L with L·Lᵀ = ``matrix`` (symmetric [n, n]; only the lower half is read).

    NotPositiveError when a pivot is not above ``margin``. With ``margin`` None a pivot of no more than n·2⁻⁵² of its
    diagonal entry counts as 0 and its column stays 0, so that semidefinite matrices have a factor too.
    """
    n = len(matrix)
    lower = np.zeros((n, n))
    floor = n * np.finfo(np.float64).eps * np.abs(np.diagonal(matrix))
    for start in range(0, n, _PANEL):
        stop = min(n, start + _PANEL)
        rest = matrix[start:, start:stop].astype(np.float64)
        add_to(rest, lower[start:, :start], lower[start:stop, :start].T, -1.0)
        columns = np.ascontiguousarray(rest.T)
        for c in range(stop - start):
            pivot = columns[c, c]
            if margin is None and pivot <= floor[start + c]:
                columns[c] = 0.0
                continue
            if not pivot > (margin or 0.0):
                raise NotPositiveError(f"pivot {start + c} is {pivot}")
            columns[c, c:] /= np.sqrt(pivot)
            below = columns[c, c + 1 : stop - start, None] * columns[c]
            columns[c + 1 :] -= below
        lower[start:, start:stop] = np.triu(columns).T
    return lower


def divide(rows: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """``rows``·(L·Lᵀ)⁻¹ as float64 [m, n], for ``rows`` [m, n] and the factor L [n, n]; columns of L that are 0 give
    0."""
    return _back(_forth(rows, lower), lower)


def unmix(rows: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """``rows``·L⁻ᵀ as float64 [m, n]; columns of L that are 0 give 0."""
    return _forth(rows, lower)


def _forth(rows: np.ndarray, lower: np.ndarray) -> np.ndarray:
    found = np.zeros(rows.shape)
    for start in range(0, len(lower), _PANEL):
        stop = min(len(lower), start + _PANEL)
        part = rows[:, start:stop].astype(np.float64)
        add_to(part, found[:, :start], lower[start:stop, :start].T, -1.0)
        columns = np.ascontiguousarray(part.T)
        for c in range(stop - start):
            _settle(columns, c, lower[start + c, start + c])
            columns[c + 1 :] -= lower[start + c + 1 : stop, start + c, None] * columns[c]
        found[:, start:stop] = columns.T
    return found


def _back(rows: np.ndarray, lower: np.ndarray) -> np.ndarray:
    found = np.zeros(rows.shape)
    for start in reversed(range(0, len(lower), _PANEL)):
        stop = min(len(lower), start + _PANEL)
        part = rows[:, start:stop].astype(np.float64)
        add_to(part, found[:, stop:], lower[stop:, start:stop], -1.0)
        columns = np.ascontiguousarray(part.T)
        for c in reversed(range(stop - start)):
            _settle(columns, c, lower[start + c, start + c])
            columns[:c] -= lower[start + c, start : start + c, None] * columns[c]
        found[:, start:stop] = columns.T
    return found


def _settle(columns: np.ndarray, c: int, pivot: float) -> None:
    columns[c] = columns[c] / pivot if pivot != 0 else 0.0


def _type(x: np.ndarray) -> DType:
    if x.dtype == np.float32:
        return FLOAT32
    if x.dtype == np.float64:
        return FLOAT64
    raise TypeError(f"a matrix is float32 or float64, not {x.dtype}")

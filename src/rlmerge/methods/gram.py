"""Scalar products between the experts' vectors: all that methods on the sphere need to know of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlmerge.kernels.matrix import product


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """x·y of vectors [n], in rising order of the index."""
    return float(product(x[None], y[:, None])[0, 0])


def form(x: np.ndarray, symmetric: np.ndarray) -> float:
    """xᵀAx of a vector [n] and a matrix A [n, n], in a fixed order."""
    return inner(product(x[None], symmetric)[0], x)


def products(vectors: Any) -> list[Any]:
    """Summands x_i·x_j for i ≤ j, in the order (0, 0), (0, 1), …, (1, 1), …: K(K + 1)/2 rows."""
    return [vectors[i] * vectors[j] for i in range(len(vectors)) for j in range(i, len(vectors))]


def row_products(vectors: Any) -> np.ndarray:
    """The same summed over the last axis: [K(K + 1)/2, rows]."""
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i, len(vectors))]
    return np.stack([(vectors[i] * vectors[j]).sum(-1) for i, j in pairs])


def matrix(entries: Sequence[float] | np.ndarray, experts: int) -> np.ndarray:
    """The symmetric matrix [K, K] or [K, K, rows] of such sums, in float64."""
    entries = np.asarray(entries, np.float64)
    full = np.empty((experts, experts, *entries.shape[1:]))
    upper = np.triu_indices(experts)
    full[upper] = entries
    full[upper[::-1]] = entries
    return full

"""Exact sparsity and concentration metrics of one task vector that fits in memory, in float64.

These are the definitions; the streaming accumulators are tested against them. A task vector ``tau`` is any real array
(shape is ignored). Shares are fractions in [0, 1]. Every function raises RequestError for an empty array, and those
that read values for NaN or Inf: count and leave out such entries first. A ratio that is 0/0 (no mass, no variance) is
NaN, never a flattering 0 or 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge.errors import RequestError
from rlmerge.frozen import frozen

Array = npt.NDArray[Any]


@frozen(slots=True)
class VectorMetrics:
    """Sparsity and concentration of one task vector; ``l0_share`` is never to be read alone (see :func:`l0_share`)."""

    entries: int
    zero_share: float
    small_share: float
    l0_share: float
    gini: float
    excess_kurtosis: float
    top1_mass: float
    top5_mass: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def measure(tau: Array) -> VectorMetrics:
    """Every metric that needs the task vector alone. Sorts ``|tau|`` once: O(n log n) time, O(n) memory."""
    values = _finite(tau)
    ordered = np.sort(np.abs(values))
    return VectorMetrics(
        entries=values.size,
        zero_share=float(np.mean(values == 0.0)),
        small_share=small_share(values),
        l0_share=l0_share(values),
        gini=_gini_of_sorted(ordered),
        excess_kurtosis=excess_kurtosis(values),
        top1_mass=_top_mass_of_sorted(ordered, 1),
        top5_mass=_top_mass_of_sorted(ordered, 5),
    )


def unchanged_share(before: Array, after: Array) -> float:
    """Share of entries whose stored bits are equal, +0 and -0 counting as equal.

    Both arrays hold the storage type of one float format: float16, float32, float64, or uint16 for bfloat16.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        raise RequestError(
            f"cannot compare the bits of {before.dtype} {list(before.shape)} with {after.dtype} {list(after.shape)}",
            hint="Both arrays must have the same storage type and shape.",
        )
    _non_empty(before)
    unsigned = np.dtype(f"u{before.dtype.itemsize}")
    old, new = (np.ascontiguousarray(array).reshape(-1).view(unsigned) for array in (before, after))
    both_zero = (old | new) << unsigned.type(1) == 0
    return float(np.mean((old == new) | both_zero))


def small_share(tau: Array, threshold: float = 1e-5) -> float:
    """Share of ``|tau| <= threshold``, an absolute bound in weight units (arXiv 2505.11711 uses 1e-5)."""
    return float(np.mean(np.abs(_finite(tau)) <= threshold))


def relative_share(before: Array, after: Array, eta: float = 1e-3) -> float:
    """Share of entries with ``|after - before| <= eta * max(|before|, |after|)`` (arXiv 2511.08567)."""
    old, new = _finite(before), _finite(after)
    return float(np.mean(np.abs(new - old) <= eta * np.maximum(np.abs(old), np.abs(new))))


def l0_share(tau: Array, epsilon: float = 0.01) -> float:
    """Share of ``|tau| < epsilon * max|tau|`` ("Does Sparsity Persist?", eq. 2).

    Not a sparsity measure: the maximum of a heavy-tailed sample grows with its size, so this share grows with the
    number of entries even where nothing is zero. An all-zero vector reads 0, as the strict inequality says.
    """
    magnitude = np.abs(_finite(tau))
    return float(np.mean(magnitude < epsilon * magnitude.max()))


def gini(tau: Array) -> float:
    """Gini coefficient of ``|tau|``: 0 when all magnitudes are equal, (n - 1)/n when one entry holds all the mass."""
    return _gini_of_sorted(np.sort(np.abs(_finite(tau))))


def excess_kurtosis(tau: Array) -> float:
    """Population excess kurtosis ``m4 / m2^2 - 3`` of the signed values: 0 for a Gaussian, below n for n entries."""
    values = _finite(tau)
    if values.min() == values.max():
        return math.nan
    values = values / np.abs(values).max()  # scale-free, and fourth powers of tiny updates no longer underflow
    squared = (values - values.mean()) ** 2
    return float(np.mean(squared * squared)) / float(squared.mean()) ** 2 - 3.0


def top_mass(tau: Array, percent: int) -> float:
    """Share of the L1 mass held by the ``ceil(n * percent / 100)`` largest magnitudes."""
    return _top_mass_of_sorted(np.sort(np.abs(_finite(tau))), percent)


def _gini_of_sorted(magnitude: Array) -> float:
    mass = float(magnitude.sum())
    if mass == 0.0:
        return math.nan
    n = magnitude.size
    return float(((2.0 * np.arange(1, n + 1) - n - 1) * magnitude).sum()) / (n * mass)


def _top_mass_of_sorted(magnitude: Array, percent: int) -> float:
    mass = float(magnitude.sum())
    largest = -(-magnitude.size * percent // 100)
    return float(magnitude[magnitude.size - largest :].sum()) / mass if mass else math.nan


def _finite(array: Array) -> npt.NDArray[np.float64]:
    _non_empty(array)
    values = np.asarray(array, dtype=np.float64).reshape(-1)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise RequestError(
            f"{bad} of {values.size} entries are NaN or Inf",
            hint="Count them and leave them out before measuring.",
        )
    return values


def _non_empty(array: Array) -> None:
    if array.size == 0:
        raise RequestError("an empty array has no sparsity", hint="Skip tensors without entries.")

"""The closed set of operations a formula may use, on NumPy arrays: the reference the other backends must equal.

A formula is called as ``formula(xp, base, tau, **values)`` where ``xp`` is this namespace, its torch twin, or the
tracer's. Everything is elementwise except the reductions over experts (axis 0), which add in written order, so that all
backends agree bit for bit.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any, Protocol

import numpy as np


class Namespace(Protocol):
    """What ``xp`` offers. Shapes: [n] for one value a coordinate, [K, n] for one a coordinate and expert."""

    def abs(self, x: Any) -> Any: ...
    def sign(self, x: Any) -> Any: ...
    def sqrt(self, x: Any) -> Any: ...
    def minimum(self, x: Any, y: Any) -> Any: ...
    def maximum(self, x: Any, y: Any) -> Any: ...
    def where(self, condition: Any, x: Any, y: Any) -> Any: ...
    def isfinite(self, x: Any) -> Any: ...
    def sum(self, x: Any) -> Any: ...
    def count(self, mask: Any) -> Any: ...
    def any(self, mask: Any) -> Any: ...
    def all(self, mask: Any) -> Any: ...
    def max(self, x: Any) -> Any: ...
    def min(self, x: Any) -> Any: ...


class NumpyNamespace:
    """``Namespace`` on NumPy arrays of one float type (float32, or float64 for float64 models and for tests)."""

    def __init__(self, dtype: np.dtype | type = np.float32) -> None:
        self.dtype = np.dtype(dtype)

    def abs(self, x: Any) -> Any:
        """Magnitude."""
        return np.abs(self._cast(x))

    def sign(self, x: Any) -> Any:
        """-1, 0 or 1; +0 for -0, NaN for NaN."""
        return np.sign(self._cast(x))

    def sqrt(self, x: Any) -> Any:
        """Square root, correctly rounded; NaN below zero."""
        return np.sqrt(self._cast(x))

    def isfinite(self, x: Any) -> Any:
        """Whether a value is neither infinite nor NaN."""
        return np.isfinite(self._cast(x))

    # np.minimum and np.maximum leave the sign of min(0, -0) to the processor.
    def minimum(self, x: Any, y: Any) -> Any:
        """The smaller of two values; NaN if either is; ``y`` of two zeros."""
        x, y = self._cast(x), self._cast(y)
        return np.where((x < y) | (x != x), x, y)

    def maximum(self, x: Any, y: Any) -> Any:
        """The larger of two values; NaN if either is; ``y`` of two zeros."""
        x, y = self._cast(x), self._cast(y)
        return np.where((x > y) | (x != x), x, y)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        """``x`` where ``condition`` holds, else ``y``."""
        return np.where(condition, self._cast(x), self._cast(y))

    def sum(self, x: Any) -> Any:
        """Sum over experts, first to last: [K, …] to […]."""
        if any(isinstance(row, np.ndarray) and row.dtype == np.bool_ for row in x):
            raise TypeError("xp.sum adds numbers, not masks; use xp.count")
        return reduce(operator.add, x)

    def count(self, mask: Any) -> Any:
        """Number of experts for which ``mask`` holds, as a float: [K, …] to […]."""
        return self.sum([self.where(row, 1.0, 0.0) for row in mask])

    def any(self, mask: Any) -> Any:
        """Whether ``mask`` holds for some expert."""
        return np.logical_or.reduce(mask, axis=0)

    def all(self, mask: Any) -> Any:
        """Whether ``mask`` holds for every expert."""
        return np.logical_and.reduce(mask, axis=0)

    def max(self, x: Any) -> Any:
        """Largest value over experts."""
        return reduce(self.maximum, x)

    def min(self, x: Any) -> Any:
        """Smallest value over experts."""
        return reduce(self.minimum, x)

    def _cast(self, x: Any) -> Any:
        return x if isinstance(x, np.ndarray) else np.asarray(x, self.dtype)

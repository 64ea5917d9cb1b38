"""Functions of whole rows, run on NumPy: row-wise statistics, and the fields of methods that rank within a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlmerge.kernels import random
from rlmerge.kernels.dtypes import FLOAT32, FLOAT64
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.program import Extra, Uniform


@dataclass(frozen=True)
class Field:
    """A value that ``function`` computes row by row [K, rows, columns], with ``values`` of its own."""

    function: Callable[..., Any]
    values: Mapping[str, Any]
    experts: int

    def extra(self, real: np.dtype) -> Extra:
        """How a formula reads it: per coordinate, in the arithmetic's own type."""
        return Extra((FLOAT64 if real == np.float64 else FLOAT32,) * self.experts)


def on_rows(
    function: Callable[..., Any],
    base: np.ndarray | None,
    stack: np.ndarray,
    values: Mapping[str, Any],
    *,
    extras: Mapping[str, np.ndarray],
    keys: Sequence[tuple[int, int]],
    start: int,
    columns: int,
) -> np.ndarray:
    """``function`` on ``base`` [n] and ``stack`` [K, n] as rows of ``columns``; they begin at flat index ``start``.

    Numbers arrive as they are, those per expert as [M, 1, 1], those per row as [M, rows, 1], ``extras`` and random
    numbers as [K, rows, columns].
    """
    real = stack.dtype
    shape = (-1, columns)

    def as_rows(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), *shape)

    ready: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Extra):
            ready[name] = as_rows(extras[name])
        elif isinstance(value, Uniform):
            draws = [random.uniform(key, start, stack.shape[1], real) for key in keys[: value.count]]
            ready[name] = as_rows(np.stack(draws))
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            first = start // columns
            ready[name] = value[:, first : first + stack.shape[1] // columns, None]
        elif isinstance(value, np.ndarray) and value.ndim == 1:
            ready[name] = value[:, None, None]
        else:
            ready[name] = value
    with np.errstate(all="ignore"):
        rows = None if base is None else base.reshape(shape)
        return np.asarray(function(NumpyNamespace(real), rows, as_rows(stack), **ready))

"""Functions of whole rows or tensors, run on NumPy: row-wise statistics and fields, and methods on matrices."""

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
    columns: int,
    **options: Any,
) -> np.ndarray:
    """``function`` on ``base`` [n] and ``stack`` [K, n] as rows of ``columns``; ``options`` as for ``on_shape``."""
    return on_shape(function, base, stack, values, shape=(stack.shape[1] // columns, columns), **options)


def on_shape(
    function: Callable[..., Any],
    base: np.ndarray | None,
    stack: np.ndarray,
    values: Mapping[str, Any],
    *,
    shape: tuple[int, ...],
    extras: Mapping[str, Any],
    keys: Sequence[tuple[int, int]],
    start: int,
) -> np.ndarray:
    """``function`` on ``base`` and ``stack`` in ``shape`` and [K, *shape]; they begin at flat index ``start``.

    Numbers arrive as they are, those per expert as [M, 1, …], those per row as [M, rows, 1], random numbers as
    [K, *shape], and ``extras`` as given.
    """
    real = stack.dtype
    columns = shape[-1] if shape else 1
    ready: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Extra):
            ready[name] = extras[name]
        elif isinstance(value, Uniform):
            draws = [random.uniform(key, start, stack.shape[1], real) for key in keys[: value.count]]
            ready[name] = np.stack(draws).reshape(-1, *shape)
        elif isinstance(value, np.ndarray) and value.ndim == 2:
            first = start // columns
            mine = value[:, first : first + stack.shape[1] // columns]
            ready[name] = mine.reshape(len(mine), *shape[:-1], 1)
        elif isinstance(value, np.ndarray) and value.ndim == 1:
            ready[name] = value.reshape(-1, *(1 for _ in shape))
        else:
            ready[name] = value
    with np.errstate(all="ignore"):
        whole = None if base is None else base.reshape(shape)
        return np.asarray(function(NumpyNamespace(real), whole, stack.reshape(-1, *shape), **ready))

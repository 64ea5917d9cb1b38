"""The kinds of value a formula can be given beside its tiles, and the one place where each gets its shape.

A method deals in plain Python and NumPy values; ``typed`` says once what each of them is. A backend then asks for
them as parameters of a compiled kernel, as arrays for a flat tile, or as arrays for whole rows or tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlmerge.frozen import frozen

from .dtypes import FLOAT32, FLOAT64, DType


@frozen(slots=True)
class Static:
    """A boolean, choice or None: part of the program."""

    value: Any


@frozen(slots=True)
class Scalar:
    """One number for the whole tensor."""

    value: float | int | np.generic

    @property
    def table(self) -> np.ndarray:
        """The number as float64 [1]."""
        return np.asarray(self.value, np.float64).reshape(1)


@frozen(slots=True, eq=False)
class PerExpert:
    """Numbers [M], one per expert or per result of a statistic."""

    table: np.ndarray


@frozen(slots=True, eq=False)
class PerRow:
    """Numbers [M, rows], one per row of the tensor too."""

    table: np.ndarray


@frozen(slots=True, eq=False)
class Table:
    """Numbers of any shape, for functions of whole rows and tensors alone."""

    array: np.ndarray


@frozen(slots=True)
class Uniform:
    """``count`` streams of uniform numbers [count, n]."""

    count: int


@frozen(slots=True)
class Extra:
    """Numbers [len(dtypes), n] read per coordinate from further inputs."""

    dtypes: tuple[DType, ...]


class Spread(NamedTuple):
    """What entries get by their ranks: ``middle + half·(2r − 1)``, with r as for ``ranks.spread_by_rank``."""

    middle: float
    half: float
    ranked_zeros: bool


@frozen(slots=True, eq=False)
class RowField:
    """Numbers [experts, n] that ``function`` computes on NumPy, whole rows at a time, from ``values`` of its own; with
    ``row_wise`` what it makes of a row depends on that row alone. Where there are ``spreads``, it is these."""

    function: Callable[..., Any]
    values: Mapping[str, Any]
    experts: int
    row_wise: bool = False
    spreads: Sequence[Spread] | None = None

    def extra(self, real: np.dtype) -> Extra:
        """How a kernel reads it: per coordinate, in the arithmetic's own type."""
        return Extra((FLOAT64 if real == np.float64 else FLOAT32,) * self.experts)


Value = Static | Scalar | PerExpert | PerRow | Table | Uniform | Extra | RowField
_VALUES = frozenset((Static, Scalar, PerExpert, PerRow, Table, Uniform, Extra, RowField))
Values = Mapping[str, Any]
"""Values by name; plain ones are taken for what ``typed`` makes of them."""


def typed(value: Any) -> Value:
    """What a plain value of a method is: what is no number selects code; arrays are [M], [M, rows] or tables."""
    if type(value) in _VALUES:
        return value
    if value is None or isinstance(value, bool | str | tuple):
        return Static(value)
    array = np.asarray(value)
    if array.ndim > 2:
        return Table(array)
    if array.ndim:
        return PerExpert(array) if array.ndim == 1 else PerRow(array)
    return Scalar(value)


def signature(values: Values) -> tuple[tuple[str, Any], ...]:
    """What of ``values`` a compiled kernel depends on."""
    return tuple((name, _kind(typed(values[name]))) for name in sorted(values))


def _kind(value: Value) -> Any:
    if isinstance(value, PerExpert | PerRow):
        return type(value).__name__, len(value.table)
    return "Scalar" if isinstance(value, Scalar) else value


def parameters(values: Values) -> tuple[np.ndarray, np.ndarray | None]:
    """The run-time numbers in a kernel's order, by name: parameters [P] and row-wise values [R, rows], in float64."""
    ordered = [typed(values[name]) for name in sorted(values)]
    params = [x.table.astype(np.float64) for x in ordered if isinstance(x, Scalar | PerExpert)]
    rows = [x.table.astype(np.float64) for x in ordered if isinstance(x, PerRow)]
    return np.concatenate(params) if params else np.zeros(0), np.concatenate(rows) if rows else None


def on_tile(values: Values, real: np.dtype, start: int, count: int, columns: int) -> dict[str, Any]:
    """Everything but ``Uniform`` and ``Extra`` for a flat tile [count] from ``start``: numbers, [M, 1] and [M, count],
    in the arithmetic type ``real``."""
    ready: dict[str, Any] = {}
    for name, plain in values.items():
        value = typed(plain)
        if isinstance(value, Static):
            ready[name] = value.value
        elif isinstance(value, Scalar):
            ready[name] = real.type(value.value)
        elif isinstance(value, PerExpert):
            ready[name] = np.asarray(value.table, real)[:, None]
        elif isinstance(value, PerRow):
            first, last = start // columns, (start + max(count, 1) - 1) // columns + 1
            table = np.asarray(value.table[:, first:last], real)
            ready[name] = table[:, np.arange(start, start + count) // columns - first]
    return ready


def on_shape(values: Values, shape: Sequence[int], start: int) -> dict[str, Any]:
    """The same for whole rows or a whole tensor in ``shape`` that begins at flat index ``start``: numbers as they are,
    [M, 1, …], and [M, rows, 1]."""
    ready: dict[str, Any] = {}
    for name, plain in values.items():
        value = typed(plain)
        if isinstance(value, Static | Scalar):
            ready[name] = value.value
        elif isinstance(value, Table):
            ready[name] = value.array
        elif isinstance(value, PerExpert):
            ready[name] = value.table.reshape(-1, *(1 for _ in shape))
        elif isinstance(value, PerRow):
            columns = shape[-1] if shape else 1
            first = start // max(1, columns)
            rows = int(np.prod(shape[:-1], dtype=np.int64))
            mine = value.table[:, first : first + rows]
            ready[name] = mine.reshape(len(mine), *shape[:-1], 1)
    return ready

"""From a formula and the values it is given to a compiled kernel, or to the same formula on NumPy.

Values keep their kind: booleans, strings and None are part of the program; a number, [M] numbers (one per expert) and
[M, rows] numbers (one per row too) are read at run time, so one kernel serves every tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dtypes import FLOAT64, DType
from .jit import Kernel
from .loops import Program
from .rounding import Rounding
from .sinks import Reduce, Write
from .trace import Graph, Stack, Tile, TraceNamespace, UntraceableError

Formula = Callable[..., Any]


@dataclass(frozen=True)
class Uniform:
    """A value that stands for ``count`` streams of uniform numbers [count, n]."""

    count: int


@dataclass(frozen=True)
class Extra:
    """A value that is read per coordinate from further inputs [len(dtypes), n]."""

    dtypes: tuple[DType, ...]


@dataclass(frozen=True)
class Layout:
    """The inputs of a tile: the base if any, the experts, and whether a formula wants deltas or weights.

    ``wide`` asks for float64 arithmetic whatever the inputs are.
    """

    base: DType | None
    experts: tuple[DType, ...]
    deltas: bool
    wide: bool = False

    @property
    def inputs(self) -> tuple[DType, ...]:
        """Element types of base and experts, in that order."""
        return (*(() if self.base is None else (self.base,)), *self.experts)

    @property
    def real(self) -> np.dtype:
        """What merging computes in: float64 when an input is float64, else float32."""
        return np.dtype(np.float64 if self.wide or FLOAT64 in self.inputs else np.float32)


def is_static(value: Any) -> bool:
    """Whether ``value`` selects code instead of being read at run time."""
    return value is None or isinstance(value, bool | str | tuple)


def _kind(value: Any) -> Any:
    if is_static(value) or isinstance(value, Uniform | Extra):
        return value
    array = np.asarray(value)
    return ("number", "stack", "rows")[array.ndim], array.shape[:1] if array.ndim else ()


def signature(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What of ``values`` a compiled kernel depends on."""
    return tuple((name, _kind(values[name])) for name in sorted(values))


def bind(values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """The run-time numbers of ``values`` in the kernel's order: parameters [P] and row-wise values [R, rows]."""
    params: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    for name in sorted(values):
        if is_static(values[name]) or isinstance(values[name], Uniform | Extra):
            continue
        array = np.asarray(values[name], np.float64)
        (rows if array.ndim == 2 else params).append(array if array.ndim == 2 else array.reshape(-1))
    return np.concatenate(params) if params else np.zeros(0), np.concatenate(rows) if rows else None


def numpy_values(
    values: Mapping[str, Any], real: np.dtype, start: int, count: int, columns: int, extra: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """``values`` as a formula on NumPy tiles takes them: numbers, [M, 1], and [M, count] for row-wise ones."""
    ready: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Uniform | Extra):
            ready[name] = extra[name]
        elif is_static(value):
            ready[name] = value
        else:
            array = np.asarray(value, real)
            if array.ndim == 2:
                ready[name] = array[:, np.arange(start, start + count) // columns]
            else:
                ready[name] = array[:, None] if array.ndim else real.type(array)
    return ready


class _Tracer:
    """Leaves for the inputs and values of one program."""

    def __init__(self, layout: Layout, values: Mapping[str, Any]) -> None:
        self.graph = Graph()
        self.namespace = TraceNamespace(self.graph)
        leaf = self.graph.leaf
        first = 0 if layout.base is None else 1
        self.base = leaf("weight", 0) if first else None
        self.experts = [leaf("weight", first + k) for k in range(len(layout.experts))]
        self.deltas = [weight - self.base for weight in self.experts] if self.base is not None else []
        self.stack = Stack(self.deltas if layout.deltas else self.experts)
        self.inputs = list(layout.inputs)
        self.values: dict[str, Any] = {}
        params = rows = streams = 0
        for name in sorted(values):
            value = values[name]
            if isinstance(value, Uniform):
                self.values[name] = Stack([leaf("uniform", streams + k) for k in range(value.count)])
                streams += value.count
            elif isinstance(value, Extra):
                self.values[name] = Stack([leaf("weight", len(self.inputs) + k) for k in range(len(value.dtypes))])
                self.inputs += value.dtypes
            elif is_static(value):
                self.values[name] = value
            else:
                array = np.asarray(value)
                if array.ndim == 2:
                    self.values[name] = Stack([leaf("row", rows + k) for k in range(len(array))])
                    rows += len(array)
                else:
                    tiles = [leaf("param", params + k) for k in range(array.size)]
                    self.values[name] = Stack(tiles) if array.ndim else tiles[0]
                    params += array.size

    def program(self, layout: Layout, sink: Write | Reduce, zero_nonfinite: bool) -> Program:
        real = "double" if layout.real == np.float64 else "float"
        return Program(self.graph, tuple(self.inputs), real, sink, zero_nonfinite)


CACHED_KERNELS = 128
"""Compiled kernels kept at a time, about 1 MB each; the oldest goes first."""

_kernels: dict[Any, Kernel] = {}
_kernels_lock = threading.Lock()


def _cached(key: Any, make: Callable[[], Program]) -> Kernel:
    with _kernels_lock:
        if key not in _kernels:
            if len(_kernels) >= CACHED_KERNELS:
                del _kernels[next(iter(_kernels))]
            _kernels[key] = Kernel(make())
        return _kernels[key]


def merge_kernel(
    formula: Formula,
    layout: Layout,
    values: Mapping[str, Any],
    out: DType,
    *,
    rounding: Rounding = "nearest",
    keeps_base: bool = True,
    zero_nonfinite: bool = False,
) -> Kernel:
    """A kernel that merges tiles and accounts for them; raises ``UntraceableError`` for formulas beyond the tracer."""

    def make() -> Program:
        tracer = _Tracer(layout, values)
        merged = formula(tracer.namespace, tracer.base, tracer.stack, **tracer.values)
        sink = Write(
            tracer.graph.number(_tile(tracer, merged)),
            out,
            rounding,
            tracer.base,
            tracer.deltas,
            keeps_base,
            layout.base is out,
        )
        return tracer.program(layout, sink, zero_nonfinite)

    key = ("merge", formula, layout, signature(values), out, rounding, keeps_base, zero_nonfinite)
    return _cached(key, make)


def reduce_kernel(
    formula: Formula, layout: Layout, values: Mapping[str, Any], reduce: str, *, zero_nonfinite: bool = False
) -> Kernel:
    """A kernel that sums (``sum``), counts (``count``) or histograms (``kth``) what the formula returns.

    With ``several`` the formula returns a mapping with any of the keys ``sums``, ``counts`` and ``values``, and one
    pass does all of them.
    """
    field = {"sum": "sums", "count": "counts", "kth": "values"}

    def make() -> Program:
        tracer = _Tracer(layout, values)
        result = formula(tracer.namespace, tracer.base, tracer.stack, **tracer.values)
        named = result if reduce == "several" else {field[reduce]: result}
        kind = {"sums": tracer.graph.number, "counts": tracer.graph.mask, "values": tracer.graph.number}
        sink = Reduce(**{name: [kind[name](_tile(tracer, x)) for x in _tiles(found)] for name, found in named.items()})
        return tracer.program(layout, sink, zero_nonfinite)

    return _cached((reduce, formula, layout, signature(values), zero_nonfinite), make)


def _tiles(result: Any) -> Iterable[Any]:
    return result if isinstance(result, Stack | list | tuple) else [result]


def _tile(tracer: _Tracer, value: Any) -> Tile:
    if isinstance(value, Stack) and len(value) == 1:
        value = value[0]
    if isinstance(value, Tile):
        return value
    if not isinstance(value, int | float):
        raise UntraceableError(f"a formula returns one value per coordinate [n], not {type(value).__name__}")
    return tracer.graph.constant(value)


def rows_of(result: Any) -> list[np.ndarray]:
    """The M rows a formula returned on NumPy: [M, n], a list of [n], or one [n]."""
    if isinstance(result, list | tuple):
        return list(result)
    return list(result) if result.ndim > 1 else [result]

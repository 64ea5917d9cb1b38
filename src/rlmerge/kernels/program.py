"""From a formula and the values it is given to a compiled kernel.

Static values are part of the program; numbers, [M] numbers and [M, rows] numbers are read at run time, so one kernel
serves every tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rlmerge.frozen import frozen

from .dtypes import FLOAT64, DType
from .jit import Kernel
from .loops import Program
from .rounding import Rounding
from .sinks import Reduce, Write
from .trace import Graph, Node, Stack, TraceNamespace, UntraceableError
from .values import Extra, PerExpert, PerRow, Scalar, Static, Uniform, Values, signature, typed

Formula = Callable[..., Any]


@frozen
class Operands:
    """The inputs of a tile: the base if any, the experts, and whether a formula wants deltas or weights.

    ``wide`` asks for float64 arithmetic whatever the inputs are. With ``same_is_zero`` equal weights have no delta even
    where they are infinite.
    """

    base: DType | None
    experts: tuple[DType, ...]
    deltas: bool
    wide: bool = False
    same_is_zero: bool = False

    @property
    def inputs(self) -> tuple[DType, ...]:
        """Element types of base and experts, in that order."""
        return (*(() if self.base is None else (self.base,)), *self.experts)

    @property
    def real(self) -> np.dtype:
        """What merging computes in: float64 when an input is float64, else float32."""
        return np.dtype(np.float64 if self.wide or FLOAT64 in self.inputs else np.float32)


class _Tracer:
    """Leaves for the inputs and values of one program."""

    def __init__(self, operands: Operands, values: Values) -> None:
        self.graph = Graph()
        self.namespace = TraceNamespace(self.graph)
        leaf = self.graph.leaf
        first = 0 if operands.base is None else 1
        self.base = leaf("weight", 0) if first else None
        self.experts = [leaf("weight", first + k) for k in range(len(operands.experts))]
        self.deltas = [self._delta(weight, operands) for weight in self.experts] if self.base is not None else []
        self.stack = Stack(self.deltas if operands.deltas else self.experts)
        self.inputs = list(operands.inputs)
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
            elif isinstance(value, Static):
                self.values[name] = value.value
            elif isinstance(value, PerRow):
                self.values[name] = Stack([leaf("row", rows + k) for k in range(len(value.table))])
                rows += len(value.table)
            elif isinstance(value, Scalar):
                self.values[name] = leaf("param", params)
                params += 1
            elif isinstance(value, PerExpert):
                self.values[name] = Stack([leaf("param", params + k) for k in range(len(value.table))])
                params += len(value.table)

    def _delta(self, weight: Node, operands: Operands) -> Any:
        delta = weight - self.base
        return self.namespace.where(weight == self.base, 0.0, delta) if operands.same_is_zero else delta

    def program(self, operands: Operands, sink: Write | Reduce, zero_nonfinite: bool) -> Program:
        real = "double" if operands.real == np.float64 else "float"
        return Program(self.graph, tuple(self.inputs), real, sink, zero_nonfinite)


CACHED_KERNELS = 128
"""Compiled kernels kept at a time, about 1 MB each; the oldest goes first."""

_kernels: dict[Any, Kernel] = {}
_kernels_lock = threading.Lock()


def _cached(key: Any, make: Callable[[], Program]) -> Kernel:
    with _kernels_lock:
        kernel = _kernels.get(key)
        if kernel is None:
            if len(_kernels) >= CACHED_KERNELS:
                del _kernels[next(iter(_kernels))]
            kernel = _kernels[key] = Kernel(make())
        return kernel


def merge_kernel(
    formula: Formula,
    operands: Operands,
    values: Mapping[str, Any],
    out: DType,
    *,
    rounding: Rounding = "nearest",
    keeps_base: bool = True,
    zero_nonfinite: bool = False,
    accounts: bool = True,
) -> Kernel:
    """A kernel that merges tiles and, with ``accounts``, tells what survived.

    Raises ``UntraceableError`` for formulas beyond the tracer.
    """

    known = {name: typed(value) for name, value in values.items()}

    def make() -> Program:
        tracer = _Tracer(operands, known)
        merged = formula(tracer.namespace, tracer.base, tracer.stack, **tracer.values)
        sink = Write(
            tracer.graph.number(_node(tracer, merged)),
            out,
            rounding,
            tracer.base,
            tracer.deltas,
            keeps_base,
            operands.base is out,
            # Weights that are zeroed, equal infinities without a delta, and further inputs leave no trace in a sum.
            sums_tell=accounts
            and operands.base is not None
            and not zero_nonfinite
            and not operands.same_is_zero
            and len(tracer.inputs) == len(operands.inputs),
            accounts=accounts,
        )
        return tracer.program(operands, sink, zero_nonfinite)

    key = ("merge", formula, operands, signature(known), out, rounding, keeps_base, zero_nonfinite, accounts)
    return _cached(key, make)


def reduce_kernel(
    formula: Formula, operands: Operands, values: Mapping[str, Any], reduce: str, *, zero_nonfinite: bool = False
) -> Kernel:
    """A kernel that sums (``sum``), counts (``count``) or histograms (``kth``) what the formula returns.

    With ``several`` the formula returns a mapping with any of the keys ``sums``, ``counts`` and ``values``, and one
    pass does all of them.
    """
    field = {"sum": "sums", "count": "counts", "kth": "values"}

    known = {name: typed(value) for name, value in values.items()}

    def make() -> Program:
        tracer = _Tracer(operands, known)
        result = formula(tracer.namespace, tracer.base, tracer.stack, **tracer.values)
        named = result if reduce == "several" else {field[reduce]: result}
        kind = {"sums": tracer.graph.number, "counts": tracer.graph.mask, "values": tracer.graph.number}
        nodes = {name: [kind[name](_node(tracer, x)) for x in _nodes(found)] for name, found in named.items()}
        sink = Reduce(**nodes, windowed=reduce == "kth")
        return tracer.program(operands, sink, zero_nonfinite)

    return _cached((reduce, formula, operands, signature(known), zero_nonfinite), make)


def is_traceable(formula: Formula, operands: Operands, values: Mapping[str, Any]) -> bool:
    """Whether a formula asks for nothing beyond the tracer's operations: other backends run it as it is."""
    tracer = _Tracer(operands, {name: typed(value) for name, value in values.items()})
    try:
        for found in _nodes(formula(tracer.namespace, tracer.base, tracer.stack, **tracer.values)):
            _node(tracer, found)
    except UntraceableError:
        return False
    return True


def _nodes(result: Any) -> Iterable[Any]:
    return result if isinstance(result, Stack | list | tuple) else [result]


def _node(tracer: _Tracer, value: Any) -> Node:
    if isinstance(value, Stack) and len(value) == 1:
        value = value[0]
    if isinstance(value, Node):
        return value
    if not isinstance(value, int | float):
        raise UntraceableError(f"a formula returns one value per coordinate [n], not {type(value).__name__}")
    return tracer.graph.constant(value)


def rows_of(result: Any) -> list[np.ndarray]:
    """The M rows a formula returned on NumPy: [M, n], a list of [n], or one [n]."""
    if isinstance(result, list | tuple):
        return list(result)
    return list(result) if result.ndim > 1 else [result]

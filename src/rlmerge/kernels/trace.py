"""Symbolic tiles: run a formula once on these and its operations are recorded as a graph of shared nodes.

``Tile`` stands for one number per coordinate, ``Stack`` for one per coordinate and expert (K is known, so stacks are
unrolled). ``TraceNamespace`` is the ``xp`` a formula sees while it is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

Number = int | float


class UntraceableError(TypeError):
    """The formula did something that has no meaning for one coordinate at a time; it runs on NumPy instead."""


class Graph:
    """Nodes in the order they were recorded; equal operations on equal operands are one node."""

    def __init__(self) -> None:
        self.nodes: list[Tile] = []
        self._known: dict[tuple[Any, ...], Tile] = {}

    def node(self, op: str, *operands: Tile | Number, is_bool: bool = False) -> Tile:
        """The node for ``op`` on ``operands``; Python numbers become constants."""
        inputs = tuple(x if isinstance(x, Tile) else self.constant(x) for x in operands)
        return self._intern(op, inputs, None, is_bool)

    def constant(self, value: Number) -> Tile:
        """A number that is part of the program."""
        return self._intern("constant", (), repr(float(value)), False)

    def leaf(self, op: str, index: int) -> Tile:
        """A value that comes from outside: ``weight``, ``param``, ``row`` or ``uniform`` number ``index``."""
        return self._intern(op, (), index, False)

    def _intern(self, op: str, inputs: tuple[Tile, ...], data: Any, is_bool: bool) -> Tile:
        key = (op, tuple(x.index for x in inputs), data)
        if key not in self._known:
            tile = Tile(self, len(self.nodes), op, inputs, data, is_bool)
            self.nodes.append(tile)
            self._known[key] = tile
        return self._known[key]


def _refuse(self: Any, *_: Any) -> NoReturn:
    raise UntraceableError("a traced tile has no truth value or number of its own; use xp.where")


class _Operators:
    """Arithmetic shared by tiles and stacks; ``_apply`` broadcasts."""

    __hash__ = object.__hash__
    __bool__ = __float__ = __int__ = _refuse

    def _apply(self, op: str, *operands: Any, is_bool: bool = False) -> Any:
        return _broadcast(op, operands, is_bool)

    def __add__(self, other: Any) -> Any:
        return self._apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self._apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self._apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._apply("div", other, self)

    def __neg__(self) -> Any:
        return self._apply("neg", self)

    def __lt__(self, other: Any) -> Any:
        return self._apply("lt", self, other, is_bool=True)

    def __le__(self, other: Any) -> Any:
        return self._apply("le", self, other, is_bool=True)

    def __gt__(self, other: Any) -> Any:
        return self._apply("gt", self, other, is_bool=True)

    def __ge__(self, other: Any) -> Any:
        return self._apply("ge", self, other, is_bool=True)

    def __eq__(self, other: Any) -> Any:
        return self._apply("eq", self, other, is_bool=True)

    def __ne__(self, other: Any) -> Any:
        return self._apply("ne", self, other, is_bool=True)

    def __and__(self, other: Any) -> Any:
        return self._apply("and", self, other, is_bool=True)

    def __or__(self, other: Any) -> Any:
        return self._apply("or", self, other, is_bool=True)

    def __invert__(self) -> Any:
        return self._apply("not", self, is_bool=True)


class Tile(_Operators):
    """One symbolic number (or truth value) per coordinate."""

    def __init__(self, graph: Graph, index: int, op: str, inputs: tuple[Tile, ...], data: Any, is_bool: bool) -> None:
        self.graph = graph
        self.index = index
        self.op = op
        self.inputs = inputs
        self.data = data
        self.is_bool = is_bool

    __iter__ = __len__ = __getitem__ = _refuse


class Stack(_Operators):
    """K symbolic tiles, one per expert; iterating gives them in order."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self.tiles = tuple(tiles)

    def __len__(self) -> int:
        return len(self.tiles)

    def __iter__(self) -> Iterator[Tile]:
        return iter(self.tiles)

    def __getitem__(self, index: int) -> Tile:
        return self.tiles[index]


def _broadcast(op: str, operands: Sequence[Any], is_bool: bool) -> Any:
    for operand in operands:
        if not isinstance(operand, Tile | Stack | int | float):
            raise UntraceableError(f"cannot trace '{op}' with {type(operand).__name__}")
    lengths = {len(x) for x in operands if isinstance(x, Stack)} - {1}
    if len(lengths) > 1:
        raise UntraceableError(f"cannot trace '{op}' on stacks of {sorted(lengths)} experts")
    graph = next(t.graph for x in operands for t in (x.tiles if isinstance(x, Stack) else (x,)) if isinstance(t, Tile))
    if not any(isinstance(x, Stack) for x in operands):
        return graph.node(op, *operands, is_bool=is_bool)
    rows = lengths.pop() if lengths else 1

    def row(x: Any, k: int) -> Any:
        return x[k if len(x) > 1 else 0] if isinstance(x, Stack) else x

    return Stack([graph.node(op, *(row(x, k) for x in operands), is_bool=is_bool) for k in range(rows)])


class TraceNamespace:
    """``xp`` while tracing; see ``rlmerge.kernels.namespace`` for what each operation means."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __getattr__(self, name: str) -> NoReturn:
        raise UntraceableError(f"xp.{name} is not an operation on one coordinate at a time")

    def _call(self, op: str, *operands: Any, is_bool: bool = False) -> Any:
        lifted = [self._graph.constant(x) if isinstance(x, int | float) else x for x in operands]
        return _broadcast(op, lifted, is_bool)

    def abs(self, x: Any) -> Any:
        return self._call("abs", x)

    def sign(self, x: Any) -> Any:
        return self._call("sign", x)

    def sqrt(self, x: Any) -> Any:
        return self._call("sqrt", x)

    def minimum(self, x: Any, y: Any) -> Any:
        return self._call("minimum", x, y)

    def maximum(self, x: Any, y: Any) -> Any:
        return self._call("maximum", x, y)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return self._call("where", condition, x, y)

    def isfinite(self, x: Any) -> Any:
        return self._call("isfinite", x, is_bool=True)

    def sum(self, x: Any) -> Any:
        return _fold(lambda a, b: a + b, x)

    def count(self, mask: Any) -> Any:
        return self.sum(self.where(mask, 1.0, 0.0))

    def any(self, mask: Any) -> Any:
        return _fold(lambda a, b: a | b, mask)

    def all(self, mask: Any) -> Any:
        return _fold(lambda a, b: a & b, mask)

    def max(self, x: Any) -> Any:
        return _fold(self.maximum, x)

    def min(self, x: Any) -> Any:
        return _fold(self.minimum, x)


def _fold(combine: Callable[[Any, Any], Any], x: Any) -> Any:
    total = x[0]
    for k in range(1, len(x)):
        total = combine(total, x[k])
    return total

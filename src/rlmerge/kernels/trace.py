"""Symbolic nodes: run a formula once on these and its operations are recorded as a graph of shared nodes.

``Node`` stands for one number per coordinate, ``Stack`` for one per coordinate and expert (K is known, so stacks are
unrolled). ``TraceNamespace`` is the ``xp`` a formula sees while it is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

Number = int | float


_LOGIC = frozenset({"and", "or", "not"})
_TESTS = frozenset({"lt", "le", "gt", "ge", "eq", "ne", "isfinite"})


class UntraceableError(TypeError):
    """The formula did something that has no meaning for one coordinate at a time; it runs on NumPy instead."""


class Graph:
    """Nodes in the order they were recorded; equal operations on equal operands are one node."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[tuple[Any, ...], Node] = {}

    def node(self, op: str, *operands: Node | Number) -> Node:
        """The node for ``op`` on ``operands``; Python numbers become constants."""
        inputs = self._operands(op, operands)
        is_bool = op in _LOGIC or op in _TESTS or (op == "where" and inputs[1].is_bool)
        return self._intern(op, inputs, None, is_bool)

    def constant(self, value: Number) -> Node:
        """A number that is part of the program."""
        return self._intern("constant", (), repr(float(value)), False)

    def leaf(self, op: str, index: int) -> Node:
        """A value that comes from outside: ``weight``, ``param``, ``row`` or ``uniform`` number ``index``."""
        return self._intern(op, (), index, False)

    def number(self, node: Node) -> Node:
        """``node`` itself, or 1 where a mask holds and 0 elsewhere."""
        return self.node("where", node, 1.0, 0.0) if node.is_bool else node

    def mask(self, node: Node) -> Node:
        """``node`` itself if it is a mask, else where it is not zero."""
        return node if node.is_bool else self.node("ne", node, 0.0)

    def _operands(self, op: str, operands: Sequence[Node | Number]) -> tuple[Node, ...]:
        """Operands of the kinds ``op`` takes. Masks turn into numbers only where NumPy keeps the node's float type."""
        if op in _LOGIC:
            nodes = [self._intern("truth", (), x, True) if isinstance(x, bool) else x for x in operands]
            if not all(isinstance(x, Node) and x.is_bool for x in nodes):
                raise UntraceableError(f"'{op}' takes masks; compare numbers first, as in (x > 0) & (y > 0)")
            return tuple(x for x in nodes if isinstance(x, Node))
        lifted = tuple(x if isinstance(x, Node) else self.constant(x) for x in operands)
        if op == "where":
            condition, x, y = lifted
            branches = (x, y) if x.is_bool and y.is_bool else (self.number(x), self.number(y))
            return self.mask(condition), *branches
        if not any(x.is_bool for x in lifted):
            return lifted
        if all(x.is_bool or x.op == "constant" for x in lifted):
            raise UntraceableError(f"'{op}' takes numbers, not masks; use xp.where, xp.count or the operators & | ~")
        return tuple(self.number(x) for x in lifted)

    def _intern(self, op: str, inputs: tuple[Node, ...], data: Any, is_bool: bool) -> Node:
        key = (op, tuple(x.index for x in inputs), data)
        if key not in self._known:
            node = Node(self, len(self.nodes), op, inputs, data, is_bool)
            self.nodes.append(node)
            self._known[key] = node
        return self._known[key]


def _refuse(self: Any, *_: Any) -> NoReturn:
    raise UntraceableError("a traced tile has no truth value or number of its own; use xp.where")


def _refuse_items(self: Any, *_: Any) -> NoReturn:
    raise UntraceableError("a traced tile is one number per coordinate; only experts [K, n] can be indexed or reduced")


def _refuse_operator(self: Any, *_: Any) -> NoReturn:
    raise UntraceableError("a traced tile knows + - * / < <= > >= == != & | ~ only; write x * x for a square")


def _refuse_numpy(self: Any, function: Any = None, *_: Any, **__: Any) -> NoReturn:
    name = getattr(function, "__name__", "asarray")
    raise UntraceableError(f"numpy.{name} cannot take a traced tile; use the operations of xp and Python numbers")


class _Operators:
    """Arithmetic shared by nodes and stacks; ``_apply`` broadcasts."""

    __hash__ = object.__hash__
    __bool__ = __float__ = __int__ = __index__ = _refuse
    __pow__ = __rpow__ = __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __matmul__ = __rmatmul__ = _refuse_operator
    __xor__ = __rxor__ = __lshift__ = __rshift__ = __setitem__ = _refuse_operator
    __array__ = __array_ufunc__ = __array_function__ = _refuse_numpy

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UntraceableError(f"a traced tile has no '.{name}'; use the operations of xp")

    def _apply(self, op: str, *operands: Any) -> Any:
        return _broadcast(op, operands)

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
        return self._apply("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return self._apply("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return self._apply("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return self._apply("ge", self, other)

    def __eq__(self, other: Any) -> Any:
        return self._apply("eq", self, other)

    def __ne__(self, other: Any) -> Any:
        return self._apply("ne", self, other)

    def __and__(self, other: Any) -> Any:
        return self._apply("and", self, other)

    def __or__(self, other: Any) -> Any:
        return self._apply("or", self, other)

    def __rand__(self, other: Any) -> Any:
        return self._apply("and", other, self)

    def __ror__(self, other: Any) -> Any:
        return self._apply("or", other, self)

    def __abs__(self) -> Any:
        return self._apply("abs", self)

    def __pos__(self) -> Any:
        return self

    def __invert__(self) -> Any:
        return self._apply("not", self)


class Node(_Operators):
    """One symbolic number (or truth value) per coordinate."""

    def __init__(self, graph: Graph, index: int, op: str, inputs: tuple[Node, ...], data: Any, is_bool: bool) -> None:
        self.graph = graph
        self.index = index
        self.op = op
        self.inputs = inputs
        self.data = data
        self.is_bool = is_bool

    __iter__ = __len__ = __getitem__ = _refuse_items


class Stack(_Operators):
    """K symbolic nodes, one per expert; iterating gives them in order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Stack(self.nodes[index])
        if not isinstance(index, int):
            raise UntraceableError("traced experts can be indexed by an expert's number or a slice of experts only")
        return self.nodes[index]


def _broadcast(op: str, operands: Sequence[Any]) -> Any:
    for operand in operands:
        # NumPy scalars are refused: they would widen float32 tiles to float64 on NumPy, but not here.
        if not isinstance(operand, Node | Stack) and type(operand) not in (bool, int, float):
            kind = type(operand)
            raise UntraceableError(f"cannot trace '{op}' with {kind.__module__}.{kind.__name__}; use Python numbers")
    lengths = {len(x) for x in operands if isinstance(x, Stack)} - {1}
    if len(lengths) > 1:
        raise UntraceableError(f"cannot trace '{op}' on stacks of {sorted(lengths)} experts")
    graph = next(t.graph for x in operands for t in (x.nodes if isinstance(x, Stack) else (x,)) if isinstance(t, Node))
    if not any(isinstance(x, Stack) for x in operands):
        return graph.node(op, *operands)
    rows = lengths.pop() if lengths else 1

    def row(x: Any, k: int) -> Any:
        return x[k if len(x) > 1 else 0] if isinstance(x, Stack) else x

    return Stack([graph.node(op, *(row(x, k) for x in operands)) for k in range(rows)])


class TraceNamespace:
    """``xp`` while tracing; see ``rlmerge.kernels.namespace`` for what each operation means."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __getattr__(self, name: str) -> NoReturn:
        raise UntraceableError(f"xp.{name} is not an operation on one coordinate at a time")

    def _call(self, op: str, *operands: Any) -> Any:
        return _broadcast(op, [self._graph.constant(x) if type(x) in (bool, int, float) else x for x in operands])

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
        return self._call("isfinite", x)

    def sum(self, x: Any) -> Any:
        if any(isinstance(node, Node) and node.is_bool for node in x):
            raise UntraceableError("xp.sum adds numbers, not masks; use xp.count")
        return _fold(lambda a, b: a + b, x)

    def count(self, mask: Any) -> Any:
        return self.sum([self.where(node, 1.0, 0.0) for node in mask])

    def any(self, mask: Any) -> Any:
        return self._logic("or", mask)

    def all(self, mask: Any) -> Any:
        return self._logic("and", mask)

    def _logic(self, op: str, mask: Any) -> Any:
        return _fold(lambda a, b: self._graph.node(op, a, b), [self._graph.mask(node) for node in mask])

    def max(self, x: Any) -> Any:
        return _fold(self.maximum, x)

    def min(self, x: Any) -> Any:
        return _fold(self.minimum, x)


def _fold(combine: Callable[[Any, Any], Any], x: Any) -> Any:
    total = x[0]
    for k in range(1, len(x)):
        total = combine(total, x[k])
    return total


_CARRYING = {"add": 2, "sub": 2, "mul": 2, "div": 1, "neg": 1, "abs": 1, "sqrt": 1}
"""Operations whose result is not finite where one of the first so many operands is not, and how many these are."""


def carried(roots: Iterable[Node]) -> set[int]:
    """Which weights leave no root finite, at a coordinate where they are NaN or infinite themselves."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node.index in seen:
            continue
        seen.add(node.index)
        if node.op == "weight":
            found.add(node.data)
        waiting += node.inputs[: _CARRYING.get(node.op, 0)]
    return found

"""A method run on one small tensor with NumPy alone: whole arrays, full sorts, no tiles, no kernels.

The reference that engine and kernels are compared with, and the quick way to a method's values in a test.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlmerge import methods
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.random import stream_key, uniform
from rlmerge.methods import Method, Statistic, arguments
from rlmerge.methods.method import Reported


def interpret(
    method: str | Method,
    base: Any,
    experts: Any,
    *,
    real: Any = np.float64,
    tensor: str = "w",
    seed: int = 0,
    compat: bool = False,
    kind: str = "",
    **given: Any,
) -> np.ndarray:
    """The merged tensor, in ``real`` arithmetic and in the shape of the inputs; ``given`` by recipe names.

    ``lam`` may stand for ``lambda``; a parameter per expert takes one number or K. ``base`` may be None. A further
    input is given by its name as K arrays. ``kind`` is what the tensor is for.
    """
    run = _Run(method, base, experts, real, tensor, seed, compat, given)
    run.values["kind"] = kind
    return run.merge()


def warnings_of(method: str | Method, base: Any, experts: Any, **options: Any) -> list[str]:
    """What the method warns of for one tensor."""
    run = _Run(method, base, experts, options.pop("real", np.float64), "w", 0, False, options)
    run.merge()
    return list(run.method.warn(run.values))


def statistics_of(method: str | Method, base: Any, experts: Any, **options: Any) -> dict[str, Any]:
    """Every value that the formula of one tensor could ask for."""
    run = _Run(method, base, experts, options.pop("real", np.float64), "w", 0, False, options)
    run.merge()
    return run.values


def report_of(method: str | Method, base: Any, experts: Any, **options: Any) -> dict[str, Any]:
    """What the formula of a whole tensor measured."""
    run = _Run(method, base, experts, options.pop("real", np.float64), "w", 0, False, options)
    run.merge()
    return {**run.method.report(run.values), **run.report}


class _Run:
    def __init__(
        self, method: Any, base: Any, experts: Any, real: Any, tensor: str, seed: int, compat: bool, given: Any
    ) -> None:
        self.method: Method = methods.get(method) if isinstance(method, str) else method
        self.namespace = NumpyNamespace(real)
        theta = np.stack([np.asarray(x, real) for x in experts])
        self.shape = theta.shape[1:]
        self.rows = (-1, self.shape[-1] if self.shape else 1)
        self.theta = theta.reshape(len(theta), -1)
        self.base = None if base is None else np.asarray(base, real).reshape(-1)
        self.tau = None if self.base is None else self.theta - self.base
        self.uniform = np.stack(
            [uniform(stream_key(seed, "uniform", k, tensor), 0, self.theta.shape[1], real) for k in range(len(theta))]
        )
        self.further = {name: given.pop(name, None) for name in self.method.inputs}
        self.values: dict[str, Any] = {**self._parameters(given, compat), "experts": float(len(theta)), **self.further}
        self.values |= {"numel": self.theta.shape[1], "wide": self.namespace.dtype == np.float64, "kind": ""}
        self.values |= {"has_base": base is not None, "shape": self.shape, "row": 0.0}
        self.values["further"] = tuple(sorted(name for name, given_ in self.further.items() if given_ is not None))
        self.report: dict[str, Any] = {}
        problems = list(self.method.check(self.values))
        assert not problems, problems

    def _parameters(self, given: dict[str, Any], compat: bool) -> dict[str, Any]:
        values: dict[str, Any] = {}
        renamed = {("lambda" if name == "lam" else name): value for name, value in given.items()}
        assert set(renamed) <= set(self.method.names), set(renamed) - set(self.method.names)
        for p in self.method.parameters:
            default = self.method.compat.get(p.name, p.default) if compat else p.default
            value = renamed.get(p.name, default)
            assert value is not None, f"{p.name} needs a value"
            if p.per == "expert":
                value = np.broadcast_to(np.asarray(value, np.float64), (len(self.theta),))
            values[p.argument] = value
        return values

    def merge(self) -> np.ndarray:
        static = {p.argument: self.values[p.argument] for p in self.method.parameters if p.is_static}
        for stage in self.method.statistics(len(self.theta), **static):
            self.values.update({statistic.name: self._gather(statistic) for statistic in stage})
        if self.method.derive:
            self.values.update(self.method.derive(dict(self.values)))
        merged = self._call(self.method.formula, whole=self.method.is_whole(self.values))
        merged = np.broadcast_to(np.asarray(merged, self.namespace.dtype), self.theta.shape[1:]).copy()
        if self.tau is not None and self.method.keeps_base(self.values):
            untouched = (self.tau == 0).all(0)
            merged[untouched] = self.base[untouched]
        return merged.reshape(self.shape)

    def _call(self, formula: Any, *, by_rows: bool = False, whole: bool = False, real: Any = None) -> Any:
        """The formula on flat arrays, on rows, or on whole tensors in their own shape; in ``real`` if given."""
        shape = self.rows if by_rows else self.shape if whole else (-1,)
        values = {name: x for name, x in self.values.items() if name not in self.further} | {"uniform": self.uniform}
        values["field"] = None
        if self.method.rows_field is not None and not by_rows and not whole and "field" in arguments(formula, values):
            field = np.asarray(self._call(self.method.rows_field, by_rows=True), self.namespace.dtype)
            values["field"] = field.reshape(-1, self.theta.shape[1])
        ready = {name: self._ready(value, shape, exact=by_rows or whole) for name, value in values.items()}
        ready["field"] = values["field"]
        ready["uniform"] = self.uniform.reshape(len(self.theta), *shape)
        ready |= {name: self._further(arrays, shape, whole) for name, arrays in self.further.items()}
        namespace = self.namespace if real is None else NumpyNamespace(real)
        base = None if self.base is None else self.base.reshape(shape).astype(namespace.dtype)
        stack = self.theta.reshape(len(self.theta), *shape).astype(namespace.dtype)
        if base is not None and self.method.space == "delta":
            stack = stack - base
        with np.errstate(all="ignore"):
            result = formula(namespace, base, stack, **arguments(formula, ready))
        if isinstance(result, Reported):
            self.report, result = dict(result.report), result.merged
        return np.reshape(result, (-1,)) if whole else result

    def _ready(self, value: Any, shape: tuple[int, ...], *, exact: bool) -> Any:
        """A number a tensor, expert or row so that it broadcasts against [K, *shape].

        Functions of rows and whole tensors get numbers exactly as they are, other formulas in their arithmetic.
        """
        if value is None or isinstance(value, bool | str | tuple) or np.shape(value) == self.theta.shape:
            return value
        if np.ndim(value) > 2:
            return value
        array = np.asarray(value, np.float64 if exact else self.namespace.dtype)
        if array.ndim == 1:
            return array.reshape(-1, *[1] * len(shape))
        if array.ndim == 2:
            rows = array.shape[1]
            return array.reshape(-1, rows, 1) if exact else np.repeat(array, self.theta.shape[1] // rows, axis=1)
        return array[()]

    def _further(self, arrays: Any, shape: tuple[int, ...], whole: bool) -> Any:
        """K arrays like the tensor as [K, *shape]; whole methods get a list in the arrays' own shapes."""
        if arrays is None or whole:
            return arrays
        return np.stack([np.asarray(x, self.namespace.dtype).reshape(shape) for x in arrays])

    def _gather(self, statistic: Statistic) -> np.ndarray:
        known = statistic.skip(self.values) if statistic.skip else None
        if known is not None:
            return np.asarray(known)
        if statistic.reduce == "matrix":
            total = np.asarray(self._call(statistic.formula, by_rows=True), np.float64)
            return np.asarray(statistic.finish(total, self.values))
        if statistic.reduce == "rows":
            return np.asarray(self._call(statistic.formula, by_rows=True, real=np.float64))
        found = self._call(statistic.formula)
        rows = [np.broadcast_to(row, self.theta.shape[1:]) for row in (found if np.ndim(found) != 1 else [found])]
        if statistic.reduce == "sum":
            return np.array([row.sum(dtype=np.float64) for row in rows])
        if statistic.reduce == "count":
            return np.array([np.count_nonzero(row) for row in rows])
        assert statistic.rank is not None
        nonzero = np.array([np.count_nonzero(row) for row in rows])
        ranks = statistic.rank(self.theta.shape[1], nonzero, self.values)
        return np.array([self._kth(np.sort(row)[::-1], int(r)) for row, r in zip(rows, ranks, strict=True)])

    @staticmethod
    def _kth(descending: np.ndarray, rank: int) -> float:
        if rank <= 0:
            return np.inf
        return 0.0 if rank > np.count_nonzero(descending) else float(descending[rank - 1])

"""What a merge method is: one pure formula, the parameters it takes, and the statistics it needs beforehand."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from rlmerge.errors import RequestError
from rlmerge.frozen import frozen

if TYPE_CHECKING:
    from rlmerge.kernels.values import Spread

Status = Literal["exact", "second-hand", "reconstruction", "own"]
Subject = Literal["coordinates", "signs", "angles", "inputs", "subspaces", "sensitivities"]
SUBJECTS: Mapping[Subject, str] = {
    "coordinates": "each coordinate by itself",
    "signs": "signs at a coordinate",
    "angles": "angles between whole vectors",
    "subspaces": "subspaces of a matrix",
    "inputs": "the inputs of a layer, measured or read off the changes",
    "sensitivities": "measured sensitivities",
}
"""What methods look at to decide about a change, in the order of listings, in words."""

Formula = Callable[..., Any]

_RESERVED = frozenset({"uniform", "field"})


@frozen(slots=True)
class Parameter:
    """One parameter of a method, as a recipe spells it.

    ``per`` says whether it has one value per output tensor or one per expert. Numbers may vary from tensor to tensor
    (gradients, filters); booleans and choices select code, so they are fixed for a whole merge. ``low`` and ``high``
    bound a number, inclusively unless ``open_low`` says otherwise. ``argument`` is the formula's keyword when the
    recipe's name is a Python keyword.
    """

    name: str
    default: float | bool | str | None
    help: str
    per: Literal["tensor", "expert"] = "tensor"
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    argument: str = ""

    def __post_init__(self) -> None:
        if not self.argument:
            object.__setattr__(self, "argument", self.name)

    @property
    def is_static(self) -> bool:
        """True for booleans and choices: they select code and cannot vary from tensor to tensor."""
        return isinstance(self.default, bool | str) or bool(self.choices)

    def problem(self, value: object) -> str | None:
        """Why ``value`` cannot be this parameter's value, or None when it can."""
        if self.choices:
            if value in self.choices or (isinstance(value, bool) and value in (True, False)):
                return None
            return f"must be one of {', '.join(self.choices)}, not {value!r}"
        if isinstance(self.default, bool):
            return None if isinstance(value, bool) else f"must be true or false, not {value!r}"
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return f"must be a number, not {value!r}"
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return f"must be {'above' if self.open_low else 'at least'} {self.low:g}, not {value:g}"
        if self.high is not None and value > self.high:
            return f"must be at most {self.high:g}, not {value:g}"
        return None


@frozen(slots=True)
class Needs:
    """What memory for one tensor depends on: its ``shape``, the number of ``experts``, bytes per number in arithmetic
    (``itemsize``), the entries of each further input, and the method's values."""

    shape: tuple[int, ...]
    experts: int
    itemsize: int
    further: tuple[int, ...]
    values: Mapping[str, Any]

    @property
    def numel(self) -> int:
        """Entries of the tensor."""
        return math.prod(self.shape)


@frozen(slots=True)
class Statistic:
    """A value of a whole tensor (or model) that a formula needs, gathered by streaming before the merge.

    ``formula(xp, base, tau, **values)`` returns ``[K, n]`` or a list of ``[n]``; M is the number of its rows.
    ``reduce`` says what becomes of each row:

    - ``sum``: float64 sum, in blocks of fixed size so that the result is independent of tiles and workers.
    - ``count``: how many entries of a mask are true.
    - ``kth``: the r-th largest of non-negative values, exactly, where ``rank(numel, nonzero, values)`` gives r [M];
      r = 0 gives infinity (keep nothing) and r > nonzero gives 0 (keep every non-zero entry).
    - ``rows``: the formula is run by NumPy in float64 on ``base`` [rows, columns] and ``tau`` [K, rows, columns] and
      returns ``[M, rows]`` itself.
    - ``matrix``: the formula is run by NumPy in arithmetic precision on the same, group of rows by group of rows, may
      ask for ``row``, the index of the group's first, and returns a float64 array of ``numbers(needs)`` entries in any
      shape, 0 where the value is known without. Groups depend on the tensor alone and are added up in order;
      ``finish(total, values)`` makes the value.

    The value reaches later formulas under ``name`` as M numbers (``rows``: M numbers a row; ``matrix``: as it is, and
    only functions of rows). ``over`` is the tensor or the whole model. ``skip(values)`` may return the value without
    any scan (density 1 keeps everything). ``uses`` names the values that ``rank`` and ``skip`` look at, so that a
    cached statistic is not taken for another's.
    """

    name: str
    formula: Formula
    reduce: Literal["sum", "count", "kth", "rows", "matrix"]
    over: Literal["tensor", "model"] = "tensor"
    rank: Callable[[int, Any, Mapping[str, Any]], Any] | None = None
    skip: Callable[[Mapping[str, Any]], Any] | None = None
    uses: tuple[str, ...] = ()
    finish: Callable[[Any, Mapping[str, Any]], Any] = lambda total, values: total
    numbers: Callable[[Needs], int] = lambda needs: 0


@frozen(slots=True)
class Share:
    """A measured ratio (``part`` / ``whole``)^``power``; parts and wholes of several tensors add up."""

    part: float
    whole: float
    power: float = 1.0

    @property
    def value(self) -> float | None:
        """The ratio, None of nothing."""
        return (self.part / self.whole) ** self.power if self.whole > 0 else None


@frozen(slots=True)
class Reported:
    """What a formula of a whole tensor may return in place of the merged values: these, and what it measured."""

    merged: Any
    report: Mapping[str, Share]


Stages = Sequence[Sequence[Statistic]]


def _plenty(needs: Needs) -> int:
    """Three arrays an expert and four more in float64; matrices of another size beside it, and what their sum is solved
    with."""
    matrices = sum(needs.further) + 5 * max(needs.further, default=0)
    return 8 * (needs.numel * (3 * needs.experts + 4) + matrices)


def _no_statistics(experts: int, **static: Any) -> Stages:
    return ()


@frozen(slots=True)
class Method:
    """A merge method as data.

    ``formula(xp, base, tau, **values)`` sees one tile: ``base`` [n] and ``tau`` [K, n] in arithmetic precision, and
    returns the merged values [n]. With ``space="weights"`` the third argument holds the experts' weights instead of
    their task vectors, and ``base`` is None where the recipe has none. It names the values it wants as keyword
    arguments: its parameters, the statistics of ``statistics(experts, **static)`` (a sequence of stages, each of which
    may use the stages before it), what ``derive(values)`` computes from those, ``uniform`` ([K, n] counter-based
    numbers in [0, 1)), ``field`` ([K, n], see below), and optional extra ``inputs`` ([K, n] read from other
    checkpoints, None when absent).

    ``rows_field(xp, base, tau, **values)`` is run by NumPy on whole rows, ``base`` [rows, columns] and ``tau``
    [K, rows, columns] in arithmetic precision, and returns ``field`` [K, rows, columns], which every formula of the
    method may ask for. It may ask for parameters (per expert [K, 1, 1]), ``uniform``, and the statistics gathered
    before. Where it is one ``kernels.ranks.spread_by_rank`` an expert of that expert's task vector,
    ``spreads(**values)`` may say which, as a sequence of ``Spread``, so that it is computed by machine code alone. With
    ``row_wise`` it returns [1, rows, columns] instead, and what it makes of a row, bit for bit, depends
    on that row alone.

    Every formula may also ask for ``experts`` (K), ``numel`` (entries of the tensor) and ``wide`` (whether arithmetic
    is float64).

    ``whole`` methods (a function of the values where only some are) get entire tensors in their own shape, numbers per
    expert as [K, 1, …] and each of ``inputs`` as a list of arrays, always on NumPy, and may return ``Reported``. They
    may ask for ``kind`` too, what the tensor is for as ``checkpoint.module_kinds`` reads it off the name ("" where
    nothing is known). ``workspace(needs)`` is the memory in bytes that the formula takes beside base, experts and task
    vectors. ``keeps_base(values)`` says that a coordinate no expert changed keeps the base's bits.
    ``needs_inputs(static)`` says that without its ``inputs`` the method means nothing.

    ``looks_at`` is what decides about a change: the coordinate alone, signs at it, angles between whole vectors, the
    inputs of a layer (measured, or estimated from the changes), subspaces of a matrix, or measured sensitivities.
    ``bitwise`` is False where eigenvectors by LAPACK take part, so that the last bits depend on the machine's BLAS.
    ``compiled`` is False, always or for some values, where a formula of single coordinates calls NumPy itself, which
    costs memory for its intermediate arrays.

    ``report(values)`` measures what the formula does to one tensor: labels, where ``{0}`` stands for the first expert's
    name, and ``Share``s that add up over the model.
    """

    name: str
    formula: Formula
    summary: str
    paper: str
    status: Status
    parameters: tuple[Parameter, ...] = ()
    statistics: Callable[..., Stages] = _no_statistics
    derive: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    rows_field: Formula | None = None
    spreads: Callable[..., Sequence[Spread]] | None = None
    row_wise: bool = False
    inputs: tuple[str, ...] = ()
    needs_inputs: Callable[[Mapping[str, Any]], bool] = lambda static: False
    space: Literal["delta", "weights"] = "delta"
    base: Literal["required", "optional", "ignored"] = "required"
    min_experts: int = 1
    max_experts: int | None = None
    whole: bool | Callable[[Mapping[str, Any]], bool] = False
    workspace: Callable[[Needs], int] = _plenty
    looks_at: Subject = "coordinates"
    bitwise: bool = True
    compiled: bool | Callable[[Mapping[str, Any]], bool] = True
    keeps_base: Callable[[Mapping[str, Any]], bool] = lambda values: True
    check: Callable[[Mapping[str, Any]], Sequence[str]] = lambda values: ()
    warn: Callable[[Mapping[str, Any]], Sequence[str]] = lambda values: ()
    report: Callable[[Mapping[str, Any]], Mapping[str, Share]] = lambda values: {}
    notes: tuple[str, ...] = ()
    compat: Mapping[str, Any] = field(default_factory=dict)

    def parameter(self, name: str) -> Parameter:
        """The parameter a recipe calls ``name``; KeyError when there is none."""
        return next(p for p in self.parameters if p.name == name) if name in self.names else _missing(name)

    def is_whole(self, values: Mapping[str, Any]) -> bool:
        """Whether the formula needs whole tensors with these values."""
        return self.whole(values) if callable(self.whole) else self.whole

    def is_compiled(self, values: Mapping[str, Any]) -> bool:
        """Whether formulas of single coordinates can be compiled with these values."""
        return self.compiled(values) if callable(self.compiled) else self.compiled

    @property
    def names(self) -> tuple[str, ...]:
        """Recipe names of the parameters, in order."""
        return tuple(p.name for p in self.parameters)

    def preset(self, name: str, *, defaults: Mapping[str, Any], **changes: Any) -> Method:
        """The same method under another name with other defaults: a preset, never a copy."""
        unknown = set(defaults) - set(self.names)
        if unknown:
            raise KeyError(f"{self.name} has no parameter {sorted(unknown)[0]}")
        parameters = tuple(replace(p, default=defaults.get(p.name, p.default)) for p in self.parameters)
        return replace(self, name=name, parameters=parameters, **changes)


def _missing(name: str) -> Parameter:
    raise KeyError(name)


@lru_cache(maxsize=1024)
def _asked(function: Formula) -> tuple[bool, tuple[str, ...], frozenset[str]]:
    """Whether a function takes any keyword argument, which ones it names, and which of them have a default."""
    parameters = tuple(inspect.signature(function).parameters.values())
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    some = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return some, tuple(p.name for p in named), frozenset(p.name for p in named if p.default is not p.empty)


def arguments(function: Formula, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``values`` that ``function`` names as keyword arguments (all of them with ``**``)."""
    some, names, optional = _asked(function)
    if some:
        return dict(values)
    found = {name: values[name] for name in names if name in values}
    if len(found) < len(names):
        absent = [name for name in names if name not in found and name not in optional]
        if absent:
            name = getattr(function, "__name__", "formula")
            raise RequestError(
                f"formula '{name}' asks for '{absent[0]}', which is no parameter, statistic or derived value of its "
                "method",
                hint=f"It can ask for: {', '.join(sorted(set(values) | _RESERVED))}.",
            )
    return found

"""A recipe in which values may be ranges: what is free in it, and the recipe that a choice of values makes.

A range stands where a value would: ``{low: 0.2, high: 1.5}``, with ``log: true`` on a logarithmic scale and ``step`` on
a grid, or ``{choices: [ties, ram]}``. It may be the ``merge_method`` or a value of ``parameters``, anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rlmerge.errors import RecipeError, RequestError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.methods import Method
from rlmerge.recipe import Recipe
from rlmerge.recipe.parse import Lookup, build
from rlmerge.recipe.tree import Node, Scalar

METHOD = "merge_method"
_RANGE = ("low", "high", "log", "step", "choices")

Path = tuple[str | int, ...]
Values = Mapping[str, Scalar]
"""A value for each free dimension that a recipe has, by the dimension's name."""


@frozen(slots=True)
class Dimension:
    """One free value.

    ``choices`` is empty for a number in [``low``, ``high``]. ``parameter`` is what the recipe calls it, ``model`` the
    expert it is for, and ``group`` the filter that says which tensors; None where it holds for all.
    """

    name: str
    path: Path
    where: str
    parameter: str
    model: str | None
    group: str | None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Scalar, ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.choices) > 1 or self.low < self.high

    def nearest(self, value: object) -> Scalar:
        """The value of this dimension that comes closest to ``value``; None where none does."""
        if self.choices:
            return next((choice for choice in self.choices if choice == value), None)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        inside = min(max(float(value), self.low), self.high)
        if self.step is None:
            return inside
        return min(self.high, self.low + self.step * round((inside - self.low) / self.step))

    @property
    def middle(self) -> Scalar:
        """The middle of its range, on its scale; the first choice where there are choices."""
        if self.choices:
            return self.choices[0]
        return self.nearest(math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2)

    def to_dict(self) -> dict[str, object]:
        """Plain data for the report."""
        span = {"choices": list(self.choices)} if self.choices else {"low": self.low, "high": self.high}
        kind = {"log": self.log, "step": self.step, "parameter": self.parameter}
        return {"name": self.name, "model": self.model, "group": self.group, **span, **kind}


class Space:
    """The recipes that one recipe with ranges stands for.

    RecipeError with every range that cannot be read or whose ends no method takes; RequestError when nothing is free.
    """

    def __init__(self, root: Node, origin: str | None, lookup: Lookup) -> None:
        self._root, self._origin, self._lookup = root, origin, lookup
        self._problems: list[RequestError] = []
        found = list(self._walk(root, ()))
        if self._problems:
            raise RecipeError(self._problems)
        self.dimensions = tuple(_distinct(found))
        self._by_path = {dimension.path: dimension for dimension in self.dimensions}
        method = self._by_path.get((METHOD,))
        given = root.fields.get(METHOD)
        names = [str(name) for name in method.choices] if method else [given.text] if given else []
        self.methods: dict[str, Method] = {name: self._find(name, method or given) for name in names}
        if self._problems:
            raise RecipeError(self._problems)
        self._check_ends()
        if not any(dimension.is_free for dimension in self.dimensions):
            hint = "Write a range where a value is: weight: {low: 0.2, high: 1.5}, or {choices: [ties, ram]}."
            raise RequestError("nothing is free in this recipe", where=origin or "recipe", hint=hint)

    @property
    def method(self) -> Dimension | None:
        """The dimension that chooses the method, if it is free."""
        return self._by_path.get((METHOD,))

    def numbers(self, parameter: str, method: str | None = None) -> tuple[Dimension, ...]:
        """The free numbers of a parameter that recipes of ``method`` have."""
        found = (d for d in self.dimensions if d.parameter == parameter and d.is_free and not d.choices)
        return tuple(dimension for dimension in found if self.belongs(dimension, method))

    def scales(self, method: str | None = None) -> tuple[Dimension, ...]:
        """The free numbers that stand for the coefficient of a method's merged change: ``lambda``, else all weights.

        Weights that are normalised scale nothing.
        """
        return self.numbers("lambda", method) or self.numbers("weight", method)

    def belongs(self, dimension: Dimension, method: str | None) -> bool:
        """Whether recipes of ``method`` have this dimension; None is the only method there is."""
        if dimension.path == (METHOD,):
            return True
        return self._has(dimension.parameter, method or next(iter(self.methods), ""))

    def recipe(self, values: Values) -> Recipe:
        """The recipe of ``values``; those of parameters that its method lacks are not looked at.

        RecipeError when the recipe makes no sense.
        """
        chosen = values.get(METHOD) if self.method else None
        name = str(chosen) if chosen is not None else next(iter(self.methods), "")
        return build(self._filled(self._root, (), values, name), self._origin, self._lookup)

    def locate(self, recipe: Recipe) -> dict[str, Scalar]:
        """The values at which a given recipe of the same models stands, the nearest where it stands outside.

        What it says nothing comparable about is left out.
        """
        found: dict[str, Scalar] = {}
        own = {str(source.model): source.parameters for source in recipe.experts}
        for dimension in self.dimensions:
            if dimension.path == (METHOD,):
                value: object = recipe.method.name
            else:
                levels = [own.get(dimension.model, {})] if dimension.model else []
                settings = [level.get(dimension.parameter) for level in (*levels, recipe.parameters)]
                setting = next((each for each in settings if each is not None), None)
                value = setting.at(dimension.group or "", 0.0) if setting is not None else None
            near = dimension.nearest(value)
            if near is not None:
                found[dimension.name] = near
        return found

    def _find(self, name: str, at: Dimension | Node | None) -> Method:
        try:
            return self._lookup(name)
        except RequestError as error:
            where = at.where if at is not None else None
            self._problems.append(RequestError(error.what, where=where, hint=error.hint))
            return None  # type: ignore[return-value]  # the problem is raised before anyone looks

    def _has(self, parameter: str, method: str) -> bool:
        return method in self.methods and parameter in self.methods[method].names

    def _walk(self, node: Node, path: Path, model: str | None = None, group: str | None = None) -> Iterator[Dimension]:
        """Every range in the tree, in written order."""
        if _is_range(node):
            dimension = self._range(node, path, model, group)
            if dimension is not None:
                yield dimension
            return
        for number, item in enumerate(node.items):
            yield from self._walk(item, (*path, number), model, group)
        if "model" in node.fields and node.fields["model"].is_scalar:
            model = node.fields["model"].text
        if "filter" in node.fields and "value" in node.fields:
            group = node.fields["filter"].text
        for name, entry in node.fields.items():
            yield from self._walk(entry, (*path, name), model, group)

    def _range(self, node: Node, path: Path, model: str | None, group: str | None) -> Dimension | None:
        if path != (METHOD,) and "parameters" not in path[:-1]:
            what = "a range stands for the merge_method or for a value of `parameters`, not here"
            return self._problem(node, what, "Give this a plain value.")
        unknown = next((name for name in node.fields if name not in _RANGE), None)
        if unknown is not None:
            return self._problem(node, f"a range has no '{unknown}'", did_you_mean(unknown, _RANGE))
        parameter = METHOD if path == (METHOD,) else str(path[len(path) - path[::-1].index("parameters")])
        # A place on a gradient over the layers; rules are told apart by their filters.
        label = f"{parameter} {path[-1] + 1}" if isinstance(path[-1], int) else parameter
        short = (model or "").rstrip("/").rpartition("/")[2]
        label += (f" of {short}" if model else "") + (f" [{group}]" if group else "")
        dimension = Dimension(label, path, node.where, parameter, model, group)
        return self._choices(node, dimension) if "choices" in node.fields else self._numbers(node, dimension)

    def _choices(self, node: Node, dimension: Dimension) -> Dimension | None:
        items = node.fields["choices"].items
        values = [item.value for item in items if not isinstance(item.value, list | dict)]
        if len(node.fields) > 1 or not items or len(values) < len(items) or None in values:
            what = "`choices` is a list of plain values, and stands alone"
            return self._problem(node, what, "Write {choices: [ties, ram]}.")
        if len({(type(value).__name__, value) for value in values}) < len(values):
            return self._problem(node, "`choices` names a value twice", "Name every value once.")
        if dimension.path == (METHOD,):
            values = [item.text for item in items]
        return replace(dimension, choices=tuple(values))

    def _numbers(self, node: Node, dimension: Dimension) -> Dimension | None:
        if dimension.path == (METHOD,):
            return self._problem(node, "methods are no numbers", "Write {choices: [task_arithmetic, ties]}.")
        ends = [node.fields[name].value if name in node.fields else None for name in ("low", "high")]
        step = node.fields["step"].value if "step" in node.fields else None
        log = node.fields["log"].value if "log" in node.fields else False
        numbers = [*ends, *([step] if step is not None else [])]
        if not all(_is_number(value) for value in numbers) or not isinstance(log, bool):
            return self._problem(
                node, "a range needs numbers", "Write {low: 0.2, high: 1.5}, and log: true if need be."
            )
        low, high = (float(value) for value in ends if isinstance(value, int | float))
        width = float(step) if isinstance(step, int | float) else None
        if low > high:
            return self._problem(node, f"the range ends at {high:g}, below its start at {low:g}", "Swap them.")
        if log and low <= 0:
            hint = "Start above 0, or leave `log` out."
            return self._problem(node, f"a logarithmic range cannot start at {low:g}", hint)
        if width is not None and (width <= 0 or log or width > high - low):
            what = "a `step` is above 0, at most as long as the range, and not on a logarithmic scale"
            return self._problem(node, what, "Correct it, or leave it out.")
        if width is not None:
            high = low + width * math.floor((high - low) / width + 1e-9)
        return replace(dimension, low=low, high=high, log=log, step=width)

    def _problem(self, node: Node, what: str, hint: str) -> None:
        self._problems.append(RequestError(what, where=node.where, hint=hint))

    def _filled(self, node: Node, path: Path, values: Values, method: str) -> Node:
        """The tree with a value in place of every range, and without what only other methods know."""
        dimension = self._by_path.get(path)
        if dimension is not None:
            value = values[dimension.name] if dimension.name in values else _first(dimension)
            return Node(value, node.where, node.line, "" if value is None else str(value))
        if node.items:
            filled = [self._filled(item, (*path, number), values, method) for number, item in enumerate(node.items)]
            return replace(node, value=filled)
        if not node.fields:
            return node
        kept = {name: entry for name, entry in node.fields.items() if self._is_kept(path, name, method)}
        return replace(
            node, value={name: self._filled(entry, (*path, name), values, method) for name, entry in kept.items()}
        )

    def _is_kept(self, path: Path, name: str, method: str) -> bool:
        """False for a parameter that other methods of the space have, but not this one."""
        if not path or path[-1] != "parameters" or self._has(name, method):
            return True
        return not any(self._has(name, other) for other in self.methods)

    def _check_ends(self) -> None:
        """RecipeError where the lowest or the highest values make no recipe."""
        problems: dict[str, RequestError] = {}
        for method in self.methods:
            for end in (0, -1):
                values = {d.name: d.choices[end] if d.choices else (d.low, d.high)[end] for d in self.dimensions}
                if self.method is not None:
                    values[self.method.name] = method
                try:
                    self.recipe(values)
                except RecipeError as error:
                    problems.update({str(problem): problem for problem in error.problems})
        for dimension in self.dimensions:
            if not any(self.belongs(dimension, method) for method in self.methods):
                known = sorted({name for method in self.methods.values() for name in method.names})
                what = f"no method of this search has a parameter '{dimension.parameter}'"
                hint = did_you_mean(dimension.parameter, known)
                problems.setdefault(dimension.name, RequestError(what, where=dimension.where, hint=hint))
        if problems:
            raise RecipeError(problems.values())


def _is_range(node: Node) -> bool:
    """A mapping with the keys of a range: no recipe has such a mapping anywhere."""
    return any(name in node.fields for name in ("low", "high", "choices"))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _first(dimension: Dimension) -> Scalar:
    return dimension.choices[0] if dimension.choices else dimension.low


def _distinct(dimensions: Sequence[Dimension]) -> Iterator[Dimension]:
    """The dimensions under names of their own."""
    seen: dict[str, int] = {}
    for dimension in dimensions:
        seen[dimension.name] = count = seen.get(dimension.name, 0) + 1
        yield dimension if count == 1 else replace(dimension, name=f"{dimension.name} ({count})")

"""What a recipe is once read: a method, a base, experts, and the value of every parameter for every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlmerge.methods.method import Method, Parameter
from rlmerge.recipe.layers import layer_index
from rlmerge.recipe.lock import Locked
from rlmerge.recipe.parameters import default_value
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Setting, Value
from rlmerge.recipe.tree import failure


@dataclass(frozen=True, slots=True)
class Source:
    """One expert, with the parameters given for it alone, and the directories of further inputs by their names."""

    model: ModelRef
    parameters: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    line: int | None = field(default=None, compare=False)
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``experts`` are the models that enter the formula, without the base.

    The exception is a method whose base is "ignored" (linear): there a base listed among the models is an expert like
    any other, and ``base`` only says whose config and tokenizer to copy and what changes are counted against.
    ``depth`` is the layer count a single whole-model slice claims, to be compared with the models'. ``text`` is
    canonical YAML: reading it gives an equal recipe. ``locked`` is what a lock file fixes beside the recipe. Equality
    ignores ``text``, ``origin``, ``warnings`` and ``locked``.
    """

    method: Method
    base: ModelRef | None
    experts: tuple[Source, ...]
    parameters: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    dtype: str | None = None
    out_dtype: str | None = None
    compat: bool = False
    chat_template: str | None = None
    tokenizer_source: str | None = None
    depth: int | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)
    origin: str | None = field(default=None, compare=False)
    locked: Locked | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """Canonical YAML of this recipe."""
        from rlmerge.recipe.canonical import to_yaml

        return to_yaml(self)

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        """Directories of further inputs by name, one per expert; what the recipe does not give is left out."""
        given = [name for name in self.method.inputs if all(name in expert.inputs for expert in self.experts)]
        return {name: tuple(expert.inputs[name] for expert in self.experts) for name in given}

    def values(self, tensor: str, layers: int) -> dict[str, Any]:
        """Every parameter of the method for one output tensor of a model with ``layers`` layers, keyed by argument.

        Numbers per tensor are floats, numbers per expert float64 arrays [K], booleans and choices as they are.
        RecipeError when a filtered list without a catch-all leaves a parameter that has no default unset.
        """
        position = self._position(tensor, layers)
        values: dict[str, Any] = {}
        for parameter in self.method.parameters:
            if parameter.per == "expert" and not parameter.is_static:
                each = [self._value(parameter, expert.parameters, tensor, position) for expert in self.experts]
                values[parameter.argument] = np.array(each, dtype=np.float64)
            else:
                values[parameter.argument] = self._value(parameter, {}, tensor, position)
        return values

    def static(self) -> dict[str, Any]:
        """The booleans and choices alone, which are the same for every tensor, keyed by argument."""
        return {p.argument: self._value(p, {}, "", 0.0) for p in self.method.parameters if p.is_static}

    def unused_filters(self, tensors: Iterable[str]) -> tuple[str, ...]:
        """Filters that are no part of any of these tensor names: most likely typos."""
        names = list(tensors)
        settings = [*self.parameters.values(), *(s for e in self.experts for s in e.parameters.values())]
        patterns = dict.fromkeys(r.pattern for s in settings for r in s.rules if r.pattern is not None)
        return tuple(pattern for pattern in patterns if not any(pattern in name for name in names))

    def _position(self, tensor: str, layers: int) -> float:
        """Where on a gradient a tensor stands: 0 at the first layer and outside the layers, 1 at the last."""
        if self.depth is not None and layers != self.depth:
            raise failure(
                f"layer_range ends at {self.depth}, but the models have {layers} layers",
                self.origin or "recipe",
                "This version merges whole models: remove `slices` and list them under `models`.",
            )
        index = layer_index(tensor)
        if index is None:
            return 0.0
        return min(1.0, index / (layers - 1)) if layers > 1 else 1.0

    def _value(self, parameter: Parameter, own: Mapping[str, Setting], tensor: str, position: float) -> Value:
        for settings in (own, self.parameters):
            if (setting := settings.get(parameter.name)) and (value := setting.at(tensor, position)) is not None:
                return value
        default = default_value(self.method, parameter, self.compat)
        if default is None:
            raise failure(
                f"no value of '{parameter.name}' for tensor '{tensor}'",
                self.origin or "recipe",
                "End the list with a `value` that has no filter.",
            )
        return default

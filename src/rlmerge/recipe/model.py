"""What a recipe is once read: a method, modules of slices of models, and the value of every parameter anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from typing import Any

import numpy as np

from rlmerge.frozen import frozen
from rlmerge.methods.method import Method, Parameter
from rlmerge.recipe.chat import ChatTemplate
from rlmerge.recipe.layers import layer_index
from rlmerge.recipe.layout import Module, Slice, SliceSource
from rlmerge.recipe.lock import Locked
from rlmerge.recipe.parameters import Settings, default_value
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Rule, Setting, Value
from rlmerge.recipe.tokenizer import TokenizerSpec
from rlmerge.recipe.tree import failure


@frozen
class Recipe:
    """A checked recipe: one document of a file.

    ``base`` is the model the experts are compared with, and says whose config and tokenizer to copy; a slice may have
    another. Of a method whose base is "ignored" (linear) a listed base is an expert like any other. The ``models`` form
    is one module without a name, of one slice without layer ranges. ``parameters`` are those for all modules. ``name``
    is what other recipes of the file call its result. ``text`` is canonical YAML: reading it gives an equal recipe.
    ``locked`` is what a lock file fixes beside the recipe. Equality ignores ``text``, ``origin``, ``warnings``,
    ``locked`` and lines.
    """

    method: Method
    base: ModelRef | None
    modules: tuple[Module, ...]
    parameters: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    dtype: str | None = None
    out_dtype: str | None = None
    compat: bool = False
    tokenizer: TokenizerSpec | None = None
    chat_template: ChatTemplate | None = None
    name: str | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)
    origin: str | None = field(default=None, compare=False)
    locked: Locked | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """Canonical YAML of this recipe."""
        from rlmerge.recipe.canonical import to_yaml

        return to_yaml(self)

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods in use, each once: the recipe's, and those of modules that have their own."""
        return tuple({method.name: method for method in map(self.method_of, self.modules)}.values())

    def method_of(self, module: Module) -> Method:
        """What a module is merged by."""
        return module.method or self.method

    def _levels(self, module: Module, part: Slice) -> tuple[Settings, ...]:
        """The parameters that hold for a slice, the innermost first; the recipe's are those of its own method."""
        return (part.parameters, module.parameters, *(() if module.method else (self.parameters,)))

    @property
    def slices(self) -> Iterable[tuple[Module, Slice]]:
        """Every slice with its module, in the order of the output's layers."""
        return ((module, each) for module in self.modules for each in module.slices)

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Every model the recipe names, each once: base, then slice by slice, then tokenizer and chat template.

        This is the order in which a lock lists them.
        """
        named = [self.base] if self.base else []
        named += [model for _, each in self.slices for model in each.models]
        named += self.tokenizer.models if self.tokenizer else ()
        named += [self.chat_template.model] if self.chat_template and self.chat_template.model else []
        distinct: dict[str, ModelRef] = {}
        for model in named:
            distinct.setdefault(model.identity, model)
        return tuple(distinct.values())

    def map_models(self, change: Callable[[ModelRef], ModelRef]) -> Recipe:
        """The same recipe of other models, as where each is pinned to a commit."""
        return replace(
            self,
            base=change(self.base) if self.base else None,
            modules=tuple(module.map_models(change) for module in self.modules),
            tokenizer=self.tokenizer.map_models(change) if self.tokenizer else None,
            chat_template=self.chat_template.map_model(change) if self.chat_template else None,
        )

    def map_slices(self, change: Callable[[Module, Slice], Slice]) -> Recipe:
        """The same recipe of other slices, as where an expert turns out to be the base under another name."""
        modules = [replace(m, slices=tuple(change(m, each) for each in m.slices)) for m in self.modules]
        return replace(self, modules=tuple(modules))

    def values_at(
        self,
        module: Module,
        part: Slice,
        *,
        output_name: str,
        source_names: Sequence[str],
        position: float,
        is_router: bool = False,
    ) -> dict[str, Any]:
        """Every parameter of the method for one output tensor of a slice, keyed by argument.

        ``source_names`` is the tensor's name in each source, which filters of values per expert look at; those of all
        others look at ``output_name``. ``position`` in [0, 1] is where on a gradient the tensor stands: i / (n - 1) at
        layer i of the n of the slice (1 where n is 1), 0 outside the layers. ``is_router`` says that the tensor is a
        router of a mixture of experts.

        A source's value comes before the slice's, the module's and the recipe's, each where its rules hold. Numbers per
        tensor are floats, numbers per expert float64 arrays [K], booleans and choices as they are. RecipeError when a
        filtered list without a catch-all leaves a parameter that has no default unset.
        """
        method, levels = self.method_of(module), self._levels(module, part)
        values: dict[str, Any] = {}
        for parameter in method.parameters:
            if parameter.per == "expert" and not parameter.is_static:
                values[parameter.argument] = np.array(
                    [
                        self._value(method, parameter, (source.parameters, *levels), name, position, is_router)
                        for source, name in zip(part.sources, source_names, strict=True)
                    ],
                    dtype=np.float64,
                )
            else:
                values[parameter.argument] = self._value(method, parameter, levels, output_name, position, is_router)
        return values

    def varies(self, module: Module, part: Slice) -> tuple[bool, bool]:
        """Whether ``values_at`` depends on names in this slice, and whether on ``position``."""
        levels = (*(source.parameters for source in part.sources), *self._levels(module, part))
        rules = [rule for settings in levels for setting in settings.values() for rule in setting.rules]
        return any(rule.pattern is not None for rule in rules), any(len(rule.values) > 1 for rule in rules)

    def static(self, module: Module | None = None, part: Slice | None = None) -> dict[str, Any]:
        """The booleans and choices alone, which are the same for every tensor of a slice, keyed by argument.

        Without arguments: those of the first slice.
        """
        module = module or self.modules[0]
        method, levels = self.method_of(module), self._levels(module, part or module.slices[0])
        return {p.argument: self._value(method, p, levels, "", 0.0) for p in method.parameters if p.is_static}

    @property
    def rules(self) -> list[Rule]:
        """Every rule of every parameter, wherever it stands."""
        levels: list[Settings] = [self.parameters]
        for module in self.modules:
            levels.append(module.parameters)
            for each in module.slices:
                levels += [each.parameters, *(source.parameters for source in each.sources)]
        return [rule for level in levels for setting in level.values() for rule in setting.rules]

    def unused_filters(self, tensors: Iterable[str], routers: bool = False) -> tuple[str, ...]:
        """Filters that match none of these tensors, some of which may be ``routers``: most likely typos."""
        names = "\n".join(tensors)
        patterns = {rule.pattern: rule for rule in self.rules if rule.pattern is not None}
        return tuple(
            pattern for pattern, rule in patterns.items() if "\n" in pattern or not rule.matches(names, routers)
        )

    def _value(
        self,
        method: Method,
        parameter: Parameter,
        levels: Sequence[Settings],
        tensor: str,
        position: float,
        is_router: bool = False,
    ) -> Value:
        for settings in levels:
            setting = settings.get(parameter.name)
            if setting and (value := setting.at(tensor, position, is_router)) is not None:
                return value
        default = default_value(method, parameter, self.compat)
        if default is None:
            raise failure(
                f"no value of '{parameter.name}' for tensor '{tensor}'",
                self.origin or "recipe",
                "End the list with a `value` that has no filter.",
            )
        return default

    # Recipes of whole models: one slice without ranges, or with one that claims to be all of them.

    @property
    def is_whole(self) -> bool:
        """Whether every model takes part with all its layers, as far as the recipe itself can tell."""
        return self._whole is not None

    @property
    def depth(self) -> int | None:
        """The layer count that the one slice of whole models claims, to be compared with the models'."""
        return self._whole.length if self._whole else None

    @property
    def experts(self) -> tuple[SliceSource, ...]:
        """The models that enter the formula, without the base. RecipeError for slices and modules."""
        return self._whole_or_fail().sources

    @property
    def inputs(self) -> dict[str, tuple[str, ...]]:
        """Directories of further inputs by name, one per expert; what the recipe does not give is left out."""
        experts = self.experts
        given = [name for name in self.method.inputs if all(name in expert.inputs for expert in experts)]
        return {name: tuple(expert.inputs[name] for expert in experts) for name in given}

    def values(self, tensor: str, layers: int, is_router: bool = False) -> dict[str, Any]:
        """``values_at`` for one tensor of a model with ``layers`` layers. RecipeError for slices and modules."""
        whole = self._whole_or_fail()
        if self.depth is not None and layers != self.depth:
            what = f"layer_range ends at {self.depth}, but the models have {layers} layers"
            raise failure(what, self.origin or "recipe", "Give the range that the models have.")
        index = layer_index(tensor)
        last = layers - 1
        position = 0.0 if index is None else min(1.0, index / last) if last > 0 else 1.0
        names = [tensor] * len(whole.sources)
        return self.values_at(
            self.modules[0],
            whole,
            output_name=tensor,
            source_names=names,
            position=position,
            is_router=is_router,
        )

    @cached_property
    def _whole(self) -> Slice | None:
        if len(self.modules) != 1 or self.modules[0].name is not None or len(self.modules[0].slices) != 1:
            return None
        only = self.modules[0].slices[0]
        taken = {source.layer_range for source in only.sources} | ({only.base_range} if only.base else set())
        starts_at_0 = all(bounds is None or bounds[0] == 0 for bounds in taken)
        return only if only.sources and len(taken) == 1 and starts_at_0 else None

    def _whole_or_fail(self) -> Slice:
        if self._whole is None:
            what = "the recipe has slices or modules, so there is no one list of experts"
            raise failure(what, self.origin or "recipe")
        return self._whole

"""Values of a method for each tensor of a plan: worked out once for all tensors that are alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from rlmerge.checkpoint.module_kinds import ROUTER
from rlmerge.checkpoint.source import Source
from rlmerge.recipe import Module, Recipe, Slice

from .towers import position


class Values:
    """Values by recipe, kind and shape of a tensor; ``refuse`` is told a problem and the tensor that shows it.

    Thousands of tensors share one mapping, which nobody may change.
    """

    def __init__(self, recipe: Recipe, depths: Mapping[str, int], refuse: Callable[[str, str], None]) -> None:
        self._recipe, self._depths, self._refuse = recipe, depths, refuse
        self._found: dict[Hashable, dict[str, Any]] = {}
        self._varying: dict[int, tuple[bool, bool]] = {}

    def of(
        self,
        module: Module,
        part: Slice,
        *,
        name: str,
        names: Sequence[str],
        where: float | None,
        sample: Source,
        more: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The values of the output ``name``, made of ``names`` in the sources, of the shape of ``sample``.

        ``where`` is its place on a gradient, None for that of its layer; ``more`` are further values.
        """
        by_name, by_layer = self._varies(module, part)
        if where is None:
            where = position(name, self._depths) if by_layer else 0.0
        key: Hashable = (
            *(id(module), id(part), len(names), sample.shape, where, name if by_name else ""),
            *more.items(),
        )
        values = self._found.get(key)
        if values is None:
            values = self._recipe.values_at(
                module,
                part,
                output_name=name,
                source_names=names,
                position=where,
                is_router=more["kind"] == ROUTER,
            )
            values |= {"experts": float(len(names)), "numel": sample.numel, "shape": sample.shape, **more}
            for problem in self._recipe.method_of(module).check(values):
                self._refuse(problem, name)
            self._found[key] = values
        return values

    def _varies(self, module: Module, part: Slice) -> tuple[bool, bool]:
        """Whether values of a slice depend on names, and whether on layers."""
        if id(part) not in self._varying:
            self._varying[id(part)] = self._recipe.varies(module, part)
        return self._varying[id(part)]

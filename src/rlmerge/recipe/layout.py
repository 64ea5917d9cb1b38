"""Which layers of which models take part: modules of slices of sources, the general form of every recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace

from rlmerge.frozen import frozen
from rlmerge.methods.method import Method
from rlmerge.recipe.reference import ModelRef
from rlmerge.recipe.setting import Setting

Range = tuple[int, int]
"""Layers ``start`` up to, but without, ``stop``."""


@frozen(slots=True)
class SliceSource:
    """One expert of a slice: its layers (None: all), its own parameters, and directories of further inputs by name.

    ``is_implied`` marks a base that an average takes in although it is not listed.
    """

    model: ModelRef
    layer_range: Range | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    line: int | None = field(default=None, compare=False)
    is_implied: bool = field(default=False, compare=False)


@frozen(slots=True)
class Slice:
    """Consecutive output layers: layer i is merged of layer ``start + i`` of each source and of the base.

    ``sources`` are the experts that enter the formula, all of the same number of layers. The base is not among them,
    unless the method ignores bases. Without sources, the slice is a copy of the base. ``base`` is None where the slice
    has none to compare with, though the recipe may name one for configuration and tokenizer.
    """

    sources: tuple[SliceSource, ...]
    base: ModelRef | None = None
    base_range: Range | None = None
    parameters: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    line: int | None = field(default=None, compare=False)

    @property
    def length(self) -> int | None:
        """How many output layers it makes; None: as many as the models have."""
        bounds = self.sources[0].layer_range if self.sources else self.base_range
        return bounds[1] - bounds[0] if bounds else None

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """Base and experts."""
        return (*([self.base] if self.base else []), *(source.model for source in self.sources))


@frozen(slots=True)
class Module:
    """A part of the model with layers of its own (a tower, an encoder); ``name`` is None where it is all of it.

    ``method`` is None where it is the recipe's. Parameters of the recipe's level hold there alone.
    """

    name: str | None
    slices: tuple[Slice, ...]
    parameters: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    line: int | None = field(default=None, compare=False)
    method: Method | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it takes all layers of its models, as the ``models`` form does."""
        return len(self.slices) == 1 and self.slices[0].length is None

    def map_models(self, change: Callable[[ModelRef], ModelRef]) -> Module:
        """The same module of other models."""
        return replace(self, slices=tuple(_mapped(each, change) for each in self.slices))


def _mapped(part: Slice, change: Callable[[ModelRef], ModelRef]) -> Slice:
    sources = tuple(replace(source, model=change(source.model)) for source in part.sources)
    return replace(part, sources=sources, base=change(part.base) if part.base else None)

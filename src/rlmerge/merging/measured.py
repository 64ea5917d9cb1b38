"""Further inputs of a recipe: what was measured on the experts, matched tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rlmerge.checkpoint import Checkpoint, Source
from rlmerge.checkpoint.fingerprint import fingerprint
from rlmerge.checkpoint.sensitivity import Sensitivity, check_values, load_sensitivity
from rlmerge.errors import CheckpointError, RecipeError, RequestError
from rlmerge.frozen import frozen
from rlmerge.methods.measured import MEASURED_ON
from rlmerge.recipe import Recipe


@frozen
class Input:
    """What one directory holds for one expert: ``tensors`` by the names of the expert's tensors they belong to."""

    directory: str
    fingerprint: str
    tensors: Mapping[str, Source]


Inputs = Mapping[str, tuple[Input, ...]]
"""One ``Input`` per expert, by the name that method and recipe call them."""


@frozen
class _Kind:
    """Which part of a measured directory an input is, the option that measures it, and what its values must be."""

    select: Callable[[Sensitivity], Mapping[str, Source]]
    option: str
    check: Callable[[np.ndarray, Source, int], None]


def _check_gram(values: np.ndarray, info: Source, start: int) -> None:
    if not np.isfinite(values).all():
        hint = "Measure the model's Gram matrices again."
        raise CheckpointError("a Gram matrix is not finite", where=info.where, hint=hint)


_KINDS = {
    "sensitivity": _Kind(lambda measured: measured.tensors, "", check_values),
    "gram": _Kind(lambda measured: measured.grams, " --gram", _check_gram),
}


def open_inputs(recipe: Recipe, base: Checkpoint | None, experts: tuple[Checkpoint, ...]) -> Inputs:
    """Open the directories that a recipe names beside its models, from headers alone.

    RecipeError with every directory that cannot be read, was measured on another model, or lacks tensors.
    """
    on_base = base is not None and recipe.static().get(MEASURED_ON.argument) == "base"
    problems: list[RequestError] = []
    opened: dict[str, tuple[Input, ...]] = {}
    for name, directories in recipe.inputs.items():
        found: list[Input] = []
        for directory, expert in zip(directories, experts, strict=True):
            try:
                found.append(_open(name, directory, base if base is not None and on_base else expert))
            except RequestError as error:
                problems.append(error)
        opened[name] = tuple(found)
    if problems:
        raise problems[0] if len(problems) == 1 else RecipeError(problems)
    return opened


def _open(name: str, directory: str, model: Checkpoint) -> Input:
    if name not in _KINDS:
        raise RequestError(f"the method asks for '{name}', which is none of {', '.join(_KINDS)}")
    tensors = _KINDS[name].select(load_sensitivity(directory, model))
    if not tensors:
        hint = f"Run: rlmerge sensitivity{_KINDS[name].option} --model {model.reference} --data … -o …"
        raise CheckpointError(f"holds no {name} of any tensor", where=directory, hint=hint)
    return Input(directory, fingerprint(tensors), tensors)


def require_inputs(recipe: Recipe, inputs: Inputs) -> None:
    """RequestError when the recipe names directories that were not opened, or its method cannot do without one."""
    for name in recipe.method.inputs:
        if name in inputs:
            continue
        where = recipe.origin or "recipe"
        if name in recipe.inputs:
            hint = "Merge model directories with rlmerge.merge or on the command line."
            raise RequestError(f"'{name}' needs models in files, not in memory", where=where, hint=hint)
        if recipe.method.needs_inputs(recipe.static()):
            option = _KINDS[name].option if name in _KINDS else ""
            hint = (
                f"Write `{name}: DIR` beside each model, made by: rlmerge sensitivity{option} --model … --data … -o DIR"
            )
            raise RequestError(f"'{recipe.method.name}' needs the {name} of every model here", where=where, hint=hint)


def inputs_of(tensor: str, inputs: Inputs) -> dict[str, tuple[Source, ...]]:
    """The further inputs of one tensor; an input that some expert has nothing for is left out."""
    return {
        name: tuple(each.tensors[tensor] for each in found)
        for name, found in inputs.items()
        if all(tensor in each.tensors for each in found)
    }


def check_input(name: str, values: np.ndarray, info: Source, start: int) -> None:
    """CheckpointError when ``values``, read from flat index ``start`` of ``info``, cannot be this input's."""
    _KINDS[name].check(values, info, start)

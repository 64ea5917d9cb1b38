"""Opens the models of a recipe, each once, and finds out which of them are one model under several names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from rlmerge.checkpoint import Checkpoint, hub, open_checkpoint
from rlmerge.checkpoint.alike import opened_together
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.fingerprint import same_weights
from rlmerge.checkpoint.model import listed_together
from rlmerge.errors import CheckpointError, RecipeError, RequestError
from rlmerge.frozen import frozen
from rlmerge.methods import Method
from rlmerge.recipe import ModelRef, Module, Recipe, Slice
from rlmerge.recipe.reference import existing

NAMED_BASE = {"adapter_config.json": "adapter", "delta.safetensors": "delta"}
"""Formats that name the model they belong to, by the file they are known by: a plain model imports none of them."""


@frozen
class Models:
    """The models of a recipe: ``recipe`` as it is to be merged, without experts that are the base itself.

    ``experts`` are those of the recipe's one list, or of recipes with slices and modules each model once.
    """

    recipe: Recipe
    base: Checkpoint | None
    experts: tuple[Checkpoint, ...]
    opened: Mapping[str, Checkpoint]

    def of(self, model: ModelRef) -> Checkpoint:
        """The checkpoint of a model that the recipe names."""
        return self.opened[model.identity]


def open_models(recipe: Recipe, stages: Mapping[str, Checkpoint] | None = None) -> Models:
    """Every model a recipe names, from headers alone; ``stages`` are the results of recipes before it, by name.

    An expert that turns out to be the base under another name is no expert, unless the method averages weights.
    RecipeError with all models that cannot be opened.
    """
    opening = _Opening(recipe, stages or {})
    named = [part for model in recipe.models if not model.stage for part in (model, model.adapter) if part is not None]
    with opened_together(), listed_together((part.reference, part.revision) for part in named):
        for model in recipe.models:
            opening.open(model)
    if problems := list(dict.fromkeys(opening.failed.values())):
        raise problems[0] if len(problems) == 1 else RecipeError(problems)
    return models_of(recipe, opening.opened)


def models_of(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> Models:
    """The models of a recipe that are open already, by identity; RequestError where too few experts are none."""
    base = opened[recipe.base.identity] if recipe.base else None
    if any(method.base != "ignored" for method in recipe.methods):
        recipe = _without_bases(recipe, opened)
    if not recipe.compat:
        recipe = _once(recipe, opened)
    if recipe.is_whole:
        experts = tuple(opened[expert.model.identity] for expert in recipe.experts)
        recipe = replace(recipe, warnings=(*recipe.warnings, *_copies(recipe, opened)))
    else:
        named = (source.model for _, part in recipe.slices for source in part.sources)
        experts = tuple(dict.fromkeys(opened[model.identity] for model in named))
    return Models(recipe, base, experts, opened)


class _Opening:
    def __init__(self, recipe: Recipe, stages: Mapping[str, Checkpoint]) -> None:
        self.recipe = recipe
        self.stages = stages
        self.opened: dict[str, Checkpoint] = {}
        self.failed: dict[str, RequestError] = {}
        self.underway: set[str] = set()

    def open(self, model: ModelRef) -> Checkpoint | None:
        if model.identity in self.opened:
            return self.opened[model.identity]
        if model.identity in self.failed:
            return None
        self.underway.add(model.identity)
        try:
            found = self._open(model)
        except RequestError as error:
            self.failed[model.identity] = error
            return None
        finally:
            self.underway.discard(model.identity)
        # Two spellings may lead to one directory; then it is one model.
        twin = next((x for x in self.opened.values() if (x.path, x.format) == (found.path, found.format)), None)
        if twin is not None and model.adapter is None and twin.reference != str(model):
            found = twin if "+" not in twin.reference else found
        self.opened[model.identity] = found
        return found

    def _open(self, model: ModelRef) -> Checkpoint:
        if model.stage:
            below = self.stages[model.reference]
        elif model.adapter is None:
            return open_checkpoint(model.reference, revision=model.revision, base=self._base_for(model))
        else:
            plain = replace(model, adapter=None)
            found = self.open(plain)
            if found is None:
                raise self.failed[plain.identity]
            below = found
        if model.adapter is None:
            return below
        found = open_checkpoint(model.adapter.reference, revision=model.adapter.revision, base=below)
        return replace(found, reference=str(model))

    def _base_for(self, model: ModelRef) -> Checkpoint | None:
        """What a directory of changes belongs to: the recipe's base, else the model that the directory names."""
        base, place = self.recipe.base, existing(model.reference)
        if base is None or base.identity in self.underway:
            place = place or on_hub(model)
            named = None if place is None else named_base(Path(place))
            base = None if named is None else ModelRef.parse(named)
        if base is None or base.identity in self.underway:
            return None
        found = self.open(base)
        if found is None and place is not None and named_base(Path(place)) is not None:
            raise self.failed[base.identity]
        return found


def on_hub(model: ModelRef) -> str | None:
    """The directory of a model's Hub id in the cache, downloaded if need be; None where there is none."""
    found = hub.parse_id(model.reference)
    try:
        return None if found is None else str(hub.fetch(found[0], model.revision or found[1])[0])
    except CheckpointError:  # Opening it says why.
        return None


def named_base(root: Path) -> str | None:
    """The model that a directory of changes says it was made of; None where it says nothing, or is something else."""
    if not root.is_dir():
        return None
    names = entries(root)
    for file, module in NAMED_BASE.items():
        if file not in names:
            continue
        found = import_module(f"rlmerge.checkpoint.formats.{module}").named_base(root, names)
        if found is not None:
            return found
    return None


def _without_bases(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> Recipe:
    """The recipe without sources that are the base of their slice, and a warning for each."""
    warnings: list[str] = []
    modules: list[Module] = []
    for module in recipe.modules:
        method = recipe.method_of(module)
        if method.base == "ignored":
            modules.append(module)
            continue
        slices: list[Slice] = []
        for part in module.slices:
            base = opened[part.base.identity] if part.base else None
            kept = part.sources
            if base is not None:
                same = {s.model.identity: _sameness(base, opened[s.model.identity]) for s in part.sources}
                kept = tuple(s for s in kept if same[s.model.identity] is None or s.layer_range != part.base_range)
                if part.sources and len(kept) < max(1, method.min_experts):
                    # With nothing else to merge, weights that training left alone are reported as such afterwards.
                    kept = tuple(s for s in part.sources if same[s.model.identity] in (None, _EQUAL))
                if part.sources and len(kept) < max(1, method.min_experts):
                    _refuse_count(recipe, method, len(kept), base)
                warnings += [
                    f"{s.model} is the base itself ({same[s.model.identity]}): it has no task vector, so it is left out"
                    for s in part.sources
                    if s not in kept
                ]
            slices.append(replace(part, sources=kept))
        modules.append(replace(module, slices=tuple(slices)))
    if not warnings:
        return recipe
    return replace(recipe, modules=tuple(modules), warnings=(*recipe.warnings, *dict.fromkeys(warnings)))


def _once(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> Recipe:
    """The recipe without a base that an average takes in unlisted where it is listed under another name."""
    warnings: list[str] = []

    def without(_: Module, part: Slice) -> Slice:
        implied = next((source for source in part.sources if source.is_implied), None)
        if implied is None:
            return part
        base = opened[implied.model.identity]
        listed = [source.model for source in part.sources if not source.is_implied]
        twin = next((model for model in listed if _sameness(base, opened[model.identity]) in _ONE_MODEL), None)
        if twin is None:
            return part
        why = "is the base under a second name, so it is averaged once; mergekit, which goes by names, counts both"
        warnings.append(f"{twin} {why}")
        return replace(part, sources=tuple(source for source in part.sources if not source.is_implied))

    found = recipe.map_slices(without)
    return replace(found, warnings=(*recipe.warnings, *dict.fromkeys(warnings))) if warnings else recipe


def _copies(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> list[str]:
    """A warning for each expert that is another one under a second name; one name listed twice is known already."""
    models = list(dict.fromkeys(expert.model for expert in recipe.experts))
    warnings: list[str] = []
    for number, model in enumerate(models):
        for other in models[:number]:
            same = None
            if other.identity != model.identity:
                same = _sameness(opened[other.identity], opened[model.identity])
            if same is not None:
                warnings.append(f"{model} is {other} under a second name ({same}) and counts beside it")
                break
    return warnings


def _refuse_count(recipe: Recipe, method: Method, experts: int, base: Checkpoint) -> None:
    least = max(1, method.min_experts)
    what = f"method '{method.name}' takes at least {least} expert(s) besides the base, not {experts}"
    hint = f"The other models of the recipe are {base.reference} itself; did training save its weights?"
    raise RequestError(what, where=recipe.origin or "recipe", hint=hint)


_EQUAL = "equal weights"
_ONE_MODEL = ("the same directory", "the same commit")


def _sameness(a: Checkpoint, b: Checkpoint) -> str | None:
    """In what way two references lead to one model; None if they do not."""
    if a is b or (
        (a.path, a.format) == (b.path, b.format) and set(a.tensors) == set(b.tensors) and a.format == "safetensors"
    ):
        return _ONE_MODEL[0]
    if a.revision is not None and a.revision == b.revision and a.format == b.format == "safetensors":
        return _ONE_MODEL[1]
    return _EQUAL if same_weights(a.tensors, b.tensors) else None

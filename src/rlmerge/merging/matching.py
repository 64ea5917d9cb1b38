"""Do the models of a recipe fit together? Names, shapes and element types, compared before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlmerge.checkpoint import Checkpoint, Source, open_checkpoint
from rlmerge.errors import RecipeError, RequestError
from rlmerge.kernels.dtypes import MERGEABLE
from rlmerge.options import Options
from rlmerge.recipe import ModelRef, Recipe

_SHOWN = 5
"""Mismatches listed one by one; the rest are counted."""


@dataclass
class Pairs:
    """Matched tensors by output name, and what is worth a warning."""

    matched: dict[str, tuple[Source | None, tuple[Source, ...]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def open_models(recipe: Recipe) -> tuple[Checkpoint | None, tuple[Checkpoint, ...]]:
    """The base, if any, and the experts; a model named twice is opened once. RecipeError with all that cannot be."""
    named: dict[str, ModelRef] = {}
    for model in (*([recipe.base] if recipe.base else []), *(expert.model for expert in recipe.experts)):
        named.setdefault(model.identity, model)
    opened: dict[str, Checkpoint] = {}
    problems: list[RequestError] = []
    for identity, model in named.items():
        try:
            opened[identity] = open_checkpoint(model.reference, revision=model.revision)
        except RequestError as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else RecipeError(problems)
    base = opened[recipe.base.identity] if recipe.base else None
    return base, tuple(opened[expert.model.identity] for expert in recipe.experts)


def pair_tensors(recipe: Recipe, base: Checkpoint | None, experts: Sequence[Checkpoint], options: Options) -> Pairs:
    """Match tensors by name. RecipeError with every missing tensor and every shape or element type that differs."""
    pairs = Pairs()
    models: list[Checkpoint] = [*([base] if base else []), *experts]
    for model in dict.fromkeys(models):
        pairs.warnings += model.warnings
    reference = base or experts[0]
    problems: list[RequestError] = []
    mixed_allowed = bool(options.dtype or recipe.dtype or recipe.compat)
    for name, info in reference.tensors.items():
        if _is_spurious_head(info, reference):
            continue
        absent = [expert for expert in experts if name not in expert.tensors]
        if absent:
            problems.append(_missing(name, absent[0], reference))
            continue
        found = tuple(expert.tensors[name] for expert in experts)
        problem = _mismatch(info, found, reference, experts, mixed_allowed)
        if problem is not None:
            problems.append(problem)
        pairs.matched[name] = (info if base else None, found)
    if problems:
        raise RecipeError(_shortened(problems))
    for expert in dict.fromkeys(experts):
        # The head that a tied expert repeats is not missed; a head of its own is.
        extra = [
            name
            for name in expert.tensors
            if name not in reference.tensors and not (name.endswith("lm_head.weight") and expert.tied_embeddings)
        ]
        if extra:
            pairs.warnings.append(
                f"{expert.reference} holds {len(extra)} tensors that {reference.reference} lacks, "
                f"such as '{extra[0]}'; they are left out"
            )
    return pairs


def _is_spurious_head(info: Source, reference: Checkpoint) -> bool:
    """An output head that a tied model repeats beside its input embedding; loading ignores it, so it is never written.

    Some tied models store the shared matrix under the head's name alone; that one is kept.
    """
    return (
        info.name.endswith("lm_head.weight")
        and reference.tied_embeddings
        and any("emb" in other or "wte" in other for other, x in reference.tensors.items() if x.shape == info.shape)
    )


def _missing(name: str, expert: Checkpoint, reference: Checkpoint) -> RequestError:
    return RequestError(
        f"tensor '{name}' is missing; {reference.reference} has it",
        where=expert.reference,
        hint="Merge models of one architecture; LoRA adapters must be merged into their model first.",
    )


def _mismatch(
    info: Source,
    found: Sequence[Source],
    reference: Checkpoint,
    experts: Sequence[Checkpoint],
    mixed_allowed: bool,
) -> RequestError | None:
    for other, expert in zip(found, experts, strict=True):
        where = f"{expert.reference}: {info.name}"
        if other.shape != info.shape:
            return RequestError(
                f"shape {list(other.shape)} differs from {list(info.shape)} in {reference.reference}",
                where=where,
                hint=_shape_hint(info, other),
            )
        if other.dtype is info.dtype:
            continue
        if info.dtype in MERGEABLE and other.dtype in MERGEABLE:
            if not mixed_allowed:
                return RequestError(
                    f"stored as {other.dtype.name}, but {reference.reference} stores {info.dtype.name}",
                    where=where,
                    hint="If that is intended, set dtype: float32 (or --dtype) and merge them in that precision.",
                )
            continue
        return RequestError(f"stored as {other.dtype.name}, not {info.dtype.name}", where=where, hint=_QUANTISED)
    if info.dtype.is_float or not info.dtype.name.startswith("float8"):
        return None
    return RequestError(
        f"is {info.dtype.name}, which cannot be merged as it is",
        where=f"{reference.reference}: {info.name}",
        hint=_QUANTISED,
    )


_QUANTISED = "Convert quantised models to bfloat16 first; merging quantised weights needs their scales."


def _shape_hint(info: Source, other: Source) -> str:
    if (len(info.shape) == 2 and info.shape[1:] == other.shape[1:] and "embed" in info.name) or "lm_head" in info.name:
        return "The vocabularies differ; resize the expert's embedding to the base's vocabulary first."
    return "These models are not of one architecture and size; they cannot be merged."


def _shortened(problems: list[RequestError]) -> list[RequestError]:
    if len(problems) <= _SHOWN:
        return problems
    return [*problems[:_SHOWN], RequestError(f"and {len(problems) - _SHOWN} more tensors that do not match")]

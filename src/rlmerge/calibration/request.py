"""What is asked for, checked before a weight is read: the recipe, where it goes, and the prompts of each expert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rlmerge.calibration.options import CalibrationOptions
from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RequestError, did_you_mean
from rlmerge.evaluate.tokenizers import vocabulary_difference
from rlmerge.language.data import Dataset, read_data
from rlmerge.recipe import Recipe

Prompts = Mapping[str, str] | Sequence[str]
"""Data by expert, or in the order of the experts."""


def check_recipe(recipe: Recipe, out: Path, force: bool) -> None:
    """RequestError for a recipe whose experts have no coefficients to fit, and for an output that is there."""
    where = recipe.origin or "recipe"
    if out.is_dir():
        raise RequestError("is a directory", where=str(out), hint="Name the recipe to write: -o OUT.yml.")
    if out.exists() and not force:
        raise RequestError("exists", where=str(out), hint="Give another name, or --force to replace it.")
    if not recipe.is_whole:
        hint = "Calibrate a recipe with `models:`."
        raise RequestError("has slices or modules, whose experts differ from part to part", where=where, hint=hint)
    if recipe.tokenizer is not None:
        hint = "Calibrate models of one vocabulary; give them one first with `rlmerge tokens`."
        raise RequestError("changes the vocabulary, which coefficients cannot follow", where=where, hint=hint)
    if recipe.base is None or recipe.method.base == "ignored":
        what = f"method '{recipe.method.name}' has no base" if recipe.base else "has no base_model"
        hint = "Calibration fits how far to go from a base: use task_arithmetic or covariance, with base_model."
        raise RequestError(what, where=where, hint=hint)


def data_of(prompts: Prompts, names: Sequence[str], references: Sequence[str]) -> list[str]:
    """The data of each expert, which ``prompts`` calls by its name in reports or as the recipe does.

    RequestError for an expert without data, and for data of none.
    """
    if not isinstance(prompts, Mapping):
        if len(prompts) != len(names):
            what = f"{len(prompts)} sets of prompts for {len(names)} experts"
            raise RequestError(what, hint=f"Give one for each, such as --prompts {names[0]}=FILE.jsonl.")
        return list(prompts)
    found: dict[int, str] = {}
    for called, data in prompts.items():
        at = [k for k, pair in enumerate(zip(names, references, strict=True)) if called in pair]
        if len(at) != 1:
            what = f"no expert is called '{called}'" if not at else f"'{called}' may be several experts"
            raise RequestError(what, where="--prompts", hint=did_you_mean(called, names))
        if at[0] in found:
            raise RequestError(f"expert '{names[at[0]]}' has prompts twice", where="--prompts", hint="Join the files.")
        found[at[0]] = data
    missing = [name for k, name in enumerate(names) if k not in found]
    if missing:
        hint = f"Add --prompts {missing[0]}=FILE.jsonl; a few dozen unlabelled prompts are enough."
        raise RequestError(f"expert '{missing[0]}' has no prompts", where="--prompts", hint=hint)
    return [found[k] for k in range(len(names))]


def read_prompts(data: str, options: CalibrationOptions) -> Dataset:
    """The examples of ``data`` that are fitted on or held out; errors as for ``read_data``."""
    return read_data(data, options.sequences + options.held_out, options.seed)


def check_vocabularies(base: Checkpoint, experts: Iterable[Checkpoint]) -> None:
    """RequestError when an expert's token ids do not mean what the base's do."""
    for expert in experts:
        if difference := vocabulary_difference(base, expert):
            what = f"its tokenizer is not the base's ({difference}), so their distributions do not compare"
            hint = "Give it the base's with `rlmerge tokens`, or leave it out."
            raise RequestError(what, where=expert.reference, hint=hint)

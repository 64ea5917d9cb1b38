"""Are the models those that a lock file names?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import Recipe

from .plan import Plan
from .seal import file_digests


def check_locked(
    recipe: Recipe, models: Sequence[Checkpoint], further: Mapping[str, Sequence[tuple[str, str]]]
) -> None:
    """RecipeError with every input whose fingerprint is not the lock's; nothing without a lock.

    ``models`` are base (if any) and experts.
    """
    if recipe.locked is None:
        return
    locked = recipe.locked
    found = [(model.reference, model.fingerprint(), due) for model, due in zip(models, locked.models, strict=True)]
    for name, inputs in further.items():
        expected = locked.further.get(name, ("",) * len(inputs))
        found += [(directory, mine, due) for (directory, mine), due in zip(inputs, expected, strict=False)]
    problems = [
        RequestError(
            "holds other values than those that were merged",
            where=name,
            hint=f"{locked.origin} expects fingerprint {due}; this one has {mine}. Restore what was merged then.",
        )
        for name, mine, due in dict.fromkeys(found)
        if mine != due
    ]
    if problems:
        raise RecipeError(problems)


def check_files(plan: Plan) -> None:
    """RecipeError with every file beside the weights that is not the one the lock was made of."""
    locked = plan.recipe.locked
    if locked is None or locked.files is None:
        return
    found = file_digests(plan)
    problems = [
        RequestError(
            "is another file than the one that was merged" if name in found else "is missing, but was there",
            where=name,
            hint=f"{locked.origin} fixes configuration, tokenizer and templates; restore the file.",
        )
        for name, digest in locked.files.items()
        if found.get(name) != digest
    ]
    problems += [
        RequestError("was not there when the lock was written", where=name, hint="Remove the file.")
        for name in found
        if name not in locked.files
    ]
    if problems:
        raise RecipeError(problems)


def check_contents(plan: Plan, contents: Mapping[str, str]) -> None:
    """RecipeError with every model that held other weights than the lock says; nothing is sealed then."""
    locked = plan.recipe.locked
    if locked is None or locked.contents is None:
        return
    problems = [
        RequestError(
            "holds other values than those that were merged",
            where=plan.base.reference if owner == "base" and plan.base else owner,
            hint=f"{locked.origin} was made of contents {digest}, this has {contents.get(owner)}.",
        )
        for owner, digest in locked.contents.items()
        if contents.get(owner) != digest
    ]
    if problems:
        raise RecipeError(problems)

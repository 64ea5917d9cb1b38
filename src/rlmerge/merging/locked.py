"""Are the models those that a lock file names?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe import Recipe


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
            hint=f"{locked.origin} was made of fingerprint {due}, this has {mine}; bring the former back.",
        )
        for name, mine, due in dict.fromkeys(found)
        if mine != due
    ]
    if problems:
        raise RecipeError(problems)

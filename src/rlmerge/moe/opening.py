"""Opens the base and the experts of a mixture, each once."""

from __future__ import annotations

from dataclasses import replace

from rlmerge.checkpoint import Checkpoint, open_checkpoint
from rlmerge.errors import RecipeError, RequestError
from rlmerge.recipe.reference import ModelRef

from .config import MoeConfig


def open_all(config: MoeConfig) -> dict[str, Checkpoint]:
    """Every model by the identity of its reference, from headers alone. RecipeError with all that cannot be opened.

    Adapters and deltas without a model before the ``+`` belong to the mixture's base.
    """
    opened: dict[str, Checkpoint] = {}
    problems: list[RequestError] = []
    for model in (config.base, *(expert.model for expert in (*config.experts, *config.shared))):
        if model.identity in opened:
            continue
        try:
            opened[model.identity] = _open(model, opened, opened.get(config.base.identity))
        except RequestError as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else RecipeError(problems)
    return opened


def _open(model: ModelRef, opened: dict[str, Checkpoint], base: Checkpoint | None) -> Checkpoint:
    if model.adapter is None:
        return open_checkpoint(model.reference, revision=model.revision, base=base)
    plain = replace(model, adapter=None)
    below = opened.get(plain.identity) or _open(plain, opened, base)
    found = open_checkpoint(model.adapter.reference, revision=model.adapter.revision, base=below)
    return replace(found, reference=str(model))

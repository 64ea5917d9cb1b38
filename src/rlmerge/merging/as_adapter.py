"""Merges of adapters written as an adapter: exact, and free of the rounding of full weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmerge.checkpoint.module_kinds import ROUTER, kind_of
from rlmerge.errors import RequestError
from rlmerge.kernels.dtypes import BY_NAME, FLOAT32
from rlmerge.options import Options
from rlmerge.progress import Progress
from rlmerge.recipe import LIKE_BASE, Recipe

from .opening import open_models
from .place import check_place
from .towers import position, tower_depths

if TYPE_CHECKING:
    from rlmerge.adapters import AdapterResult

LINEAR = ("task_arithmetic", "linear")
"""Methods whose result is the base plus a weighted sum of the updates."""


def merge_as_adapter(
    recipe: Recipe, out: Path, options: Options, rank: int | None = None, progress: Progress | None = None
) -> AdapterResult:
    """Write what ``recipe`` makes of adapters of one base as a PEFT adapter of that base.

    ``rank`` brings the joined factors to at most that rank. RequestError for a method that is not linear in the
    updates, for experts that are no adapters, and where ``out`` may not be created.
    """
    # Adapters are read and written by a tenth of all code; merges of weights do without.
    from rlmerge.adapters import write_adapter_merge

    method = recipe.method.name
    if LIKE_BASE in (options.out_dtype, recipe.out_dtype):
        hint = "Leave --out-dtype away, or name a type."
        raise RequestError(f"an adapter is not stored {LIKE_BASE}: its factors are not quantised", hint=hint)
    if method not in LINEAR:
        hint = f"Use {' or '.join(LINEAR)}, or merge to full weights."
        raise RequestError(f"'{method}' is not a weighted sum of updates, so it has no adapter", hint=hint)
    models = open_models(recipe)
    if models.base is None:
        raise RequestError("an adapter needs the base it belongs to", hint="Give the recipe a base_model.")
    if not models.recipe.is_whole:
        raise RequestError("slices and modules cannot be written as an adapter", hint="Merge to full weights.")
    check_place(out, models.opened.values(), options.force)
    base = models.base
    (module,) = models.recipe.modules
    (part,) = module.slices
    depths = tower_depths(base.tensors, base.config)

    def coefficients(tensor: str) -> list[float]:
        names = [tensor] * len(part.sources)
        values: dict[str, Any] = models.recipe.values_at(
            module,
            part,
            output_name=tensor,
            source_names=names,
            position=position(tensor, depths),
            is_router=kind_of(tensor) == ROUTER,
        )
        for problem in models.recipe.method.check({**values, "experts": float(len(names)), "wide": True}):
            raise RequestError(problem, where=tensor)
        weights = np.asarray(values["weight"], np.float64)
        total = float(weights.sum())
        if method == "linear" and not values["normalize"] and abs(total - 1) > 1e-9:
            hint = "Set normalize: true, or weights that add up to 1."
            raise RequestError(f"weights that add up to {total:g} scale the base too", where=tensor, hint=hint)
        if values["normalize"]:
            weights = weights / total
        return [float(values.get("lam", 1.0)) * float(weight) for weight in weights]

    return write_adapter_merge(
        base,
        models.experts,
        coefficients,
        out,
        rank=rank,
        dtype=BY_NAME[options.out_dtype] if options.out_dtype else FLOAT32,
        resume=options.resume,
        force=options.force,
        progress=progress,
    )

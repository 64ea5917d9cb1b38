"""What a search has to beat: task arithmetic with one coefficient for all experts, tuned on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlmerge.methods import get
from rlmerge.recipe import Recipe
from rlmerge.recipe.setting import Setting

COEFFICIENTS = (0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.5)
"""Coefficients of the baseline; what a careful user would try by hand."""


def baseline_recipes(recipe: Recipe) -> dict[str, tuple[float, Recipe]]:
    """Task arithmetic of the models of ``recipe`` at each coefficient, by name."""
    bare = recipe.map_slices(
        lambda module, part: replace(
            part, parameters={}, sources=tuple(replace(source, parameters={}, inputs={}) for source in part.sources)
        )
    )
    bare = replace(bare, modules=tuple(replace(module, parameters={}) for module in bare.modules))
    return {
        f"task arithmetic {coefficient:g}": (
            coefficient,
            replace(
                bare, method=get("task_arithmetic"), parameters={"weight": Setting.constant(coefficient)}, compat=False
            ),
        )
        for coefficient in COEFFICIENTS
    }


def best_row(rows: Any) -> Mapping[str, Any]:
    """The row of the highest first objective, the smaller coefficient where two are equal."""
    return max(rows, key=lambda row: (row["values"][0], -row["coefficient"]))

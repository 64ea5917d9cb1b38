"""What a search has to beat: task arithmetic with one coefficient for all experts, tuned on the same items.

What is found there is where a search begins: the baseline costs its trials nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from rlmerge.methods import get
from rlmerge.recipe import Recipe
from rlmerge.recipe.setting import Setting
from rlmerge.recipe.tree import Scalar

from .space import METHOD, Space

COEFFICIENTS = (0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.5)
"""Coefficients of the baseline; what a careful user would try by hand."""

BEYOND = 1.5
"""Times the largest coefficient is what is tried next, as long as the largest is the best."""

LARGEST = 6.0
"""No coefficient beyond it is tried."""

SPREAD = 0.25
"""Standard deviation of the logarithm of weights around the best coefficient, where a search begins."""


def baseline_name(coefficient: float) -> str:
    """What the baseline at one coefficient is called."""
    return f"task arithmetic {coefficient:g}"


def baseline_recipe(recipe: Recipe, coefficient: float) -> Recipe:
    """Task arithmetic of the models of ``recipe`` at a coefficient."""
    bare = recipe.map_slices(
        lambda module, part: replace(
            part, parameters={}, sources=tuple(replace(source, parameters={}, inputs={}) for source in part.sources)
        )
    )
    bare = replace(bare, modules=tuple(replace(module, parameters={}) for module in bare.modules))
    weight = {"weight": Setting.constant(coefficient)}
    return replace(bare, method=get("task_arithmetic"), parameters=weight, compat=False)


def next_coefficients(rows: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """What to try after ``rows``: all coefficients at first, then beyond the largest while that is the best."""
    if not rows:
        return COEFFICIENTS
    largest = max(row["coefficient"] for row in rows)
    further = largest * BEYOND
    return (further,) if best_row(rows)["coefficient"] == largest and further <= LARGEST else ()


def best_row(rows: Any) -> Mapping[str, Any]:
    """The row of the highest first objective, the smaller coefficient where two are equal."""
    return max(rows, key=lambda row: (row["values"][0], -row["coefficient"]))


def peak(rows: Sequence[Mapping[str, Any]]) -> float:
    """The coefficient at which the first objective is highest on a parabola, over the logarithm of the coefficient,
    through the best row and those beside it; that of the best row where it is the first or the last."""
    ordered = sorted(rows, key=lambda row: row["coefficient"])
    place = ordered.index(best_row(rows))
    if not 0 < place < len(ordered) - 1:
        return float(ordered[place]["coefficient"])
    (a, low), (b, top), (c, high) = (
        (math.log(row["coefficient"]), row["values"][0]) for row in ordered[place - 1 : place + 2]
    )
    bend = (b - a) * (top - high) + (c - b) * (top - low)
    if bend <= 0:
        return float(ordered[place]["coefficient"])
    return math.exp(b - ((b - a) ** 2 * (top - high) - (b - c) ** 2 * (top - low)) / (2 * bend))


def starts(rows: Sequence[Mapping[str, Any]], space: Space, count: int, seed: int) -> list[dict[str, Scalar]]:
    """``count`` values of ``space`` at and around the baseline's best coefficient, each method of the space in turn.

    Each method has one coefficient for all experts first, then weights spread around it. Empty where no weight and no
    ``lambda`` is free: nothing then stands for the coefficient.
    """
    free = [dimension for dimension in space.dimensions if dimension.is_free and not dimension.choices]
    weights = [dimension for dimension in free if dimension.parameter == "weight"]
    scales = [dimension for dimension in free if dimension.parameter == "lambda"]
    if not (weights or scales):
        return []
    best, random = peak(rows), Random(f"starts {seed}")
    methods = list(space.methods) if space.method is not None and space.method.is_free else [None]
    found: list[dict[str, Scalar]] = []
    for number in range(count):
        spread = SPREAD if number >= len(methods) else 0.0
        values: dict[str, Scalar] = {
            dimension.name: dimension.nearest(best * math.exp(random.gauss(0.0, spread)))
            for dimension in (weights or scales)
        }
        if weights:  # The coefficient is in the weights, and need not be in the scale as well.
            values |= {dimension.name: dimension.nearest(1.0) for dimension in scales}
        method = methods[number % len(methods)]
        if method is not None:
            values[METHOD] = method
        found.append(values)
    return found

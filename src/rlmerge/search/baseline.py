"""What a search has to beat: task arithmetic with one coefficient for all experts, tuned on the same items.

What is found there is where a search begins: the baseline costs its trials nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from types import MappingProxyType
from typing import Any

from rlmerge.methods import get
from rlmerge.recipe import Recipe
from rlmerge.recipe.setting import Setting
from rlmerge.recipe.tree import Scalar

from .line import parabola
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
    low, top, high = ((math.log(row["coefficient"]), row["values"][0]) for row in ordered[place - 1 : place + 2])
    return math.exp(parabola(low, top, high))


def starts(
    rows: Sequence[Mapping[str, Any]],
    space: Space,
    count: int,
    seed: int,
    factors: Mapping[str, float] = MappingProxyType({}),
) -> list[dict[str, Scalar]]:
    """``count`` values of ``space`` at and around the baseline's best coefficient, each method of the space in turn.

    Each method has one coefficient for all experts first, with all else in the middle of its range; then weights spread
    around that, and the sampler chooses the rest. A method has ``factors`` times the coefficient, 1 where there is
    none. Methods without a free weight or ``lambda`` are left out: nothing stands for the coefficient.
    """
    methods = [method for method in space.methods if space.scales(method)]
    if not methods:
        return []
    best, random = peak(rows), Random(f"starts {seed}")
    found: list[dict[str, Scalar]] = []
    for number in range(count):
        is_first, method = number < len(methods), methods[number % len(methods)]
        scales, weights = space.scales(method), space.numbers("weight", method)
        values: dict[str, Scalar] = {METHOD: method} if space.method is not None and space.method.is_free else {}
        for dimension in dict.fromkeys((*weights, *scales)):
            centre = best * factors.get(method, 1.0) if dimension in scales else 1.0
            spread = SPREAD if dimension in weights and not is_first else 0.0
            values[dimension.name] = dimension.nearest(centre * math.exp(random.gauss(0.0, spread)))
        for dimension in space.dimensions if is_first else ():
            if dimension.name not in values and dimension.is_free and space.belongs(dimension, method):
                values[dimension.name] = dimension.middle
        found.append(values)
    return found

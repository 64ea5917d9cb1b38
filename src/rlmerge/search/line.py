"""Steps along a line: from the best trial a search goes on to larger and smaller coefficients, weights in proportion.

The scale of the merged change decides more than anything else in a recipe, and a sampler that knows nothing of it finds
it slowly. So a part of the trials looks for the best scale of the best trial: a step up, a step down, and the peak
between them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import TypeGuard

from rlmerge.recipe.tree import Scalar

from .results import Trial
from .space import METHOD, Dimension, Space

STEP = 1.3
"""Times a coefficient is the next one that is tried."""

SPREAD = 0.15
"""Standard deviation of what is moved around the best: of logarithms of weights, and as a share of other ranges."""

LEAST = math.log(1.03)
"""Distance of logarithms below which two coefficients are one."""


def steps(trials: Sequence[Trial], space: Space) -> list[dict[str, Scalar]]:
    """What to try next on the line of the best complete trial of the first objective; at most two values.

    Empty where neither weights nor ``lambda`` are free, no trial is complete, or the peak is known.
    """
    best = _best(trials)
    if best is None:
        return []
    names = [dimension.name for dimension in _scales(space, best.parameters)]
    if not names or any(not _scalable(best.parameters.get(name)) for name in names):
        return []
    known = {0.0: best.values[0]}
    for trial in trials:
        distance = _distance(best.parameters, trial.parameters, names)
        if distance is not None and trial is not best and trial.state != "fail":
            known[distance] = trial.values[0] if trial.state == "complete" else -math.inf
    tried = [dict(trial.parameters) for trial in trials]
    found: list[dict[str, Scalar]] = []
    for distance in _next(known):
        if all(abs(distance - other) >= LEAST for other in known):
            values = _moved(best.parameters, math.exp(distance), space)
            if values not in [*tried, *found]:
                found.append(values)
    return found


def around(trials: Sequence[Trial], space: Space, seed: int, number: int = 0) -> dict[str, Scalar] | None:
    """Values beside those of the best complete trial, others for each ``number``; None where no trial is complete."""
    best = _best(trials)
    if best is None:
        return None
    random = Random(f"around {seed} {len(trials)} {number}")
    values = dict(best.parameters)
    for dimension in space.dimensions:
        value = values.get(dimension.name)
        if not dimension.is_free or dimension.choices or not isinstance(value, int | float):
            continue
        if dimension.parameter in ("weight", "lambda"):
            moved = value * math.exp(random.gauss(0.0, SPREAD))
        elif dimension.log:
            moved = value * math.exp(random.gauss(0.0, SPREAD * math.log(dimension.high / dimension.low)))
        else:
            moved = value + random.gauss(0.0, SPREAD) * (dimension.high - dimension.low)
        values[dimension.name] = dimension.nearest(moved)
    return values


def _best(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial of the highest first objective, the first one where several are equal."""
    done = [trial for trial in trials if trial.state == "complete" and trial.values]
    return max(done, key=lambda trial: (trial.values[0], -trial.number), default=None)


def _next(known: Mapping[float, float]) -> list[float]:
    """Distances from the best, at 0, that tell most."""
    step = math.log(STEP)
    above = min((distance for distance in known if distance > 0), default=None)
    below = max((distance for distance in known if distance < 0), default=None)
    if above is None and below is None:
        return [step, -step]
    if above is None:
        return [step, 2 * step]
    if below is None:
        return [-step, -2 * step]
    if math.isinf(known[above]) or math.isinf(known[below]):
        return [above / 2, below / 2]
    return [parabola((below, known[below]), (0.0, known[0.0]), (above, known[above]))]


def parabola(low: tuple[float, float], top: tuple[float, float], high: tuple[float, float]) -> float:
    """Where the parabola through three points (x, y), x ascending, is highest; the middle x where it has no peak."""
    (a, left), (b, middle), (c, right) = low, top, high
    bend = (b - a) * (middle - right) + (c - b) * (middle - left)
    if bend <= 0:
        return b
    return b - ((b - a) ** 2 * (middle - right) - (b - c) ** 2 * (middle - left)) / (2 * bend)


def _distance(best: Mapping[str, Scalar], other: Mapping[str, Scalar], names: Sequence[str]) -> float | None:
    """The logarithm of the factor between all ``names`` of two trials; None where they are not on one line."""
    if best.keys() != other.keys() or any(best[name] != other[name] for name in best if name not in names):
        return None
    factors = [_ratio(other[name], best[name]) for name in names]
    first = factors[0]
    if first is None or any(factor is None or abs(factor - first) > 1e-6 * first for factor in factors):
        return None
    return math.log(first)


def _ratio(value: Scalar, to: Scalar) -> float | None:
    if not _scalable(value) or not _scalable(to):
        return None
    factor = float(value) / float(to)
    return factor if factor > 0 else None


def _moved(values: Mapping[str, Scalar], factor: float, space: Space) -> dict[str, Scalar]:
    moved = dict(values)
    for dimension in _scales(space, values):
        value = values[dimension.name]
        if _scalable(value):
            moved[dimension.name] = dimension.nearest(float(value) * factor)
    return moved


def _scales(space: Space, values: Mapping[str, Scalar]) -> tuple[Dimension, ...]:
    method = values.get(METHOD)
    return space.scales(None if method is None else str(method))


def _scalable(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value != 0

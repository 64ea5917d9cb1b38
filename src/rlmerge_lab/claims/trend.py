"""Whether a figure grows or falls with the size of the models: its slope over several studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rlmerge import student

from .figure import LEVEL, MIN_SEEDS, Figure, mean

TREND_RULE = (
    "A trend is the least-squares slope of a figure's values, one a seed, over log10 of the number of weights, among "
    f"studies of one vocabulary; its interval is Student's t at {100 * LEVEL:g} % with two degrees of freedom less "
    "than values. The figure grows when the interval lies above 0, falls when it lies below 0, and otherwise no trend "
    f"is seen. Fewer than two sizes, or a size with fewer than {MIN_SEEDS} seeds, decide nothing. Such "
    "studies are judged by the methods that all of them merged with."
)


class Direction(StrEnum):
    GROWS = "grows"
    FALLS = "falls"
    NONE = "no trend seen"
    UNDECIDED = "undecided here"


@dataclass(frozen=True, slots=True)
class Trend:
    """A figure's slope per decade of weights over ``sizes`` sizes; ``bounds`` is its interval where there is one."""

    slope: float | None = None
    bounds: tuple[float, float] | None = None
    sizes: int = 0
    values: int = 0

    @property
    def direction(self) -> Direction:
        if self.bounds is None:
            return Direction.UNDECIDED
        low, high = self.bounds
        return Direction.GROWS if low > 0 else Direction.FALLS if high < 0 else Direction.NONE

    def to_dict(self) -> dict[str, Any]:
        low, high = self.bounds or (None, None)
        found = {"slope": self.slope, "low": low, "high": high, "sizes": self.sizes, "values": self.values}
        return {**found, "direction": str(self.direction)}


def trend(figures: Sequence[tuple[int, Figure]]) -> Trend:
    """The trend of one figure, given for each study with the number of its models' weights."""
    known = [(weights, figure.differences) for weights, figure in figures if figure.differences]
    points = [(math.log10(weights), value) for weights, values in known for value in values]
    sizes = len({weights for weights, _ in known})
    if sizes < 2 or any(len(values) < MIN_SEEDS for _, values in known):
        return Trend(sizes=sizes, values=len(points))
    slope, bounds = slope_of(points)
    return Trend(slope, bounds, sizes, len(points))


def slope_of(points: Sequence[tuple[float, float]], level: float = LEVEL) -> tuple[float, tuple[float, float]]:
    """Least-squares slope of at least three points (x, y) with two or more x, and Student's t interval of it.

    The standard error is √(Σ residual² / (n − 2) / Σ (x − x̄)²), with n − 2 degrees of freedom.
    """
    xs, ys = ([point[k] for point in points] for k in (0, 1))
    centre, height = mean(xs), mean(ys)
    spread = math.fsum((x - centre) ** 2 for x in xs)
    slope = math.fsum((x - centre) * (y - height) for x, y in points) / spread
    rest = math.fsum((y - height - slope * (x - centre)) ** 2 for x, y in points)
    free = len(points) - 2
    half = student.quantile((1 + level) / 2, free) * math.sqrt(rest / free / spread)
    return slope, (slope - half, slope + half)

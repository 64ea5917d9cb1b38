"""A difference within seeds, its interval over seeds, and the rule by which it speaks for or against a claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from rlmerge import student

from .cells import Cells, seed_means

MIN_SEEDS = 3
"""Seeds below which no verdict is given: with two, the spread rests on a single difference."""

LEVEL = 0.95


class Outcome(StrEnum):
    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    UNDECIDED = "undecided here"


class Side(StrEnum):
    """Where a claim says that a figure lies."""

    ABOVE = "above 0"
    BELOW = "below 0"
    NEAR = "near 0"
    NOT_ABOVE = "not above 0"


@dataclass(frozen=True, slots=True)
class Margin:
    """What counts as no difference, and the unit of figure and margin: ``share`` (printed in %) or ``number``."""

    value: float
    unit: str = "number"


@dataclass(frozen=True, slots=True)
class Figure:
    """A difference of two means ``a`` and ``b``; ``b`` is None for a figure that is compared with 0.

    ``differences`` are the paired differences, one a seed; ``bounds`` their Student t interval and ``p`` its two-sided
    p, both None below ``MIN_SEEDS``. In a study, ``p_holm`` is adjusted over all deciding figures, and ``wide`` is the
    interval that holds together with all others (Bonferroni). ``empty`` says why there is no interval.
    """

    name: str
    side: Side
    margin: Margin
    a: float | None = None
    b: float | None = None
    differences: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None
    p: float | None = None
    empty: str = ""
    p_holm: float | None = None
    wide: tuple[float, float] | None = None

    @property
    def outcome(self) -> Outcome:
        """What this figure says by itself."""
        return Outcome.UNDECIDED if self.bounds is None else _judge(*self.bounds, self.side, self.margin.value)

    @property
    def adjusted(self) -> Outcome:
        """The same among all deciding figures: a difference must hold after Holm, a margin for the wide interval."""
        found = self.outcome
        if self.bounds is None or self.wide is None or self.p_holm is None:
            return Outcome.UNDECIDED
        if self.side in (Side.NEAR, Side.NOT_ABOVE) or self.within_margin:
            return found if _judge(*self.wide, self.side, self.margin.value) is found else Outcome.UNDECIDED
        return found if self.p_holm < 1 - LEVEL else Outcome.UNDECIDED

    @property
    def holds_zero(self) -> bool:
        """Whether there is an interval and 0 lies in it."""
        return self.bounds is not None and self.bounds[0] <= 0 <= self.bounds[1]

    @property
    def within_margin(self) -> bool:
        """Whether there is an interval and all of it lies within the margin of 0."""
        return self.bounds is not None and _within(*self.bounds, self.margin.value)

    def flipped(self) -> Figure:
        """The same figure for the opposite claim."""
        return replace(self, side={Side.ABOVE: Side.BELOW, Side.BELOW: Side.ABOVE}.get(self.side, self.side))

    def to_dict(self) -> dict[str, Any]:
        low, high = self.bounds or (None, None)
        return {
            "name": self.name,
            "claimed": str(self.side),
            "margin": self.margin.value,
            "unit": self.margin.unit,
            "a": self.a,
            "b": self.b,
            "value": mean(self.differences) if self.differences else None,
            "low": low,
            "high": high,
            "n": len(self.differences),
            "p": self.p,
            "p_holm": self.p_holm,
            "outcome": str(self.outcome),
            "empty": self.empty,
        }


def difference(name: str, a: Cells, b: Cells, side: Side, margin: Margin) -> Figure:
    """``a`` minus ``b`` over the cells that both have, averaged within each seed."""
    common = sorted(a.keys() & b.keys())
    if not common:
        return Figure(name, side, margin, empty="the study holds nothing to compare here")
    if all(a[key] == 0 == b[key] for key in common):
        return Figure(name, side, margin, empty="both sides are 0 in every seed, so there is nothing to compare")
    first, second = (seed_means({key: cells[key] for key in common}) for cells in (a, b))
    return from_seeds(name, first, second, side, margin)


def level(name: str, cells: Cells, side: Side, margin: Margin) -> Figure:
    """A figure compared with 0, averaged within each seed."""
    means = seed_means(cells)
    return replace(from_seeds(name, means, dict.fromkeys(means, 0.0), side, margin), b=None)


def from_seeds(name: str, a: Mapping[int, float], b: Mapping[int, float], side: Side, margin: Margin) -> Figure:
    """``a`` minus ``b`` by seed."""
    seeds = sorted(a.keys() & b.keys())
    n = len(seeds)
    if not n:
        return Figure(name, side, margin, empty="the study holds nothing to compare here")
    gaps = tuple(a[seed] - b[seed] for seed in seeds)
    found = Figure(name, side, margin, mean([a[seed] for seed in seeds]), mean([b[seed] for seed in seeds]), gaps)
    if n < MIN_SEEDS:
        return replace(found, empty=f"{n} seed{'s' if n > 1 else ''}, and a verdict needs {MIN_SEEDS}")
    return replace(found, bounds=bounds(gaps), p=p_value(gaps))


Interval = dict[str, Any]
"""``{"value", "low", "high", "n"}``: a mean over seeds."""


def over_seeds(cells: Cells) -> Interval | None:
    """Mean over seeds, with Student's t interval from ``MIN_SEEDS`` seeds on."""
    values = list(seed_means(cells).values())
    if not values:
        return None
    low, high = bounds(values) if len(values) >= MIN_SEEDS else (None, None)
    return {"value": mean(values), "low": low, "high": high, "n": len(values)}


def bounds(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Student's t interval of the mean of at least two values: mean ± t · s / √n with n - 1 degrees of freedom.

    The seeds are the sample: what it covers is another seed's base, experts and merges, not other items.
    """
    center, error = mean(values), _standard_error(values)
    half = student.quantile((1 + level) / 2, len(values) - 1) * error
    return center - half, center + half


def p_value(values: Sequence[float]) -> float:
    """Two-sided p of Student's t test that the mean of ``values`` is 0; 0 of equal values other than 0, 1 of zeros."""
    center, error = mean(values), _standard_error(values)
    if error == 0:
        return 0.0 if center else 1.0
    return student.p_value(center / error, len(values) - 1)


def _standard_error(values: Sequence[float]) -> float:
    n, center = len(values), mean(values)
    return math.sqrt(math.fsum((value - center) ** 2 for value in values) / (n - 1) / n)


def mean(values: Sequence[float]) -> float:
    """The plain mean."""
    return math.fsum(values) / len(values)


def _judge(low: float, high: float, side: Side, margin: float) -> Outcome:
    if side is Side.NEAR:
        if _within(low, high, margin):
            return Outcome.SUPPORTED
        return Outcome.NOT_SUPPORTED if low > margin or high < -margin else Outcome.UNDECIDED
    if side is Side.NOT_ABOVE:
        if high < margin:
            return Outcome.SUPPORTED
        return Outcome.NOT_SUPPORTED if low > 0 else Outcome.UNDECIDED
    if side is Side.BELOW:
        low, high = -high, -low
    if high < 0 or _within(low, high, margin):
        return Outcome.NOT_SUPPORTED
    return Outcome.SUPPORTED if low > 0 else Outcome.UNDECIDED


def _within(low: float, high: float, margin: float) -> bool:
    return -margin < low and high < margin

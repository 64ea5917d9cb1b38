"""A straight line through a few points, with the confidence interval of its slope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Trend:
    """Least-squares slope of a figure per layer, ``low`` … ``high`` being its 95 % confidence interval, over n layers.

    The interval assumes independent, equally noisy layers. It is NaN with fewer than three layers.
    """

    slope: float
    low: float
    high: float
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def trend(positions: Sequence[float], values: Sequence[float]) -> Trend:
    """Ordinary least squares of ``values`` [n] on ``positions`` [n]; pairs with NaN are left out."""
    x, y = np.asarray(positions, np.float64), np.asarray(values, np.float64)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    spread = float(((x - x.mean()) ** 2).sum()) if len(x) else 0.0
    if spread == 0.0:
        return Trend(math.nan, math.nan, math.nan, len(x))
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    freedom = len(x) - 2
    if freedom < 1:
        return Trend(slope, math.nan, math.nan, len(x))
    residual = y - y.mean() - slope * (x - x.mean())
    half = student_quantile(0.975, freedom) * math.sqrt(float(residual @ residual) / freedom / spread)
    return Trend(slope, slope - half, slope + half, len(x))


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile above 0.5 of Student's t distribution with integer ``freedom`` >= 1, by bisection of its exact CDF."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _student_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_cdf(t: float, freedom: int) -> float:
    """The finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(theta)
    if freedom % 2:
        term, total = cosine, cosine if freedom > 1 else 0.0
        for k in range(3, freedom - 1, 2):
            term *= cosine**2 * (k - 1) / k
            total += term
        return 0.5 + (theta + math.sin(theta) * total) / math.pi
    term = total = 1.0
    for k in range(2, freedom, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 0.5 + math.sin(theta) * total / 2

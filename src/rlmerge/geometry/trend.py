"""A straight line through a few points, with the confidence interval of its slope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlmerge.frozen import frozen
from rlmerge.student import quantile


@frozen(slots=True)
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
    half = quantile(0.975, freedom) * math.sqrt(float(residual @ residual) / freedom / spread)
    return Trend(slope, slope - half, slope + half, len(x))

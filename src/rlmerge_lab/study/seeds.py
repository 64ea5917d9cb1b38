"""What several seeds say together: means of per-seed values with Student t intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SeedInterval:
    """The mean of ``n`` per-seed values with its confidence interval; no interval (None) of fewer than two seeds."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies wholly above or below 0, else 0: undecided."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (n = {self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def interval(values: Sequence[float], level: float = 0.95) -> SeedInterval:
    """Mean ± t · s / √n of per-seed ``values``, with n - 1 degrees of freedom; NaN of no values.

    The seeds are the sample: what the interval covers is another seed's base, experts and merges, not other items.
    """
    n = len(values)
    if not n:
        return SeedInterval(math.nan, None, None, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return SeedInterval(mean, None, None, 1)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile((1 + level) / 2, n - 1) * spread / math.sqrt(n)
    return SeedInterval(mean, mean - half, mean + half, n)


def paired(first: Mapping[int, float], second: Mapping[int, float], level: float = 0.95) -> SeedInterval:
    """The interval of ``first`` minus ``second`` over the seeds that both have, seed by seed."""
    shared = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in shared], level)


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t with a whole number of degrees of freedom, to the last few bits.

    ``probability`` lies within (0, 1); ValueError otherwise, and for ``freedom`` below 1.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile {probability} of t with {freedom} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    # In the angle atan(t / √ν) the distribution is smooth on a bounded range, so bisection ends at full precision.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + _central(middle, freedom)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _central(angle: float, freedom: int) -> float:
    """P(|T| < √ν tan(angle)): the finite series of Abramowitz and Stegun 26.7.3 (odd ν) and 26.7.4 (even ν)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    # ν = 1 has no terms; else cos θ (odd) or 1 (even), each next one times (k - 1)/k · cos² θ.
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total

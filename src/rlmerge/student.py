"""Student's t distribution with whole degrees of freedom (Abramowitz & Stegun, 26.7.3 and 26.7.4)."""

from __future__ import annotations

import math


def central_probability(t: float, freedom: int) -> float:
    """P(|T| < ``t``) for ``t`` ≥ 0; ValueError for ``freedom`` below 1."""
    if freedom < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, not {freedom}")
    return _within(math.atan(t / math.sqrt(freedom)), freedom)


def p_value(t: float, freedom: int) -> float:
    """Two-sided p of a statistic that came out as ``t``, exact to about 1e-16."""
    return max(0.0, 1.0 - central_probability(abs(t), freedom))


def quantile(probability: float, freedom: int) -> float:
    """The ``t`` that T stays below with ``probability``, to the last few bits.

    ValueError unless ``probability`` lies within (0, 1) and ``freedom`` is at least 1.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile {probability} of Student's t with {freedom} degrees of freedom")
    if probability < 0.5:
        return -quantile(1 - probability, freedom)
    # In the angle atan(t / √ν) the distribution is smooth on a bounded range, so bisection ends at full precision.
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + _within(middle, freedom)) / 2 < probability else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < √ν tan ``angle``)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    # ν = 1 has no terms; else cos θ (odd) or 1 (even), each next one times (k − 1)/k · cos² θ.
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total

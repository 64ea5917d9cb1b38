"""Averages of weights and sums of task vectors.

Model soups: Wortsman et al., 2022, arXiv 2203.05482. Task arithmetic: Ilharco et al., 2022, arXiv 2212.04089, §2.
"""

from __future__ import annotations

from typing import Any

from .method import Method
from .parts import LAMBDA, WEIGHT, normalize, weighted_sum, weights_do_not_cancel


def linear_formula(xp: Any, base: Any, theta: Any, *, weight: Any, normalize: bool) -> Any:
    """θ* = Σ w_k θ_k / Σ w_k over the experts' weights; without ``normalize`` the plain weighted sum."""
    return weighted_sum(xp, theta, weight, normalize)


def task_arithmetic_formula(xp: Any, base: Any, tau: Any, *, weight: Any, lam: Any, normalize: bool) -> Any:
    """θ* = θ₀ + λ Σ w_k τ_k; ``normalize`` divides the sum by Σ w_k."""
    return base + lam * weighted_sum(xp, tau, weight, normalize)


LINEAR = Method(
    name="linear",
    formula=linear_formula,
    summary="Weighted average of the experts' weights (model soup).",
    paper="Model soups, arXiv 2203.05482",
    status="exact",
    parameters=(WEIGHT, normalize(True)),
    space="weights",
    base="ignored",
    keeps_base=lambda values: bool(values["normalize"]),
    check=weights_do_not_cancel,
    notes=("A base_model is the reference for survival and lineage; it is averaged only when listed in models.",),
)

TASK_ARITHMETIC = Method(
    name="task_arithmetic",
    formula=task_arithmetic_formula,
    summary="Base plus the scaled, weighted sum of task vectors.",
    paper="Task arithmetic, arXiv 2212.04089",
    status="exact",
    parameters=(WEIGHT, LAMBDA, normalize(False)),
    check=weights_do_not_cancel,
)

METHODS = (LINEAR, TASK_ARITHMETIC)

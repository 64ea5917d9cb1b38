"""TIES-Merging: Yadav et al., 2023, arXiv 2306.01708, §4: trim, elect sign, disjoint mean."""

from __future__ import annotations

from typing import Any

from .method import Method, Parameter, Stages, Statistic
from .parts import LAMBDA, RESTORE, WEIGHT, density, elected_sum, l1_scale, normalize, norms, scaled, threshold, trim


def ties_formula(
    xp: Any, base: Any, tau: Any, *, threshold: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """θ* = θ₀ + λ · disjoint mean of the trimmed task vectors over the experts that agree with the elected sign."""
    return base + lam * elected_sum(xp, scaled(trim(xp, tau, threshold), scale), weight, normalize)


def _norms(xp: Any, base: Any, tau: Any, *, threshold: Any) -> Any:
    return norms(xp, tau, trim(xp, tau, threshold))


def _statistics(experts: int, *, scope: str, rescale: str, **_: Any) -> Stages:
    trimming = (threshold("model" if scope == "global" else "tensor"),)
    return (trimming, (Statistic("norms", _norms, "sum"),)) if rescale == "l1" else (trimming,)


TIES = Method(
    name="ties",
    formula=ties_formula,
    summary="Trim small changes, elect a sign per coordinate, average the changes that agree.",
    paper="TIES-Merging, arXiv 2306.01708",
    status="exact",
    looks_at="signs",
    parameters=(
        WEIGHT,
        density("Share of each task vector's entries kept, largest magnitudes first."),
        LAMBDA,
        normalize(True),
        Parameter(
            "scope",
            "tensor",
            "Trim within each tensor, or over the whole task vector as in the paper.",
            choices=("tensor", "global"),
        ),
        RESTORE,
    ),
    statistics=_statistics,
    derive=l1_scale,
    notes=(
        "Equal magnitudes at the threshold are all kept, so more than the density may stay; zeros never count as kept.",
        "A weighted sum of exactly 0 elects +.",
    ),
)

METHODS = (TIES,)

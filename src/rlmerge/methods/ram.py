"""Reinforced Agent Merging: arXiv 2601.13572 and two further algorithms of that name, as presets of one formula.

A coordinate that one expert changed keeps that expert's change, scaled by λ_k; one that several changed gets a mean.
The presets differ in when a change counts as active, over whom the mean goes, and what λ_k is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from .method import Method, Parameter, Stages, Statistic
from .parts import magnitude


def is_active(xp: Any, tau: Any, active: str, epsilon: Any, threshold: Any) -> Any:
    """Mask [K, n] of the changes that count: the four active tests."""
    if active == "bits":
        return tau != 0
    size = xp.abs(tau)
    if active == "epsilon":
        return size > epsilon
    if active == "percentile":
        return size >= threshold
    return size > xp.maximum(threshold, epsilon)


def ram_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    active: str,
    shared: str,
    epsilon: Any,
    scale: Any,
    experts: float,
    threshold: Any = None,
) -> Any:
    """θ* = θ₀ + λ_k τ_k where one expert is active, θ₀ + mean τ where several are, θ₀ elsewhere."""
    mask = is_active(xp, tau, active, epsilon, threshold)
    times = xp.count(mask)
    own = xp.sum(xp.where(mask, scale * tau, 0.0))
    if shared == "active":
        mean = xp.sum(xp.where(mask, tau, 0.0)) / xp.where(times == 0, 1.0, times)
    else:
        mean = xp.sum(tau) / experts
    return xp.where(times == 0, base, base + xp.where(times >= 2, mean, own))


def _overlap(xp: Any, base: Any, tau: Any, *, active: str, epsilon: Any, threshold: Any = None) -> Any:
    mask = is_active(xp, tau, active, epsilon, threshold)
    several = xp.count(mask) >= 2
    return [*(mask & several), *(mask & ~several)]


def _active(xp: Any, base: Any, tau: Any, *, active: str, epsilon: Any, threshold: Any = None) -> Any:
    return is_active(xp, tau, active, epsilon, threshold)


def _percentile_rank(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    """Rank from the top of the order statistic that stands for the linearly interpolated percentile.

    Where the percentile falls between two order statistics, "at least" it means at least the upper one, and "above" it
    (strict) above the lower one. The position is exact: 99.9 is not a binary fraction.
    """
    position = Fraction(str(float(values["percentile"]))) * (numel - 1) / 100
    below = math.floor(position) if values["active"] == "strict" else math.ceil(position)
    return np.full(nonzero.shape, numel - below, np.int64)


def _no_rescaling(values: Mapping[str, Any]) -> np.ndarray | None:
    return np.zeros(0) if float(values["r"]) == 0 else None


def _statistics(experts: int, *, active: str, scope: str, **_: Any) -> Stages:
    overlap = Statistic(
        "overlap", _overlap, "count", "model" if scope == "global" else "tensor", skip=_no_rescaling, uses=("r",)
    )
    if active in ("epsilon", "bits"):
        return ((overlap,),)
    threshold = Statistic("threshold", magnitude, "kth", rank=_percentile_rank, uses=("percentile", "active"))
    return ((threshold,), (overlap, Statistic("active_count", _active, "count")))


def overlap_ratio(shared: np.ndarray, unique: np.ndarray) -> np.ndarray:
    """ρ_k = shared_k / unique_k; without unique coordinates 1 if any is shared, else 0."""
    return np.where(unique > 0, shared / np.maximum(unique, 1), np.where(shared > 0, 1.0, 0.0))


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    experts = int(values["experts"])
    ratio = np.zeros(experts)
    if len(values["overlap"]):
        ratio = overlap_ratio(*np.split(np.asarray(values["overlap"], np.float64), 2))
    scale = float(values["lam"]) * (1 + float(values["r"]) * np.clip(ratio, 0.0, float(values["alpha"])))
    return {"scale": scale}


def _degenerate(values: Mapping[str, Any]) -> list[str]:
    if "active_count" not in values:
        return []
    counts = np.asarray(values["active_count"])
    if np.any(counts == values["numel"]):
        return ["the active mask of an expert is all true, so RAM is a simple average here; try active: strict"]
    if np.any(counts == 0):
        return ["the active mask of an expert is empty"]
    return []


RAM = Method(
    name="ram",
    formula=ram_formula,
    summary="Keep a change only one expert made, average those that several made.",
    paper="RAM, arXiv 2601.13572 (authors' code); the same numbers as mergekit's ram",
    status="exact",
    parameters=(
        Parameter("epsilon", 1e-5, "A change counts when its magnitude exceeds this.", low=0.0),
        Parameter(
            "active",
            "epsilon",
            "When a change counts: above epsilon; bits differ; at least the tensor's percentile; strictly above both.",
            choices=("epsilon", "bits", "percentile", "strict"),
        ),
        Parameter(
            "percentile", 90.0, "Percentile of |τ| in the tensor, for percentile and strict.", low=0.0, high=100.0
        ),
        Parameter("shared", "active", "Mean over the active experts, or over all experts.", choices=("active", "all")),
        Parameter("lambda", 1.0, "Factor on changes that one expert made.", argument="lam"),
        Parameter("r", 0.0, "Strength of the overlap-aware rescaling 1 + r·min(alpha, rho).", low=0.0),
        Parameter("alpha", 1.0, "Upper limit of rho in the rescaling.", low=0.0),
        Parameter("scope", "global", "Count overlap over the whole model or per tensor.", choices=("global", "tensor")),
    ),
    statistics=_statistics,
    derive=_derive,
    warn=_degenerate,
    notes=(
        "An absolute epsilon of 1e-5 ignores real one-step changes of small bf16 weights; active: bits counts them.",
        "rho_k = shared_k / unique_k, counted over coordinates where expert k is active.",
        "The authors' README runs RAM+ with a factor of at most 1.2, which is r: 0.2 here and the default of ram_plus; "
        "their command line alone takes 1.05, which is r: 0.05.",
    ),
)

RAM_PLUS = RAM.preset(
    "ram_plus",
    defaults={"r": 0.2},
    summary="RAM with changes of one expert amplified by the model-wide overlap ratio.",
    paper="RAM+, arXiv 2601.13572 (authors' code)",
)

RAMPLUS_TL = RAM.preset(
    "ramplus_tl",
    defaults={"r": 0.1, "alpha": 0.2, "scope": "tensor"},
    summary="RAM+ with the overlap ratio counted per tensor, as in mergekit.",
    paper="mergekit's ramplus_tl",
)

RAM_PERCENTILE = RAM.preset(
    "ram_percentile",
    defaults={"active": "percentile", "shared": "all", "lambda": 1.5},
    summary="RAM with a percentile mask per tensor and a constant factor on unique changes.",
    paper="'Does Sparsity Persist?', eq. 4-5",
    notes=(
        "When at least 90 % of a tensor is unchanged the percentile is 0, every coordinate counts as active, and the "
        "method is simple averaging; rlmerge warns, and active: strict avoids it.",
    ),
)

METHODS = (RAM, RAM_PLUS, RAMPLUS_TL, RAM_PERCENTILE)

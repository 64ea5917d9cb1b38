"""Model Breadcrumbs: Davari & Belilovsky, 2023, arXiv 2312.06795, §3: drop the largest and the smallest changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Method, Parameter, Stages, Statistic
from .parts import (
    LAMBDA,
    RESTORE,
    WEIGHT,
    density,
    elected_sum,
    l1_scale,
    magnitude,
    normalize,
    norms,
    scaled,
    weighted_sum,
    weights_do_not_cancel,
)


def between(xp: Any, tau: Any, floor: Any, ceiling: Any) -> Any:
    """Keep magnitudes from ``floor`` to ``ceiling``, both included, so equal ones at either end all stay."""
    size = xp.abs(tau)
    return xp.where((size >= floor) & (size <= ceiling), tau, 0.0)


def breadcrumbs_formula(
    xp: Any, base: Any, tau: Any, *, floor: Any, ceiling: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """θ* = θ₀ + λ Σ w_k τ̂_k, with τ̂ between two magnitudes of its tensor."""
    return base + lam * weighted_sum(xp, scaled(between(xp, tau, floor, ceiling), scale), weight, normalize)


def breadcrumbs_ties_formula(
    xp: Any, base: Any, tau: Any, *, floor: Any, ceiling: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """As ``breadcrumbs``, but only entries that agree with the elected sign are added."""
    return base + lam * elected_sum(xp, scaled(between(xp, tau, floor, ceiling), scale), weight, normalize)


def _counts(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """How many entries are dropped from the top, and how many are kept below them."""
    total = np.where(values["rank_nonzero"], nonzero, numel)
    share = np.asarray(values["density"], np.float64)
    kept = np.where(share > 0, np.maximum(1, np.floor(share * total)), 0)
    dropped = np.minimum(np.floor(np.asarray(values["gamma"], np.float64) * total), np.maximum(0, total - kept))
    return dropped.astype(np.int64), kept.astype(np.int64)


def _floor_rank(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    dropped, kept = _counts(numel, nonzero, values)
    return np.where(kept > 0, dropped + kept, 0)


def _ceiling_rank(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    return _counts(numel, nonzero, values)[0] + 1


def _unlimited(limit: float) -> Any:
    def skip(values: Mapping[str, Any]) -> np.ndarray | None:
        share = np.asarray(values["density"])
        return np.full(share.shape, limit) if np.all(share >= 1) else None

    return skip


_USES = ("density", "gamma", "rank_nonzero")
_LIMITS = (
    Statistic("floor", magnitude, "kth", rank=_floor_rank, skip=_unlimited(0.0), uses=_USES),
    Statistic("ceiling", magnitude, "kth", rank=_ceiling_rank, skip=_unlimited(np.inf), uses=_USES),
)


def _norms(xp: Any, base: Any, tau: Any, *, floor: Any, ceiling: Any) -> Any:
    return norms(xp, tau, between(xp, tau, floor, ceiling))


def _statistics(experts: int, *, rescale: str, **_: Any) -> Stages:
    return (_LIMITS, (Statistic("norms", _norms, "sum"),)) if rescale == "l1" else (_LIMITS,)


BREADCRUMBS = Method(
    name="breadcrumbs",
    formula=breadcrumbs_formula,
    summary="Drop the largest and the smallest changes of each tensor, add up the rest.",
    paper="Model Breadcrumbs, arXiv 2312.06795; parameters as in mergekit",
    status="second-hand",
    parameters=(
        WEIGHT,
        density("Share of each tensor's entries kept, below the largest that gamma drops."),
        Parameter("gamma", 0.01, "Share of entries dropped for being largest.", per="expert", low=0.0, high=1.0),
        LAMBDA,
        normalize(False),
        RESTORE,
        Parameter("rank_nonzero", False, "Take density and gamma of the changed entries only."),
    ),
    statistics=_statistics,
    derive=l1_scale,
    check=weights_do_not_cancel,
    notes=(
        "gamma counts all entries: where fewer than gamma of them changed, as after RL, every change of the tensor is "
        "dropped; rank_nonzero: true counts changes only.",
        "At density 1 nothing is dropped, whatever gamma is; equal magnitudes at either threshold are all kept.",
    ),
)

BREADCRUMBS_TIES = Method(
    name="breadcrumbs_ties",
    formula=breadcrumbs_ties_formula,
    summary="Drop the largest and the smallest changes, add those that agree with the elected sign.",
    paper="Model Breadcrumbs, arXiv 2312.06795, with TIES sign election, arXiv 2306.01708",
    status="second-hand",
    looks_at="signs",
    parameters=BREADCRUMBS.parameters,
    statistics=_statistics,
    derive=l1_scale,
    notes=BREADCRUMBS.notes,
)

METHODS = (BREADCRUMBS, BREADCRUMBS_TIES)

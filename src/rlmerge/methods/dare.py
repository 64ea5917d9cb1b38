"""DARE: Yu et al., 2023, arXiv 2311.03099, §3.2: drop entries at random and rescale what stays."""

from __future__ import annotations

from typing import Any

import numpy as np

from .method import Method, Parameter, Stages, Statistic
from .parts import (
    LAMBDA,
    WEIGHT,
    density,
    elected_sum,
    l1_scale,
    normalize,
    norms,
    scaled,
    weighted_sum,
    weights_do_not_cancel,
)

RESCALE = Parameter(
    "rescale",
    "inverse",
    "What stays is divided by the density (paper), brought back to the tensor's L1 norm, or left alone.",
    choices=("inverse", "l1", "none"),
)


def drop(xp: Any, tau: Any, uniform: Any, keep: Any, scale: Any) -> Any:
    """Keep each entry with probability ``keep``, times ``scale``; dropped entries are 0."""
    return xp.where(uniform < keep, scaled(tau, scale), 0.0)


def dare_linear_formula(
    xp: Any, base: Any, tau: Any, *, uniform: Any, density: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """θ* = θ₀ + λ Σ w_k τ̂_k with τ̂ dropped and rescaled."""
    return base + lam * weighted_sum(xp, drop(xp, tau, uniform, density, scale), weight, normalize)


def dare_ties_formula(
    xp: Any, base: Any, tau: Any, *, uniform: Any, density: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """As ``dare_linear``, but only entries that agree with the elected sign are added."""
    return base + lam * elected_sum(xp, drop(xp, tau, uniform, density, scale), weight, normalize)


def _norms(xp: Any, base: Any, tau: Any, *, uniform: Any, density: Any) -> Any:
    return norms(xp, tau, xp.where(uniform < density, tau, 0.0))


def _statistics(experts: int, *, rescale: str, **_: Any) -> Stages:
    return ((Statistic("norms", _norms, "sum"),),) if rescale == "l1" else ()


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    if values["rescale"] != "inverse":
        return l1_scale(values)
    share = np.asarray(values["density"], np.float64)
    return {"scale": 1 / np.where(share > 0, share, 1.0)}


DARE_LINEAR = Method(
    name="dare_linear",
    formula=dare_linear_formula,
    summary="Drop changes at random, rescale the rest, add them up.",
    paper="DARE, arXiv 2311.03099",
    status="exact",
    parameters=(WEIGHT, density("Probability that an entry is kept."), LAMBDA, normalize(False), RESCALE),
    statistics=_statistics,
    derive=_derive,
    check=weights_do_not_cancel,
    notes=("Which entries are dropped depends on seed, expert, tensor name and position alone.",),
    compat={"rescale": "l1"},
)

DARE_TIES = Method(
    name="dare_ties",
    formula=dare_ties_formula,
    summary="Drop changes at random, rescale the rest, add those that agree with the elected sign.",
    paper="DARE, arXiv 2311.03099, with TIES sign election, arXiv 2306.01708",
    status="exact",
    looks_at="signs",
    parameters=DARE_LINEAR.parameters,
    statistics=_statistics,
    derive=_derive,
    notes=DARE_LINEAR.notes,
    compat={"rescale": "l1"},
)

METHODS = (DARE_LINEAR, DARE_TIES)

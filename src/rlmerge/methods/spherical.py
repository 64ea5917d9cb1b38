"""Spherical interpolation of weights and of task vectors (Shoemake, 1985), with angles from float64 sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .gram import products, row_products
from .method import Method, Parameter, Stages, Statistic
from .parts import WEIGHT

LERP_COSINE = 0.9995
"""Above this |cosine| a slerp is computed as a lerp, as is customary."""


def slerp_coefficients(
    gram: np.ndarray, t: float | np.ndarray, lerp_above: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of x and y in slerp(x, y, t) and their cosine, from ``gram`` = [x·x, x·y, y·y] ([3] or [3, rows]).

    Vectors of length 0, and those whose |cosine| exceeds ``lerp_above`` or is 1, are interpolated linearly.
    """
    xx, xy, yy = np.asarray(gram, np.float64)
    norm = np.sqrt(xx * yy)
    defined = norm > 0
    cosine = np.where(defined, np.clip(xy / np.where(defined, norm, 1.0), -1.0, 1.0), 1.0)
    spherical = defined & (np.abs(cosine) <= lerp_above) & (np.abs(cosine) < 1)
    angle = np.where(spherical, np.arccos(np.where(spherical, cosine, 0.0)), 1.0)
    sine = np.sin(angle)
    first = np.where(spherical, np.sin((1 - t) * angle) / sine, 1 - t)
    second = np.where(spherical, np.sin(t * angle) / sine, t)
    return first, second, cosine


def slerp_formula(xp: Any, base: Any, tau: Any, *, move: Any, stretch: Any) -> Any:
    """s₀θ₀ + s₁θ₁ written as θ₀ + s₁τ + (s₀ + s₁ − 1)θ₀, so that a lerp leaves unchanged coordinates alone."""
    return base + move * tau[0] + stretch * base


def _base_gram(xp: Any, base: Any, tau: Any) -> Any:
    theta = base + tau[0]
    return [base * base, base * theta, theta * theta]


def _slerp_derive(values: dict[str, Any]) -> dict[str, Any]:
    stay, move, cosine = slerp_coefficients(values["gram"], float(values["t"]), LERP_COSINE)
    return {"move": float(move), "stretch": float(stay + move - 1), "cosine": float(cosine)}


def _slerp_warn(values: Mapping[str, Any]) -> list[str]:
    if abs(values["cosine"]) > LERP_COSINE:
        return [
            "the cosine to the base exceeds 0.9995, so slerp is a linear interpolation; nuslerp with a base_model "
            "interpolates task vectors instead"
        ]
    return []


SLERP = Method(
    name="slerp",
    formula=slerp_formula,
    summary="Spherical interpolation between the base and one expert.",
    paper="Shoemake, SIGGRAPH 1985",
    status="exact",
    looks_at="angles",
    parameters=(Parameter("t", 0.5, "0 is the base, 1 the expert."),),
    statistics=lambda experts, **_: ((Statistic("gram", _base_gram, "sum"),),),
    derive=_slerp_derive,
    warn=_slerp_warn,
    max_experts=1,
    keeps_base=lambda values: False,
    notes=("Fine-tunes have a cosine above 0.9995 to their base, where a slerp of whole weights is a lerp.",),
)


def nuslerp_formula(
    xp: Any, base: Any, vectors: Any, *, first: Any, second: Any, t: Any, nuslerp_flatten: bool, nuslerp_row_wise: bool
) -> Any:
    """a·x₁ + b·x₂ on weights; with a base θ₀ + a·τ₁ + b·τ₂ on task vectors."""
    x, y = _pair(base, vectors)
    if not nuslerp_flatten and nuslerp_row_wise:
        moved = _by_columns(x, y, float(t))
        return moved if base is None else base + moved.astype(base.dtype)
    moved = first[0] * x + second[0] * y
    return moved if base is None else base + moved


def _by_columns(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    """The arc between the vectors along the first dimension of x and y; a vector is one of them."""
    pairs = [(x, x), (x, y), (y, y)]
    gram = np.stack([np.sum(np.multiply(a, b, dtype=np.float64), axis=0) for a, b in pairs])
    first, second, _ = slerp_coefficients(gram, t, 1.0)
    return first * x + second * y


def _pair(base: Any, vectors: Any) -> tuple[Any, Any]:
    x, y = vectors[0], vectors[1]
    return (x, y) if base is None else (x - base, y - base)


def _pair_gram(xp: Any, base: Any, vectors: Any) -> Any:
    return products(_pair(base, vectors))


def _pair_gram_rows(xp: Any, base: Any, vectors: Any) -> Any:
    return row_products(_pair(base, vectors))


def _nuslerp_statistics(experts: int, *, nuslerp_flatten: bool, nuslerp_row_wise: bool, **_: Any) -> Stages:
    if not nuslerp_flatten and nuslerp_row_wise:
        return ()
    if nuslerp_flatten:
        return ((Statistic("gram", _pair_gram, "sum"),),)
    return ((Statistic("gram", _pair_gram_rows, "rows"),),)


def _nuslerp_derive(values: dict[str, Any]) -> dict[str, Any]:
    one, two = np.asarray(values["weight"], np.float64)
    t = 0.5 if abs(one + two) < 1e-6 else two / (one + two)
    if "gram" not in values:
        return {"first": None, "second": None, "t": t}
    first, second, _ = slerp_coefficients(values["gram"], t, 1.0)
    return {"first": first[None], "second": second[None], "t": None}


def _along_columns(values: Mapping[str, Any]) -> bool:
    return not values["nuslerp_flatten"] and bool(values["nuslerp_row_wise"])


NUSLERP = Method(
    name="nuslerp",
    formula=nuslerp_formula,
    summary="Spherical interpolation of two experts, on task vectors when there is a base.",
    paper="Shoemake, SIGGRAPH 1985; parameters as in mergekit's nuslerp",
    status="exact",
    parameters=(
        WEIGHT,
        Parameter("nuslerp_flatten", True, "One angle per tensor; false: one per vector of the last dimension."),
        Parameter("nuslerp_row_wise", False, "With nuslerp_flatten false, vectors of the first dimension instead."),
    ),
    statistics=_nuslerp_statistics,
    derive=_nuslerp_derive,
    whole=_along_columns,
    looks_at="angles",
    space="weights",
    base="optional",
    min_experts=2,
    max_experts=2,
)

METHODS = (SLERP, NUSLERP)

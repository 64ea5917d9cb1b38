"""Model Stock: Jang et al., 2024, arXiv 2403.19522, §4: how far to go towards the average, from the angle between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .gram import matrix, products, row_products
from .method import Method, Parameter, Stages, Statistic


def model_stock_formula(xp: Any, base: Any, tau: Any, *, ratio: Any, experts: Any) -> Any:
    """θ* = θ₀ + t · mean τ, eq. 5 with t = K cosθ / (1 + (K − 1) cosθ)."""
    return base + ratio[0] * (xp.sum(tau) / experts)


def mean_cosine(gram: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Mean cosine over the pairs of K vectors from ``gram`` [K, K] or [K, K, rows]; 0 for a vector without length."""
    first, second = np.triu_indices(len(gram), 1)
    square = np.einsum("kk...->k...", gram)
    lengths = np.maximum(np.sqrt(square[first]) * np.sqrt(square[second]), floor)
    return np.where(lengths > 0, gram[first, second] / np.where(lengths > 0, lengths, 1.0), 0.0).mean(0)


def interpolation(cosine: np.ndarray, experts: int) -> np.ndarray:
    """t of eq. 5; 0 where K vectors point apart as far as they can, so that their mean is 0."""
    below = 1 + (experts - 1) * cosine
    return np.where(below > 1e-12, experts * cosine / np.where(below > 1e-12, below, 1.0), 0.0)


def _gram(xp: Any, base: Any, tau: Any) -> Any:
    return products(tau)


def _gram_rows(xp: Any, base: Any, tau: Any) -> Any:
    return row_products(tau)


def _statistics(experts: int, *, filter_wise: bool, **_: Any) -> Stages:
    return ((Statistic("gram", _gram_rows, "rows") if filter_wise else Statistic("gram", _gram, "sum"),),)


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    experts = int(values["experts"])
    cosine = mean_cosine(matrix(values["gram"], experts), float(values["norm_floor"]))
    return {"ratio": interpolation(cosine, experts)[None]}


def _warn(values: Mapping[str, Any]) -> list[str]:
    if np.any(np.asarray(values["ratio"]) < 0):
        return ["experts point apart (their mean cosine is negative), so model_stock steps away from their mean"]
    return []


MODEL_STOCK = Method(
    name="model_stock",
    formula=model_stock_formula,
    summary="Step towards the average as far as the angle between experts says.",
    paper="Model Stock, arXiv 2403.19522",
    status="exact",
    looks_at="angles",
    parameters=(
        Parameter("filter_wise", False, "One angle per row instead of one per tensor."),
        Parameter("norm_floor", 0.0, "Smallest product of two norms that a cosine divides by.", low=0.0),
    ),
    statistics=_statistics,
    derive=_derive,
    warn=_warn,
    min_experts=2,
    notes=(
        "mergekit divides by at least 1e-6, which pulls the cosine of RL-sized changes to 0 and the merge to the base; "
        "compat: mergekit sets norm_floor to 1e-6.",
        "The cosine with an expert that left the tensor unchanged counts as 0.",
    ),
    compat={"norm_floor": 1e-6},
)

METHODS = (MODEL_STOCK,)

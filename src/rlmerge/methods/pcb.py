"""PCB-Merging: Du et al., 2024, arXiv 2410.02396: coordinates compete within an expert and between experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .method import Method, Parameter, Stages, Statistic
from .parts import LAMBDA, WEIGHT, magnitude

CLAMPED = 1e-4
"""Share of the magnitudes at either end that is clamped."""


def _competition(tau: Any, low: Any, high: Any) -> Any:
    """exp(K·b²)·tanh(τ_k Σ τ_j) in float64 [K, n], with b the clamped magnitude between its least and its largest."""
    wide = np.asarray(tau, np.float64)
    size = np.clip(np.abs(wide), low, high)
    inner = (size - low) / np.where(high > low, high - low, 1.0)
    return np.exp(len(wide) * inner**2) * np.tanh(wide * np.sum(wide, axis=0))


def _positive(xp: Any, base: Any, tau: Any, *, least: Any, largest: Any) -> Any:
    return np.maximum(_competition(tau, *_bounds(least, largest)), 0.0).astype(tau.dtype)


def _bounds(least: Any, largest: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [K, 1] of the magnitudes; a bound nobody reaches is 0."""
    low, high = (np.reshape(np.where(np.isfinite(x), x, 0.0), (-1, 1)).astype(np.float64) for x in (least, largest))
    return low, high


def pcb_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    least: Any,
    largest: Any,
    chosen: Any,
    most: Any,
) -> Any:
    """θ₀ + λ Σ w_k s_k τ̂_k / Σ s_k, τ̂ the clamped change and s_k its competition between the threshold of the top
    ``ratio`` (0) and the largest (1)."""
    low, high = _bounds(least, largest)
    bottom, top = (np.reshape(x, (-1, 1)).astype(np.float64) for x in (chosen, most))
    value = np.maximum(_competition(tau, low, high).astype(tau.dtype), 0.0)
    score = np.where(top > bottom, np.clip((value - bottom) / np.where(top > bottom, top - bottom, 1.0), 0, 1), 0.0)
    clamped = np.sign(tau) * np.clip(np.abs(np.asarray(tau, np.float64)), low, high)
    merged = np.sum(weight * score * clamped, axis=0) / np.maximum(np.sum(score, axis=0), 1e-12)
    return base + lam * merged.astype(tau.dtype)


def _rank(index: Callable[[int, float], int]) -> Callable[[int, Any, Mapping[str, Any]], np.ndarray]:
    """The rank from the top of the ``index``-th smallest of all entries, for every expert."""

    def found(numel: int, nonzero: Any, values: Mapping[str, Any]) -> np.ndarray:
        place = index(numel, float(values["ratio"]))
        return np.full(len(nonzero), numel - min(max(place, 0), numel - 1), np.int64)

    return found


def _statistics(experts: int, *, scope: str, **_: Any) -> Stages:
    over: Any = "model" if scope == "global" else "tensor"
    uses = ("ratio",)

    def kth(name: str, formula: Any, index: Callable[[int, float], int]) -> Statistic:
        return Statistic(name, formula, "kth", over, _rank(index), uses=uses)

    sizes = (
        kth("least", magnitude, lambda numel, ratio: int(numel * CLAMPED)),
        kth("largest", magnitude, lambda numel, ratio: int(numel * (1 - CLAMPED) - 1)),
    )
    scores = (
        kth("chosen", _positive, lambda numel, ratio: int(numel * (1 - ratio))),
        kth("most", _positive, lambda numel, ratio: numel - 1),
    )
    return (sizes, scores)


PCB = Method(
    name="pcb",
    formula=pcb_formula,
    summary="Weigh each coordinate by how it stands within its expert and against the others'.",
    paper="PCB-Merging, arXiv 2410.02396",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("ratio", 0.1, "Share of the coordinates that are kept.", low=0.0, high=1.0, open_low=True),
        Parameter(
            "scope",
            "global",
            "Compete over the whole model, as in the paper, or within each tensor.",
            choices=("global", "tensor"),
        ),
    ),
    statistics=_statistics,
    looks_at="coordinates",
    bitwise=False,
    compiled=False,
    notes=(
        "Scores below 0 count as 0, which changes nothing unless fewer than the ratio's share are above.",
        "The authors search a weight for each task from 0.8 to 1.3 on validation data.",
        "tanh(τ Σ τ) is about τ Σ τ for RL-sized changes, so the largest changes win.",
        "exp and tanh run on NumPy, on every backend, and may differ in the last bit between processors.",
    ),
)

METHODS = (PCB,)

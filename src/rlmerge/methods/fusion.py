"""Arcee Fusion: change only where a change times its row's KL divergence stands out (mergekit's arcee_fusion)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Method, Stages, Statistic

QUARTILES = (1, 2, 3)


def softmax_divergence(reference: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """KL(q‖p) over the last axis, in float64, of q = softmax(W) and p = softmax(W + Δ).

    With δ = Δ − Σ qΔ it is log(1 + Σ q(e^δ − 1 − δ)): a sum of non-negative terms, so nothing cancels and divergences
    far below the rounding of log q keep their digits.
    """
    odds = np.exp(reference - reference.max(-1, keepdims=True))
    q = odds / odds.sum(-1, keepdims=True)
    away = delta - (q * delta).sum(-1, keepdims=True)
    return np.log1p((q * _exponential_remainder(away)).sum(-1))


def _exponential_remainder(x: np.ndarray) -> np.ndarray:
    """e^x − 1 − x ≥ 0 without cancellation."""
    small = np.abs(x) < 0.01
    y = np.where(small, x, 0.0)
    # Taylor to x⁷: the first term left out is below 10⁻¹⁶ of the value for |x| < 0.01.
    series = y * y / 2 * (1 + y / 3 * (1 + y / 4 * (1 + y / 5 * (1 + y / 6 * (1 + y / 7)))))
    return np.where(small, series, np.expm1(x) - x)


def arcee_fusion_formula(xp: Any, base: Any, tau: Any, *, divergence: Any, threshold: Any) -> Any:
    """θ* = θ₀ + 1[I ≥ median(I) + 1.5 · IQR(I)] · τ with I = |τ| · KL of the row."""
    return xp.where(importance(xp, tau, divergence) >= threshold, base + tau[0], base)


def importance(xp: Any, tau: Any, divergence: Any) -> Any:
    """|τ| times the KL divergence of its row."""
    return xp.abs(tau[0]) * divergence[0]


def _divergence(xp: Any, base: Any, tau: Any) -> Any:
    return softmax_divergence(base + tau[0], -tau[0])[None]


def _quartiles(xp: Any, base: Any, tau: Any, *, divergence: Any) -> Any:
    return [importance(xp, tau, divergence)] * len(QUARTILES)


def _ranks(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    """The order statistic at or below each quartile, as a rank from the top."""
    return numel - np.array([quarter * (numel - 1) // 4 for quarter in QUARTILES], np.int64)


def _statistics(experts: int, **_: Any) -> Stages:
    divergence = Statistic("divergence", _divergence, "rows")
    return ((divergence,), (Statistic("quartiles", _quartiles, "kth", rank=_ranks),))


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    first, median, third = np.asarray(values["quartiles"], np.float64)
    return {"threshold": float(median + 1.5 * (third - first))}


def _warn(values: Mapping[str, Any]) -> list[str]:
    if values["threshold"] > 0:
        return []
    return ["at least three quarters of the entries have no importance, so arcee_fusion keeps every change"]


ARCEE_FUSION = Method(
    name="arcee_fusion",
    formula=arcee_fusion_formula,
    summary="Keep changes whose size times their row's KL divergence is an outlier.",
    paper="mergekit's arcee_fusion",
    status="second-hand",
    statistics=_statistics,
    derive=_derive,
    warn=_warn,
    max_experts=1,
    notes=(
        "Quartiles are exact order statistics; mergekit takes them from a random sample of a million entries.",
        "The divergence KL(expert‖base) is computed without cancellation; in float32 it is noise for RL-sized changes.",
    ),
)

METHODS = (ARCEE_FUSION,)

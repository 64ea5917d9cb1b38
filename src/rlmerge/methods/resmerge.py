"""ResMerge: Sun et al., 2026, arXiv 2606.02252: a consensus of the changes without their leading directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlmerge.kernels.matrix import add_to, squares
from rlmerge.kernels.spectrum import singular

from .matrices import others, per_matrix, workspace
from .method import Method, Needs, Parameter
from .parts import LAMBDA, WEIGHT

_NOTHING = 1e-8
"""Length below which the authors' code takes a matrix for 0."""


def resmerge_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    rank: Any,
    beta_min: Any,
    beta_max: Any,
    head_budget: Any,
    others: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·(B + H) per matrix, from heads h_k (the leading ``rank`` singular directions) and residuals
    r_k = τ_k − h_k.

    With unit residuals q_k and q = Σ q_k / ‖Σ q_k‖, coherence c = mean ⟨q_k, q⟩ and s = mean cosine of the pairs:
    B = c^β·mean‖r_k‖·q for β = β_max − (β_max − β_min)·((s + 1)/2 + (c + 1)/2)/2, or mean r_k where c ≤ 1/√K.
    H = mean h_k at the length head_budget·(mean positive cosine of the heads)·‖B‖.
    """
    plain = kind in ("embedding", "head", "norm")
    listed = kind == "" or kind.startswith(("attention", "MLP", "expert"))

    def change(matrices: np.ndarray) -> np.ndarray:
        low = float(beta_min) if listed else float(beta_max)
        return _with_heads(matrices, int(rank), low, float(beta_max), float(head_budget))

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _with_heads(tau: np.ndarray, rank: int, low: float, high: float, budget: float) -> np.ndarray:
    heads = np.zeros(tau.shape)
    residuals = tau.astype(np.float64)
    for k, each in enumerate(tau):
        left, sigma, right = singular(each, rank)
        add_to(heads[k], left * sigma, right)
        residuals[k] -= heads[k]
    backbone = _backbone(residuals, low, high)
    agreement = float(np.mean(np.maximum(_cosines([h for h in heads if squares(h) > _NOTHING**2]), 0.0)))
    mean = heads.mean(0)
    anchor, length = np.sqrt(squares(backbone)), np.sqrt(squares(mean))
    if budget * agreement > 0 and anchor > _NOTHING and length > _NOTHING:
        backbone += mean * (budget * min(1.0, agreement) * anchor / length)
    return backbone


def _backbone(residuals: np.ndarray, low: float, high: float) -> np.ndarray:
    experts = len(residuals)
    lengths = np.array([np.sqrt(squares(each)) for each in residuals])
    if lengths.max(initial=0.0) <= _NOTHING:
        return np.zeros(residuals.shape[1:])
    units = [each / (length + _NOTHING) for each, length in zip(residuals, lengths, strict=True)]
    together = np.sum(units, axis=0)
    size = np.sqrt(squares(together))
    if size <= _NOTHING:
        return residuals.mean(0)
    direction = together / (size + _NOTHING)
    coherence = float(np.clip(np.mean([_cosine(unit, direction) for unit in units]), 0.0, 1.0))
    if coherence <= 1 / np.sqrt(experts):
        return residuals.mean(0)
    similar = float(np.mean(_cosines(units)))
    score = np.clip(0.5 * ((similar + 1) / 2 + (coherence + 1) / 2), 0.0, 1.0)
    beta = high - (high - low) * score
    return direction * (coherence**beta * lengths.mean())


def _cosines(vectors: Sequence[np.ndarray]) -> list[float]:
    """Cosines of all pairs; one for a vector alone, and none at all count as 0."""
    pairs = [_cosine(a, b) for i, a in enumerate(vectors) for b in vectors[i + 1 :]]
    return pairs or [1.0 if vectors else 0.0]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b) / (np.sqrt(squares(a) * squares(b)) + _NOTHING))


def _numbers(needs: Needs, outputs: int, inputs: int) -> int:
    return (3 * needs.experts + 6) * outputs * inputs + 6 * min(outputs, inputs) ** 2


def _check(values: Mapping[str, Any]) -> list[str]:
    low, high = float(values["beta_min"]), float(values["beta_max"])
    return [f"beta_min {low:g} is above beta_max {high:g}"] if low > high else []


RESMERGE = Method(
    name="resmerge",
    formula=resmerge_formula,
    summary="Consensus of the changes without their leading directions, which come back where they agree.",
    paper="ResMerge, arXiv 2606.02252",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("rank", 1.0, "Leading directions that are set apart.", low=1.0),
        Parameter("beta_min", 0.7, "Exponent of the coherence where experts agree.", low=0.0),
        Parameter("beta_max", 1.0, "Exponent of the coherence where they do not.", low=0.0),
        Parameter("head_budget", 0.2, "Length of what comes back, over that of the consensus.", low=0.0),
        others("average"),
    ),
    whole=True,
    workspace=workspace(_numbers),
    looks_at="subspaces",
    bitwise=False,
    keeps_base=lambda values: False,
    check=_check,
    notes=(
        "Embeddings, output heads and norms take the average, and matrices outside attention and MLP keep beta_max, as "
        "in the authors' code.",
        "An expert alone comes back with its leading direction shortened.",
        "Leading directions come from LAPACK, so the last bits depend on the machine's BLAS and its threads.",
    ),
)

METHODS = (RESMERGE,)

"""RegMean: Jin et al., 2023, arXiv 2212.09849, eq. 2: the linear layers that best agree with all experts' outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlmerge.kernels.matrix import NotPositiveError, add_to, cholesky, divide, product
from rlmerge.kernels.spectrum import symmetric

from .method import Method, Parameter
from .parts import LAMBDA

_SAFE = 1e-3
"""Smallest eigenvalue of a matrix with unit diagonal that float32 Gram matrices leave no doubt about."""


def regmean_formula(
    xp: Any, base: Any, theta: Any, *, weight: Any, lam: Any, alpha: Any, others: str, gram: Any = None
) -> Any:
    """W* = (Σ λ_k W_k G_k) (Σ λ_k G_k)⁻¹ for layers y = W x with G = XᵀX, and θ₀ + λ·(W* − θ₀); of other tensors the
    weighted mean, or Σ w_k τ_k, in place of W* − θ₀.

    ``theta`` is [K, outputs, inputs] and ``gram`` [K, inputs, inputs]. Off-diagonals of G are multiplied by alpha.
    Solved in float64 as an offset from the weighted mean, which is also the answer for inputs that never occurred.
    """
    amount = np.reshape(weight, -1).astype(np.float64)
    share = amount / amount.sum()
    weights = np.asarray(theta, np.float64)
    mean = weights[0].copy()
    for own, part in zip(weights[1:], share[1:], strict=True):
        mean += part * (own - weights[0])
    if gram is None:
        if others == "sum":
            summed = sum(w * (own - base) for own, w in zip(weights, amount, strict=True))
            return base + lam * summed
        return _scaled(base, mean, lam)
    gap, total = np.zeros(mean.shape), np.zeros(np.shape(gram[0]))
    for own, matrix, part in zip(weights, gram, share, strict=True):
        moment = part * np.asarray(matrix, np.float64) * np.where(np.eye(len(matrix), dtype=bool), 1.0, alpha)
        add_to(gap, own - mean, moment)
        total += moment
    return _scaled(base, mean + _times_inverse(gap, total), lam)


def _scaled(base: Any, merged: np.ndarray, lam: Any) -> np.ndarray:
    """θ₀ + λ·(merged − θ₀); what was merged, bit for bit, at λ = 1."""
    return merged if lam == 1 else base + lam * (merged - base)


def _times_inverse(left: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """left · gram⁺ for a positive semidefinite ``gram`` [n, n].

    Scaled to a unit diagonal first, since inputs differ in size by orders of magnitude. If alpha has left no eigenvalue
    below ``_SAFE`` then, a plain solution is exact, and its bits are the same everywhere; else directions without input
    are left out by their eigenvectors, which LAPACK computes.
    """
    size = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    scaled = gram * scale[:, None] * scale + np.diag((size == 0).astype(np.float64))
    left = left * scale
    try:
        cholesky(scaled - _SAFE * np.eye(len(scaled)))
        return divide(left, cholesky(scaled)) * scale
    except NotPositiveError:
        values, vectors = symmetric(scaled)
    seen = values > len(values) * np.finfo(np.float32).eps * values.max(initial=0.0)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=seen)
    return product(product(left, vectors) * inverse, vectors.T) * scale


def _check(values: Mapping[str, Any]) -> list[str]:
    if not np.any(np.asarray(values["weight"]) > 0):
        return ["all weights are 0; give one expert a weight above 0"]
    if not values.get("has_base", True) and (values["others"] == "sum" or values["lam"] != 1):
        return ["a lambda other than 1 and others: sum are steps from the base; name a base_model"]
    return []


REGMEAN = Method(
    name="regmean",
    formula=regmean_formula,
    summary="Linear layers whose outputs are closest to those of all experts; other tensors are averaged.",
    paper="RegMean, arXiv 2212.09849",
    status="exact",
    parameters=(
        Parameter("weight", 1.0, "Weight of the expert.", per="expert", low=0.0),
        LAMBDA,
        Parameter("alpha", 0.9, "Factor on the off-diagonals of the Gram matrices.", low=0.0, high=1.0),
        Parameter(
            "others",
            "average",
            "Tensors without Gram matrices take the experts' mean, or the sum of their changes.",
            choices=("average", "sum"),
        ),
    ),
    inputs=("gram",),
    needs_inputs=lambda static: True,
    space="weights",
    base="optional",
    whole=True,
    looks_at="inputs",
    check=_check,
    notes=(
        "Gram matrices come from `rlmerge sensitivity --gram`; tensors without one (norms, embeddings) are averaged.",
        "Directions of the input that no expert saw take the average too.",
        "An expert measured on more tokens counts more, as in the paper.",
        "The paper's merge is lambda 1 with others averaged; a lambda above 1 and the sum keep more of small changes.",
        "At alpha 1 directions without input are found by LAPACK, whose last bits depend on the machine's BLAS.",
    ),
)

METHODS = (REGMEAN,)

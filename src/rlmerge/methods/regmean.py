"""RegMean: Jin et al., 2023, arXiv 2212.09849, eq. 2: the linear layers that best agree with all experts' outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Method, Parameter

_SAFE = 1e-3
"""Smallest eigenvalue of a matrix with unit diagonal that float32 Gram matrices leave no doubt about."""


def regmean_formula(xp: Any, base: Any, theta: Any, *, weight: Any, alpha: Any, gram: Any = None) -> Any:
    """W* = (Σ λ_k W_k G_k) (Σ λ_k G_k)⁻¹ for layers y = W x with G = XᵀX; the weighted mean of other tensors.

    ``theta`` is [K, outputs, inputs] and ``gram`` [K, inputs, inputs]. Off-diagonals of G are multiplied by alpha.
    Solved in float64 as an offset from the weighted mean, which is also the answer for inputs that never occurred.
    """
    share = np.reshape(weight, -1).astype(np.float64)
    share = share / share.sum()
    weights = np.asarray(theta, np.float64)
    mean = weights[0] + np.tensordot(share, weights - weights[0], axes=1)
    if gram is None:
        return mean
    gap, total = np.zeros_like(mean), np.zeros(np.shape(gram[0]))
    for own, matrix, part in zip(weights, gram, share, strict=True):
        product = part * np.asarray(matrix, np.float64) * np.where(np.eye(len(matrix), dtype=bool), 1.0, alpha)
        gap += (own - mean) @ product
        total += product
    return mean + _times_inverse(gap, total)


def _times_inverse(left: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """left · gram⁺ for a positive semidefinite ``gram`` [n, n].

    Scaled to a unit diagonal first, since inputs differ in size by orders of magnitude. If alpha has left no eigenvalue
    below ``_SAFE`` then, a plain solution is exact; else directions without input are left out.
    """
    size = np.sqrt(np.maximum(np.diagonal(gram), 0.0))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    scaled = gram * scale[:, None] * scale + np.diag((size == 0).astype(np.float64))
    left = left * scale
    try:
        np.linalg.cholesky(scaled - _SAFE * np.eye(len(scaled)))
        return np.linalg.solve(scaled, left.T).T * scale
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(scaled)
    seen = values > len(values) * np.finfo(np.float32).eps * values.max(initial=0.0)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=seen)
    return (left @ vectors * inverse) @ vectors.T * scale


def _check(values: Mapping[str, Any]) -> list[str]:
    return [] if np.any(np.asarray(values["weight"]) > 0) else ["all weights are 0; give one expert a weight above 0"]


REGMEAN = Method(
    name="regmean",
    formula=regmean_formula,
    summary="Linear layers whose outputs are closest to those of all experts; other tensors are averaged.",
    paper="RegMean, arXiv 2212.09849",
    status="exact",
    parameters=(
        Parameter("weight", 1.0, "Weight of the expert.", per="expert", low=0.0),
        Parameter("alpha", 0.9, "Factor on the off-diagonals of the Gram matrices.", low=0.0, high=1.0),
    ),
    inputs=("gram",),
    needs_inputs=lambda static: True,
    space="weights",
    base="optional",
    whole=True,
    check=_check,
    notes=(
        "Gram matrices come from `rlmerge sensitivity --gram`; tensors without one (norms, embeddings) are averaged.",
        "Directions of the input that no expert saw take the average too.",
        "An expert measured on more tokens counts more, as in the paper.",
    ),
)

METHODS = (REGMEAN,)

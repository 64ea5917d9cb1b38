"""KnOTS: Stoica et al., 2024, arXiv 2410.19735: changes merged in the singular basis that they share."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlmerge.kernels.matrix import product
from rlmerge.kernels.spectrum import singular

from .matrices import embeddings, others, per_matrix, workspace
from .method import Method, Needs, Parameter
from .parts import LAMBDA, WEIGHT


def knots_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    density: Any,
    cutoff: Any,
    merge: str,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·U·merge(Uᵀτ_k) with U the left singular vectors of [τ_1 … τ_K] whose singular value exceeds ``cutoff``.

    ``merge`` trims each Uᵀτ_k to its top ``density`` and takes the mean of the entries, not 0, whose sign is that of
    the sum (ties), of all that are not 0 (mean), or their sum.
    """
    plain = embeddings == "others" and kind == "embedding"
    shares = np.broadcast_to(np.reshape(density, -1), (len(tau),))

    def change(matrices: np.ndarray) -> np.ndarray:
        beside = np.concatenate(list(matrices), axis=1)
        left, values, _ = singular(beside, min(beside.shape))
        shared = left[:, values > float(cutoff)]
        aligned = [_trim(product(shared.T, each), float(d)) for each, d in zip(matrices, shares, strict=True)]
        return product(shared, _merge(np.stack(aligned), merge))

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _trim(entries: np.ndarray, density: float) -> np.ndarray:
    """The entries whose magnitude is among the largest ``density``; equal ones at the threshold all stay."""
    kept = int(density * entries.size)
    if density >= 1 or not entries.size:
        return entries
    if kept == 0:
        return np.zeros_like(entries)
    size = np.abs(entries)
    return np.where(size >= np.partition(size, size.size - kept, axis=None)[size.size - kept], entries, 0.0)


def _merge(aligned: np.ndarray, how: str) -> np.ndarray:
    if how == "ties":
        sign = np.where(aligned.sum(0) >= 0, 1.0, -1.0)
        aligned = np.where(aligned * sign > 0, aligned, 0.0)
    if how == "sum":
        return aligned.sum(0)
    return aligned.sum(0) / np.maximum(np.count_nonzero(aligned, axis=0), 1)


def _numbers(needs: Needs, outputs: int, inputs: int) -> int:
    less = min(outputs, needs.experts * inputs)
    return (5 * needs.experts + 4) * outputs * inputs + 2 * outputs * less + 6 * less * less


KNOTS = Method(
    name="knots",
    formula=knots_formula,
    summary="TIES in the singular basis that the experts' changes share.",
    paper="KnOTS, arXiv 2410.19735",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter(
            "density",
            1.0,
            "Share of each expert's aligned entries kept, largest magnitudes first.",
            per="expert",
            low=0.0,
            high=1.0,
        ),
        Parameter("cutoff", 1e-5, "Singular values that are no larger are left out.", low=0.0),
        Parameter("merge", "ties", "How aligned entries are merged.", choices=("ties", "mean", "sum")),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_numbers),
    looks_at="subspaces",
    bitwise=False,
    keeps_base=lambda values: False,
    notes=(
        "Made for LoRA experts, whose changes have few directions in common coordinates; it runs on any matrix.",
        "A density below 1 trims within each tensor, where the authors' code trims over all layers at once.",
        "The authors scale the result by 0.3 to 1 after a search: lambda. Their other tensors are left alone.",
        "The cutoff is the authors' and absolute; singular values below 1e-6 of the largest are left out in any case.",
        "The basis comes from LAPACK, so the last bits depend on the machine's BLAS and its threads.",
    ),
)

METHODS = (KNOTS,)

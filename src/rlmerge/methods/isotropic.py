"""Singular vectors of the changes, made orthogonal between experts, or of equal length.

TSV-Merge: Gargiulo et al., 2024, arXiv 2412.00081. Iso-C and Iso-CTS: Marczak et al., 2025, arXiv 2502.04959.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlmerge.kernels.matrix import add_to, product
from rlmerge.kernels.spectrum import polar, singular

from .matrices import embeddings, others, per_matrix, total, workspace
from .method import Method, Needs, Parameter
from .parts import LAMBDA, WEIGHT

_LAPACK = "Eigenvectors come from LAPACK, so the last bits depend on the machine's BLAS and its threads."


def tsv_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    share: Any,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·U⊥ diag(σ) V⊥ᵀ, where U and V hold the leading ``share`` / K singular vectors of every τ_k side by side,
    σ their singular values, and X⊥ = X (XᵀX)^(−1/2) is the closest matrix with orthonormal columns."""
    plain = embeddings == "others" and kind == "embedding"

    def change(matrices: np.ndarray) -> np.ndarray:
        kept = max(1, int(min(matrices.shape[1:]) * float(share) / len(matrices)))
        return _decorrelated([singular(each, kept) for each in matrices], matrices.shape[1:])

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _decorrelated(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> np.ndarray:
    sigma = np.concatenate([part[1] for part in parts])
    if not len(sigma):
        return np.zeros(shape)
    left = polar(np.concatenate([part[0] for part in parts], axis=1))
    right = polar(np.concatenate([part[2] for part in parts]).T)
    return product(left * sigma, right.T)


def _tsv_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    less, sizes = min(outputs, inputs), outputs + inputs
    # Triplets of all experts, their concatenation and its polar factors; the Gram matrix, eigenvectors and LAPACK's.
    return 2 * outputs * inputs + 4 * sizes * less + 6 * less * less


TSV = Method(
    name="tsv",
    formula=tsv_formula,
    summary="Leading singular vectors of every expert, made orthogonal to those of the others.",
    paper="Task Singular Vectors (TSV-Merge), arXiv 2412.00081",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("share", 1.0, "Share of the rank that all experts keep together.", low=0.0, high=1.0, open_low=True),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_tsv_numbers),
    looks_at="subspaces",
    bitwise=False,
    keeps_base=lambda values: False,
    notes=(
        "Each expert keeps 1/K of the rank. Directions that experts share exactly become one; the authors' code fills "
        "their place with arbitrary ones.",
        _LAPACK,
    ),
)


def iso_c_formula(
    xp: Any, base: Any, tau: Any, *, weight: Any, lam: Any, others: str, embeddings: str, kind: str = ""
) -> Any:
    """θ₀ + λ·σ̄·U Vᵀ, where U diag(σ) Vᵀ = Σ τ_k and σ̄ is the mean of all min(out, in) singular values."""
    plain = embeddings == "others" and kind == "embedding"

    def change(matrices: np.ndarray) -> np.ndarray:
        less = min(matrices.shape[1:])
        left, sigma, right = singular(total(matrices), less)
        return product(left * (np.sum(sigma) / less), right)

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _iso_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    less = min(outputs, inputs)
    return 5 * outputs * inputs + 6 * less * less


ISO_C = Method(
    name="iso_c",
    formula=iso_c_formula,
    summary="The sum of changes with all its singular values made equal.",
    paper="Isotropic Model Merging (Iso-C), arXiv 2502.04959",
    status="exact",
    parameters=(WEIGHT, LAMBDA, others("average"), embeddings("merge")),
    whole=True,
    workspace=workspace(_iso_numbers),
    looks_at="subspaces",
    bitwise=False,
    keeps_base=lambda values: False,
    notes=(
        "Directions in which no expert changed anything, with singular values below 1e-6 of the largest, stay out; the "
        "authors' code gives arbitrary ones the mean length too.",
        "An expert alone does not come back: its spectrum is levelled.",
        _LAPACK,
    ),
)


def iso_cts_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    common_space_fraction: Any,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·σ̄·U⊥ V⊥ᵀ with the leading singular vectors of Σ τ_k and, in place of the rest, in equal number those of
    every τ_k outside the span of the former; σ̄ is the mean of all their singular values."""
    plain = embeddings == "others" and kind == "embedding"

    def change(matrices: np.ndarray) -> np.ndarray:
        return _common_and_own(matrices, float(common_space_fraction))

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _common_and_own(tau: np.ndarray, fraction: float) -> np.ndarray:
    experts, less = len(tau), min(tau.shape[1:])
    own = round((less - int(less * fraction)) / experts)
    left, sigma, right = singular(total(tau), less - own * experts)
    parts = [(left, sigma, right)]
    for each in tau if own else ():
        outside = add_to(each.astype(np.float64), left, product(left.T, each), -1.0)
        parts.append(singular(outside, own))
    values = np.concatenate([part[1] for part in parts])
    if not len(values):
        return np.zeros(tau.shape[1:])
    level = np.sum(values) / less
    first = polar(np.concatenate([part[0] for part in parts], axis=1))
    second = polar(np.concatenate([part[2] for part in parts]).T)
    return product(first * level, second.T)


ISO_CTS = Method(
    name="iso_cts",
    formula=iso_cts_formula,
    summary="Iso-C with the weakest common directions replaced by each expert's own.",
    paper="Isotropic Model Merging (Iso-CTS), arXiv 2502.04959",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("common_space_fraction", 0.8, "Share of the directions that are common.", low=0.0, high=1.0),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_tsv_numbers),
    looks_at="subspaces",
    bitwise=False,
    keeps_base=lambda values: False,
    notes=(
        "The number of own directions is rounded to a multiple of the experts, as in the authors' code.",
        _LAPACK,
    ),
)

METHODS = (TSV, ISO_C, ISO_CTS)

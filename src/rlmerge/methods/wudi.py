"""WUDI-Merging, by gradient descent and in closed form.

Cheng et al., 2025, arXiv 2503.08099: the update M that minimises Σ ‖(M − τ_k) τ_kᵀ‖² / ‖τ_k‖², what it does to the row
space of each expert's change beyond what that change does. Closed form with a spectral filter: arXiv 2606.07289.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rlmerge.kernels.matrix import add_to, gram, product, squares
from rlmerge.kernels.spectrum import symmetric

from .matrices import embeddings, others, per_matrix, total, workspace
from .method import Method, Needs, Parameter
from .parts import LAMBDA, WEIGHT

_BETAS, _SMALL = (0.9, 0.999), 1e-8
"""Adam's decay rates and what it adds to the root, PyTorch's defaults."""


def _moments(tau: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """C = Σ τ_kᵀτ_k / ‖τ_k‖² [in, in] and D = Σ τ_k τ_kᵀτ_k / ‖τ_k‖² [out, in], over the experts that changed it."""
    inputs = tau.shape[2]
    matrix, pulled = np.zeros((inputs, inputs)), np.zeros(tau.shape[1:])
    for each in tau:
        size = squares(each)
        if size > 0:
            own = gram(each) / size
            add_to(pulled, each, own)
            matrix += own
    return matrix, pulled


def wudi_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    steps: Any,
    learning_rate: Any,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·M after ``steps`` of Adam from M = Σ τ_k on Σ ‖(M − τ_k) τ_kᵀ‖² / ‖τ_k‖², whose gradient is 2(M C − D)."""
    plain = embeddings == "others" and kind == "embedding"

    def change(matrices: np.ndarray) -> np.ndarray:
        return _descend(matrices, int(steps), float(learning_rate))

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _descend(tau: np.ndarray, steps: int, rate: float) -> np.ndarray:
    matrix, pulled = _moments(tau)
    moved = total(tau).astype(np.float64)
    mean, square = np.zeros_like(moved), np.zeros_like(moved)
    for step in range(1, steps + 1):
        slope = 2.0 * add_to(-pulled, moved, matrix)
        mean = _BETAS[0] * mean + (1 - _BETAS[0]) * slope
        square = _BETAS[1] * square + (1 - _BETAS[1]) * slope * slope
        root = np.sqrt(square / (1 - _BETAS[1] ** step)) + _SMALL
        moved -= rate * (mean / (1 - _BETAS[0] ** step)) / root
    return moved


def _wudi_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    return 9 * outputs * inputs + 3 * inputs * inputs


WUDI = Method(
    name="wudi",
    formula=wudi_formula,
    summary="Descend from the sum of changes to where it disturbs no expert's row space.",
    paper="WUDI-Merging, arXiv 2503.08099",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("steps", 300.0, "Steps of Adam.", low=0.0),
        Parameter("learning_rate", 1e-5, "Adam's step.", low=0.0),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_wudi_numbers),
    looks_at="inputs",
    keeps_base=lambda values: False,
    notes=(
        "As in the authors' code: Adam without decay, from the sum. In float64 here.",
        "A coordinate moves by about the learning rate at each step, whatever the changes' size: with 300 steps by up "
        "to 3e-3, which is more than an RL-sized change. swudi has the minimum without steps.",
        "Costs one product with the whole matrix of inputs a step.",
    ),
)


def swudi_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    time: Any,
    rank_share: Any,
    start: str,
    floor: Any,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·(M₀ − M₀ V f Vᵀ + D V (f / ℓ) Vᵀ), where V diag(ℓ) Vᵀ = C as for WUDI and f = 1 − exp(−ℓ·time) on the
    leading ``rank_share`` of the inputs, else 0; M₀ is the sum of changes, their mean, or 0."""
    plain = kind == "head" or (embeddings == "others" and kind == "embedding")

    def change(matrices: np.ndarray) -> np.ndarray:
        experts, _, inputs = matrices.shape
        matrix, pulled = _moments(matrices)
        values, vectors = symmetric(matrix)
        kept = max(1, int((inputs * float(rank_share) + 0.999) // 1))
        values, vectors = np.maximum(values[:kept], float(floor)), vectors[:, :kept]
        shares = -np.expm1(-values * float(time))
        first = total(matrices).astype(np.float64) * {"sum": 1.0, "mean": 1 / experts, "zero": 0.0}[start]
        turned = product(pulled, vectors) * (shares / values) - product(first, vectors) * shares
        return add_to(first, turned, vectors.T)

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _swudi_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    return 6 * outputs * inputs + 7 * inputs * inputs


SWUDI = Method(
    name="swudi",
    formula=swudi_formula,
    summary="WUDI in closed form, with a filter on the spectrum of the inputs.",
    paper="SWUDI, arXiv 2606.07289",
    status="second-hand",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("time", 300.0, "How long the gradient flow runs: the filter's exponent.", low=0.0),
        Parameter(
            "rank_share", 0.65, "Leading share of the inputs that is filtered.", low=0.0, high=1.0, open_low=True
        ),
        Parameter("start", "sum", "Where the flow begins.", choices=("sum", "mean", "zero")),
        Parameter("floor", 1e-8, "Least eigenvalue that is divided by.", low=0.0, open_low=True),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_swudi_numbers),
    looks_at="inputs",
    bitwise=False,
    keeps_base=lambda values: False,
    notes=(
        "Read in code that names the paper, not in the paper. It recommends a rank_share of 0.85 for language models.",
        "The output head is averaged, as there.",
        "The paper's adaptive rank (ASWUDI) is not offered.",
        "Eigenvectors come from LAPACK, so the last bits depend on the machine's BLAS and its threads.",
    ),
)

METHODS = (WUDI, SWUDI)

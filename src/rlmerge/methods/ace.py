"""ACE: RegMean with input moments read off the changes, centred and levelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlmerge.kernels.matrix import add_to, cholesky, divide, gram, product, squares
from rlmerge.kernels.spectrum import singular

from .matrices import embeddings, others, per_matrix, workspace
from .method import Method, Needs, Parameter
from .parts import LAMBDA, WEIGHT


def ace_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    eps: Any,
    k_frac: Any,
    heterogeneous: Any,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·(Σ W_k Σ_k)(Σ Σ_k + 1·cᵀ)⁻¹ with W_k = τ_k minus its mean row, Σ_k = W_kᵀW_k + ε I and c the mean row of
    Σ W_kᵀW_k.

    Where the traces t_k of τ_kᵀτ_k are uneven, Var log t > ``heterogeneous``·(mean log t)², each Σ_k is divided by its
    trace, c by the mean of t, and the isotropic form of the leading ``k_frac`` of the spectrum of the solution plus
    Σ W_k (W_kᵀW_k / tr − mean Σ) is added.
    """
    plain = embeddings == "others" and kind == "embedding"

    def change(matrices: np.ndarray) -> np.ndarray:
        return _ace(matrices, float(eps), float(k_frac), float(heterogeneous))

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _ace(tau: np.ndarray, eps: float, k_frac: float, heterogeneous: float) -> np.ndarray:
    experts, outputs, inputs = tau.shape
    traces = np.array([squares(each) for each in tau])
    logs = np.log(traces + 1e-12)
    spread = np.var(logs, ddof=1) / (np.mean(logs) ** 2 + 1e-12) if experts > 1 else 0.0
    uneven = bool(spread > heterogeneous)
    summed, pulled, plain = np.zeros((inputs, inputs)), np.zeros((outputs, inputs)), np.zeros((inputs, inputs))
    centred = [each - np.mean(each, axis=0, dtype=np.float64) for each in tau]
    for each in centred:
        moment, trace = gram(each), squares(each) + 1e-12
        own = moment / trace if uneven else moment
        plain += own
        own[np.diag_indices(inputs)] += eps / trace if uneven else eps
        add_to(pulled, each, own)
        summed += own
    row = np.mean(plain, axis=0) / (np.mean(traces) + 1e-12 if uneven else 1.0)
    # The prior adds one row to every row: (Σ + 1·cᵀ)⁻¹ by Sherman and Morrison.
    lower = cholesky(summed, margin=None)
    both = divide(np.stack([np.ones(inputs), row]), lower)
    solved = divide(pulled, lower)
    column = product(pulled, both[:1].T)
    solved -= column * (both[1] / (1 + float(np.sum(row * both[0]))))
    return solved + _refinement(centred, summed / experts, solved, k_frac) if uneven else solved


def _refinement(centred: Sequence[np.ndarray], mean: np.ndarray, solved: np.ndarray, k_frac: float) -> np.ndarray:
    """σ̄·U_k V_kᵀ of the solution plus what each expert's own moments differ by from the mean ones."""
    fused = solved.copy()
    for each in centred:
        add_to(fused, each, gram(each) / (squares(each) + 1e-12) - mean)
    left, values, right = singular(fused, int(min(fused.shape) * k_frac))
    return product(left * np.mean(values), right) if len(values) else np.zeros(fused.shape)


def _ace_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    return (needs.experts + 8) * outputs * inputs + 6 * inputs * inputs + 4 * min(outputs, inputs) ** 2


ACE = Method(
    name="ace",
    formula=ace_formula,
    summary="Input moments read off the changes, levelled where experts are uneven, with a shared prior.",
    paper="ACE-Merging, arXiv 2603.02945",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("eps", 1e-2, "Added to the diagonal of each expert's moments.", low=0.0, open_low=True),
        Parameter("k_frac", 0.3, "Share of the spectrum that the refinement keeps.", low=0.0, high=1.0),
        Parameter("heterogeneous", 0.3, "Spread of the log traces above which experts count as uneven.", low=0.0),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_ace_numbers),
    looks_at="inputs",
    bitwise=False,
    keeps_base=lambda values: False,
    notes=(
        "As the authors' code has it, down to the mean row that it takes off every change and the prior that is added "
        "to every row of the matrix.",
        "eps is absolute: against RL-sized changes it outweighs the moments, and the merge is the average of the "
        "centred changes.",
    ),
)

METHODS = (ACE,)

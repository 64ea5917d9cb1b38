"""Changes weighed by the inputs they act on, where the inputs are read off the changes themselves.

A gradient step on a linear layer y = W x is a sum of outer products with its inputs, so the row space of a change τ
spans inputs the expert was trained on, and τᵀτ stands for their second moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlmerge.kernels.matrix import add_to, cholesky, divide, gram, product, squares
from rlmerge.kernels.spectrum import mixing, orthonormal, sketch

from .matrices import embeddings, others, per_matrix, total, weighted, workspace
from .method import Method, Needs, Parameter, Share, Stages, Statistic
from .parts import LAMBDA, WEIGHT

LOST = "energy of the changes beyond the rank"
"""What is reported of a truncated merge: Σ‖τ_k − τ_k V_k V_kᵀ‖² / Σ‖τ_k‖²."""


def covariance_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    rho: Any,
    rank: Any,
    others: str,
    embeddings: str,
    kind: str = "",
    gram: Any = None,
    field: Any = None,
) -> Any:
    """θ₀ + λ·(T + (Σ τ_k G_k − T S)(S + ρ I)⁻¹) with T = Σ τ_k and S = Σ G_k.

    G_k = τ_kᵀτ_k, of rank ``rank``, or the measured ``gram``, over the mean of its diagonal. This is task arithmetic
    minus what each expert's change does to the inputs that another's works on. ``field`` [1, n] is the change where it
    was computed row by row.
    """
    if field is not None:
        return xp.where(field[0] == 0, base, base + lam * field[0])
    plain = _takes_the_sum(kind, embeddings)

    def change(matrices: np.ndarray) -> Any:
        if np.isinf(rho):
            return total(matrices)
        if gram is not None:
            return with_moments(matrices, [_scaled(np.asarray(g)) for g in gram], float(rho))
        return without_interference(matrices, float(rho), int(rank))

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _takes_the_sum(kind: str, embeddings: str) -> bool:
    return embeddings == "others" and kind == "embedding"


def _is_streamed(values: Mapping[str, Any]) -> bool:
    """Whether a tensor is merged row by row: all but stacks of matrices, full ranks and measured inputs."""
    dimensions = len(values.get("shape", ())) or 3
    return dimensions < 3 and (dimensions < 2 or (int(values["rank"]) > 0 and not values.get("further")))


def _is_corrected(values: Mapping[str, Any]) -> bool:
    """Whether a tensor that is merged row by row is a matrix whose changes interfere."""
    shape = values.get("shape", ())
    return (
        _is_streamed(values)
        and len(shape) == 2
        and min(shape) > 1
        and not _takes_the_sum(values.get("kind", ""), values["embeddings"])
        and not np.isinf(values["rho"])
    )


def _width(values: Mapping[str, Any]) -> int:
    return min(int(values["rank"]), *values["shape"])


def _first(xp: Any, base: Any, tau: Any, *, rank: Any, shape: Any, row: Any) -> np.ndarray:
    """τ_kᵀΩ [K, in, r] of some rows, Ω as for ``sketch``."""
    width = min(int(rank), *shape)
    mixed = mixing(shape[0], width, int(row), tau.shape[1])
    return _stacked(tau, [mixed] * len(tau))


def _second(xp: Any, base: Any, tau: Any, *, first: Any) -> np.ndarray:
    """τ_kᵀτ_k V_k [K, in, r] of some rows, for the basis V_k from the pass before."""
    return _stacked(tau, (product(each, basis) for each, basis in zip(tau, first, strict=True)))


def _stacked(tau: np.ndarray, rows: Iterable[np.ndarray]) -> np.ndarray:
    """τ_kᵀY_k [K, in, r] for Y_k = ``rows`` [rows, r]."""
    found: np.ndarray | None = None
    for k, (each, mixed) in enumerate(zip(tau, rows, strict=True)):
        if found is None:
            found = np.zeros((len(tau), tau.shape[2], mixed.shape[1]))
        add_to(found[k], each.T, mixed)
    assert found is not None, "a merge has experts"
    return found


def _third(xp: Any, base: Any, tau: Any, *, second: Any) -> np.ndarray:
    """V_kᵀτ_kᵀτ_k V_k [K, r, r] of some rows, and below it in the first place ‖τ_k‖²."""
    found = np.zeros((len(tau), second.shape[2] + 1, second.shape[2]))
    for k, (each, basis) in enumerate(zip(tau, second, strict=True)):
        found[k, :-1] = gram(product(each, basis))
        found[k, -1, 0] = squares(each)
    return found


def _bases(sums: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    """Orthonormal bases of the columns of K matrices [in, r], in as many columns; those beyond its rank are 0."""
    found = np.zeros(sums.shape)
    for k, each in enumerate(sums):
        basis = orthonormal(each)
        found[k, :, : basis.shape[1]] = basis
    return found


def _statistics(experts: int, **_: Any) -> Stages:
    def nothing(values: Mapping[str, Any]) -> np.ndarray | None:
        return None if _is_corrected(values) else np.zeros((1, 1, 1))

    def bases(needs: Needs) -> int:
        return needs.experts * needs.shape[-1] * _width(needs.values) if _is_corrected(needs.values) else 0

    def moments(needs: Needs) -> int:
        return needs.experts * (_width(needs.values) + 1) ** 2 if _is_corrected(needs.values) else 0

    def statistic(name: str, formula: Any, finish: Any, numbers: Any) -> tuple[Statistic]:
        return (Statistic(name, formula, "matrix", skip=nothing, finish=finish, numbers=numbers),)

    return (
        statistic("first", _first, _bases, bases),
        statistic("second", _second, _bases, bases),
        statistic("third", _third, lambda sums, values: sums, moments),
    )


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    """``factors`` [2, K, in, r]: F_k with G_k = F_k F_kᵀ, and the columns of (FᵀF + ρ I)⁻¹ Fᵀ that belong to it."""
    if not _is_corrected(values):
        return {"factors": None}
    bases, moments = np.asarray(values["second"]), np.asarray(values["third"])
    inputs = bases.shape[1]
    factors = np.zeros(bases.shape)
    for k, (basis, moment) in enumerate(zip(bases, moments, strict=True)):
        if moment[-1, 0] > 0:
            factors[k] = product(basis, cholesky(moment[:-1] * (inputs / moment[-1, 0]), margin=None))
    beside = np.concatenate(list(factors), axis=1)
    matrix = gram(beside)
    matrix[np.diag_indices(len(matrix))] += float(values["rho"])
    solved = divide(beside, cholesky(matrix, margin=None))
    return {"factors": np.stack([factors, np.stack(np.split(solved, len(factors), axis=1))])}


def _change(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    factors: Any,
    others: str,
    embeddings: str,
    kind: str = "",
    shape: Any = (),
) -> np.ndarray:
    """The change of some rows [1, rows, in]: T + Σ (w_k τ_k − T) F_k R_kᵀ, or T or T / K of what is no matrix."""
    tau = weighted(tau, weight)
    summed = total(tau)
    if factors is None:
        plain = _takes_the_sum(kind, embeddings) or len(shape) < 2 or min(shape) < 2
        return (summed / np.asarray(len(tau), tau.dtype) if plain and others == "average" else summed)[None]
    found = summed.astype(np.float64)
    for each, factor, solved in zip(tau, *factors, strict=True):
        add_to(found, product(each - summed, factor), solved.T)
    return found[None]


def _report(values: Mapping[str, Any]) -> Mapping[str, Share]:
    if not _is_corrected(values) or _width(values) == min(values["shape"]):
        return {}
    moments = np.asarray(values["third"])
    size = float(moments[:, -1, 0].sum())
    held = float(np.trace(moments[:, :-1], axis1=1, axis2=2).sum())
    return {LOST: Share(max(0.0, size - held), size)}


def without_interference(tau: np.ndarray, rho: float, rank: int) -> Any:
    """The change [out, in] of ``covariance`` from ``tau`` [K, out, in], and the energy beyond the rank.

    With G_k = F_k F_kᵀ and F = [F_1 … F_K] of q columns, (Σ τ_k G_k − T S)(S + ρ I)⁻¹ is
    [(τ_k − T) F_k]_k (FᵀF + ρ I)⁻¹ Fᵀ: only q × q is solved.
    """
    experts, outputs, inputs = tau.shape
    summed = total(tau)
    size = [squares(each) for each in tau]
    scale = [inputs / s if s > 0 else 0.0 for s in size]
    if _is_full(rank, outputs, inputs):
        if experts * outputs > inputs:
            return with_moments(tau, [gram(each) * c for each, c in zip(tau, scale, strict=True)], rho, summed)
        factors = [each.T * np.sqrt(c) for each, c in zip(tau, scale, strict=True)]
        acted = [product(each - summed, factor) for each, factor in zip(tau, factors, strict=True)]
        return _push_through(summed, acted, factors, rho)
    factors: list[np.ndarray] = []
    acted: list[np.ndarray] = []
    held = 0.0
    for each, c in zip(tau, scale, strict=True):
        basis = sketch(each, rank)
        images = product(each, basis)
        held += squares(images)
        factor = product(basis, cholesky(gram(images) * c, margin=None))
        factors.append(factor)
        acted.append(product(each - summed, factor))
    lost = Share(max(0.0, sum(size) - held), sum(size))
    return _push_through(summed, acted, factors, rho), {LOST: lost}


def with_moments(
    tau: np.ndarray, moments: Sequence[np.ndarray], rho: float, summed: np.ndarray | None = None
) -> np.ndarray:
    """T + (Σ τ_k G_k − T S)(S + ρ I)⁻¹ for G_k = ``moments`` [in, in]."""
    summed = total(tau) if summed is None else summed
    gap = np.zeros(summed.shape)
    matrix = np.zeros((summed.shape[1], summed.shape[1]))
    for each, moment in zip(tau, moments, strict=True):
        add_to(gap, each - summed, moment)
        matrix += moment
    matrix[np.diag_indices(len(matrix))] += rho
    gap = divide(gap, cholesky(matrix, margin=None))
    gap += summed
    return gap


def _push_through(
    summed: np.ndarray, acted: Sequence[np.ndarray], factors: Sequence[np.ndarray], rho: float
) -> np.ndarray:
    factor = np.concatenate(factors, axis=1)
    matrix = gram(factor)
    matrix[np.diag_indices(len(matrix))] += rho
    left = divide(np.concatenate(acted, axis=1), cholesky(matrix, margin=None))
    return add_to(summed.astype(np.float64), left, factor.T)


def _scaled(moment: np.ndarray) -> np.ndarray:
    """A matrix of second moments over the mean of its diagonal."""
    mean = float(np.mean(np.diagonal(moment), dtype=np.float64))
    return np.asarray(moment, np.float64) / mean if mean > 0 else np.zeros(moment.shape)


def _is_full(rank: int, outputs: int, inputs: int) -> bool:
    return rank == 0 or rank >= min(outputs, inputs)


def _covariance_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    rank, experts = int(needs.values["rank"]), needs.experts
    both, sizes = outputs * inputs, outputs + inputs
    if sum(needs.further) or (_is_full(rank, outputs, inputs) and experts * outputs > inputs):
        own = sum(needs.further) or experts * inputs * inputs
        return own + 3 * inputs * inputs + 5 * both
    inner = experts * (outputs if _is_full(rank, outputs, inputs) else rank)
    return 3 * both + 4 * sizes * inner + 3 * inner * inner


COVARIANCE = Method(
    name="covariance",
    formula=covariance_formula,
    summary="Add up changes, minus what each does to the inputs that another expert's change works on.",
    paper="This program; closest relatives ACTMat, arXiv 2604.01329, and RegMean, arXiv 2212.09849",
    status="own",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("rho", 1.0, "Ridge; .inf is task arithmetic.", low=0.0, open_low=True),
        Parameter("rank", 64.0, "Rank of each expert's inputs; 0 keeps all of them.", low=0.0),
        others("sum"),
        embeddings("others"),
    ),
    inputs=("gram",),
    statistics=_statistics,
    derive=_derive,
    rows_field=_change,
    row_wise=True,
    whole=lambda values: not _is_streamed(values),
    workspace=workspace(_covariance_numbers),
    report=_report,
    looks_at="inputs",
    keeps_base=lambda values: False,
    notes=(
        "rho towards infinity is task arithmetic, bit for bit at .inf; rho towards 0 with equally large changes is "
        "ACTMat. WUDI and ACE-Merging minimise and solve for much the same. RegMean has measured inputs.",
        "Each expert's τᵀτ is divided by the mean of its diagonal, so an expert whose weight is doubled acts twice, "
        "but its inputs count as much as before. An expert alone is returned as it is at lambda 1.",
        "Changes themselves are never truncated: rank limits what is subtracted. The merge reports what energy of the "
        "changes is beyond the rank, over the model and by tensor.",
        "Read three times for the rank, in groups of rows, and once more to merge: memory goes with the rank. Stacks "
        "of matrices, rank 0 and measured inputs take a tensor whole.",
        "`gram: DIR` beside every model, made by `rlmerge sensitivity --gram`, puts measured inputs in place of the "
        "estimate, for tensors that have them.",
        "Coordinates that no expert changed move too, where their row changed.",
        "In the laboratory's tasks in words (vocabulary of 2,048, 0.3 M parameters, five seeds) it keeps 86 % of the "
        "gain of RL experts as it is, where tuned task arithmetic keeps 75 %, and most of that comes from layers "
        "beyond the first. ACTMat, SWUDI and ACE, tuned, keep as much there (docs/lab-report/words). On the shipped "
        "experts, whose vocabulary has 32 characters, it keeps 88 % and task arithmetic 76 % (bench/calibrate.py), "
        "nearly all by layer 0.",
    ),
)


def actmat_formula(
    xp: Any,
    base: Any,
    tau: Any,
    *,
    weight: Any,
    lam: Any,
    ridge: Any,
    max_width: Any,
    others: str,
    embeddings: str,
    kind: str = "",
) -> Any:
    """θ₀ + λ·(Σ τ_k C_k)(Σ C_k)⁻¹ with C_k = τ_kᵀτ_k; matrices with more inputs than ``max_width`` are averaged."""
    plain = embeddings == "others" and kind == "embedding"

    def change(matrices: np.ndarray) -> np.ndarray:
        experts, outputs, inputs = matrices.shape
        if inputs > max_width:
            return total(matrices) / experts
        size = sum(squares(each) for each in matrices)
        if size == 0:
            return np.zeros((outputs, inputs))
        unit = matrices * np.asarray(np.sqrt(inputs / size), matrices.dtype)
        nothing = np.zeros((outputs, inputs), matrices.dtype)
        if experts * outputs > inputs:
            solved = _pulled(matrices, [gram(each) for each in unit], float(ridge))
        else:
            factors = [each.T for each in unit]
            acted = [product(each, factor) for each, factor in zip(matrices, factors, strict=True)]
            solved = _push_through(nothing, acted, factors, float(ridge))
        return solved

    return per_matrix(xp, base, tau, change, weight=weight, lam=lam, others=others, plain=plain)


def _pulled(tau: np.ndarray, moments: Sequence[np.ndarray], ridge: float) -> np.ndarray:
    """(Σ τ_k G_k)(Σ G_k + ridge I)⁻¹."""
    found, matrix = np.zeros(tau.shape[1:]), np.zeros(moments[0].shape)
    for each, moment in zip(tau, moments, strict=True):
        add_to(found, each, moment)
        matrix += moment
    matrix[np.diag_indices(len(matrix))] += ridge
    return divide(found, cholesky(matrix, margin=None))


def _actmat_numbers(needs: Needs, outputs: int, inputs: int) -> int:
    both = outputs * inputs
    if inputs > float(needs.values["max_width"]):
        return both
    copies = needs.experts * both
    if needs.experts * outputs > inputs:
        return copies + 4 * both + (needs.experts + 3) * inputs * inputs
    inner = needs.experts * outputs
    return copies + 3 * both + 4 * (outputs + inputs) * inner + 3 * inner * inner


ACTMAT = Method(
    name="actmat",
    formula=actmat_formula,
    summary="RegMean with each layer's inputs read off the experts' own changes.",
    paper="Model Merging via Data-Free Covariance Estimation (ACTMat), arXiv 2604.01329",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("ridge", 1e-6, "Ridge, over the mean of the diagonal.", low=0.0, open_low=True),
        Parameter("max_width", 20000.0, "Matrices with more inputs are averaged.", low=0.0),
        others("average"),
        embeddings("merge"),
    ),
    whole=True,
    workspace=workspace(_actmat_numbers),
    looks_at="inputs",
    keeps_base=lambda values: False,
    notes=(
        "The authors' code takes the pseudo-inverse; the ridge stands in for its cut-off.",
        "An expert with a change twice as large has four times the inputs; covariance levels that.",
    ),
)

METHODS = (COVARIANCE, ACTMAT)

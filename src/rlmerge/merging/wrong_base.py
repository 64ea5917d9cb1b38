"""Is each expert of this base at all? A sample of the matrices tells before anything is merged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlmerge.checkpoint import Source
from rlmerge.kernels.dtypes import decode

from .job import Job
from .plan import Plan

MATRICES = 8
ENTRIES = 1 << 17
"""Entries read of each of at most ``MATRICES`` matrices and model."""

FEWEST = 1 << 12
"""Sampled entries below which nothing can be said."""

SAME_DIRECTION = 0.875
"""Cosine between weights from which a model is taken for a fine-tune. At equal norms it means that ‖τ‖ is half of
‖θ₀‖: long supervised training stays above 0.99, models trained apart have 0."""

SAME_BITS = 0.01
"""Share of equal entries from which it is taken for a fine-tune in any case."""


def check_base(plan: Plan) -> list[str]:
    """A warning for each expert that shares almost no values and no direction with the base; none without a base.

    Vectors are left out: the scales of normalisation layers are close to 1 in all models.
    """
    chosen = _chosen(plan)
    if sum(min(ENTRIES, t.output.numel) for t in chosen) < FEWEST:
        return []
    _ask_for(chosen)
    cosines: list[list[float]] = [[] for _ in plan.experts]
    equal = np.zeros(len(plan.experts))
    seen = 0
    for tensor in chosen:
        assert tensor.base is not None
        base = _sample(tensor.base)
        seen += len(base)
        for k, info in enumerate(tensor.experts):
            expert = _sample(info)
            equal[k] += np.count_nonzero(expert == base)
            cosine = _cosine(base, expert)
            if cosine is not None:
                cosines[k].append(cosine)
    return [
        _warning(plan, k, float(share), float(np.median(found)))
        for k, (share, found) in enumerate(zip(equal / seen, cosines, strict=True))
        if found and share < SAME_BITS and np.median(found) < SAME_DIRECTION
    ]


def ask_for_samples(plan: Plan) -> None:
    """Ask for what ``check_base`` will read."""
    _ask_for(_chosen(plan))


def _ask_for(chosen: Sequence[Job]) -> None:
    for tensor in chosen:
        for info in (tensor.base, *tensor.experts):
            if info is not None:
                info.prefetch(*_sampled(info))


def _chosen(plan: Plan) -> list[Job]:
    """The matrices that are sampled, in an order that does not change."""
    matrices = [t for t in plan.merged if t.base is not None and _is_matrix(t)]
    return [matrices[i] for i in sorted({i * len(matrices) // MATRICES for i in range(MATRICES)})] if matrices else []


def _is_matrix(tensor: Job) -> bool:
    return len(tensor.output.shape) > 1 and tensor.output.numel > 0


def _sample(info: Source) -> np.ndarray:
    """The sampled entries of a tensor, in float64."""
    start, stop = _sampled(info)
    values = decode(info.read(start, stop), info.dtype).astype(np.float64)
    info.release(start, stop)
    return values


def _sampled(info: Source) -> tuple[int, int]:
    """Consecutive entries in the middle of a tensor."""
    count = min(ENTRIES, info.numel)
    start = (info.numel - count) // 2
    return start, start + count


def _cosine(x: np.ndarray, y: np.ndarray) -> float | None:
    """None where it is undefined: a vector of zeros, or values that are not finite."""
    with np.errstate(all="ignore"):
        dot = "i,i->"  # not BLAS, whose threads cost more than the sums
        norm = np.sqrt(np.einsum(dot, x, x) * np.einsum(dot, y, y))
        cosine = float(np.einsum(dot, x, y) / norm) if norm > 0 else np.nan
    return cosine if np.isfinite(cosine) else None


def _warning(plan: Plan, k: int, share: float, cosine: float) -> str:
    assert plan.base is not None
    return (
        f"{plan.experts[k].reference} does not look trained from {plan.base.reference}: {share:.1%} of the sampled "
        f"weights are equal, and their cosine is {cosine:.2f}. Check base_model; task vectors against another base "
        "are noise"
    )

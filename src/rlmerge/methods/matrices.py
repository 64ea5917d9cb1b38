"""What methods on whole matrices share: which tensors are matrices, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .linear import task_arithmetic_formula
from .method import Needs, Parameter, Reported, Share

Change = Callable[..., Any]


def others(default: str) -> Parameter:
    """The ``others`` choice."""
    return Parameter(
        "others", default, "What the changes of tensors that are no matrix become.", choices=("average", "sum")
    )


def embeddings(default: str) -> Parameter:
    """The ``embeddings`` choice."""
    return Parameter(
        "embeddings",
        default,
        "Embeddings merge as matrices, or as the other tensors do.",
        choices=("merge", "others"),
    )


def per_matrix(
    xp: Any,
    base: Any,
    tau: Any,
    change: Change,
    *,
    weight: Any,
    lam: Any,
    others: str,
    plain: bool = False,
) -> Any:
    """θ₀ + λ·change(w_k τ_k) with ``change`` of the K matrices [K, out, in] in float64, or (change, report).

    A tensor of more dimensions is a stack of matrices, as fused experts are; each is merged by itself. Vectors, rows,
    columns and what is ``plain`` take the sum of the weighted changes, or their average. Entries that ``change`` leaves
    at 0 keep the base's bits.
    """
    if plain or tau.ndim < 3 or min(tau.shape[-2:]) < 2:
        weight = np.asarray(weight, tau.dtype)
        share = lam if others == "sum" else lam / len(tau)
        return task_arithmetic_formula(xp, base, tau, weight=weight, lam=tau.dtype.type(share), normalize=False)
    tau = weighted(tau, weight)
    moved = np.empty(tau.shape[1:], tau.dtype)
    parts: list[Mapping[str, Share]] = []
    for place in np.ndindex(tau.shape[1:-2]):
        found = change(tau[(slice(None), *place)])
        found, report = found if isinstance(found, tuple) else (found, {})
        moved[place] = found
        parts.append(report)
    moved *= tau.dtype.type(lam)
    return Reported(np.where(moved == 0, base, base + moved), added_up(parts))


def weighted(tau: np.ndarray, weight: Any) -> np.ndarray:
    """w_k τ_k; the task vectors themselves where every weight is 1."""
    return tau if np.all(np.asarray(weight) == 1) else np.asarray(weight, tau.dtype) * tau


def total(tau: np.ndarray) -> np.ndarray:
    """Σ τ_k in the arithmetic's own type, first to last, as task arithmetic adds."""
    found = tau[0] + tau[1] if len(tau) > 1 else tau[0].copy()
    for each in tau[2:]:
        found += each
    return found


def added_up(parts: Sequence[Mapping[str, Share]]) -> dict[str, Share]:
    """The shares of all matrices of a stack."""
    labels = dict.fromkeys(label for part in parts for label in part)
    return {label: Share(sum(p[label].part for p in parts), sum(p[label].whole for p in parts)) for label in labels}


def sides(needs: Needs) -> tuple[int, int] | None:
    """(out, in) of the matrices of a tensor; None where it is none."""
    return needs.shape[-2:] if len(needs.shape) > 1 and min(needs.shape[-2:]) > 1 else None  # type: ignore[return-value]


def workspace(matrix: Callable[[Needs, int, int], int]) -> Callable[[Needs], int]:
    """Memory of a method on matrices: ``matrix(needs, out, in)`` float64 numbers for one of them, and its results."""

    def found(needs: Needs) -> int:
        size = sides(needs)
        # Weighted changes, what is added, the merged tensor and its mask; a product reads its factors in panels.
        plain = needs.numel * (needs.itemsize * (needs.experts + 3) + 1)
        return plain if size is None else plain + 8 * (matrix(needs, *size) + 256 * sum(size))

    return found

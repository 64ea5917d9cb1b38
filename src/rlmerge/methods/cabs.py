"""CABS: Yang et al., 2025, arXiv 2503.01874: prune one expert after the other, in blocks, where no other has pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Method, Parameter
from .parts import LAMBDA, WEIGHT, weighted_sum


def cabs_formula(xp: Any, base: Any, tau: Any, *, field: Any, weight: Any, lam: Any) -> Any:
    """θ* = θ₀ + λ Σ w_k τ̂_k, where τ̂_k keeps the n largest of every m coordinates that no expert before it kept."""
    return base + lam * weighted_sum(xp, field * tau, weight, False)


def kept(xp: Any, base: Any, tau: Any, *, n: Any, m: Any) -> np.ndarray:
    """1 where an expert keeps a coordinate [K, rows, columns]: the first of equal magnitudes, and never a 0."""
    experts, rows, columns = tau.shape
    most, width = int(n), int(m)
    blocks = -(-columns // width)
    # A block that the end of a row cuts short keeps the same share of what it has.
    last = columns - (blocks - 1) * width
    quota = np.full(blocks, most)
    quota[-1] = -(-most * last // width)
    width = min(width, columns)
    free = np.ones((rows, blocks * width), bool)
    free[:, columns:] = False
    found = np.zeros((experts, rows, columns), tau.dtype)
    for k in range(experts):
        size = np.zeros(free.shape, tau.dtype)
        size[:, :columns] = np.abs(tau[k])
        size[~free] = 0
        grouped = size.reshape(rows, blocks, width)
        order = np.argsort(-grouped, axis=-1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(width), order.shape), axis=-1)
        mask = ((rank < quota[:, None]) & (grouped > 0)).reshape(rows, -1)
        free &= ~mask
        found[k] = mask[:, :columns]
    return found


def _check(values: Mapping[str, Any]) -> list[str]:
    n, m = float(values["n"]), float(values["m"])
    if n != int(n) or m != int(m) or n > m:
        return [f"n and m are whole numbers with n at most m, not {n:g} and {m:g}"]
    return []


CABS = Method(
    name="cabs",
    formula=cabs_formula,
    summary="Keep the largest changes of every block, each expert only where those before it kept nothing.",
    paper="CABS, arXiv 2503.01874",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("n", 64.0, "Changes kept of every block.", low=0.0),
        Parameter("m", 256.0, "Coordinates of a block.", low=1.0),
    ),
    rows_field=kept,
    check=_check,
    looks_at="coordinates",
    notes=(
        "The order of the experts matters: the first chooses first.",
        "Blocks follow a row. The authors' code runs them over the flattened tensor, which is the same where m divides "
        "the columns, and drops what is left over at its end; here a short block keeps the same share of itself.",
        "Our default of 64 in 256 keeps a quarter; the authors choose weights and sparsity per merge.",
    ),
)

METHODS = (CABS,)

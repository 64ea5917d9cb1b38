"""DELLA: Deep, Bhardwaj & Poria, 2024, arXiv 2406.11617, §3.1: drop at random, small changes more often than large.

MagPrune ranks the magnitudes of each row and spreads the probabilities of keeping them evenly over density ± ε.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlmerge.kernels.ranks import spread_by_rank
from rlmerge.kernels.values import Spread

from .dare import RESCALE, drop
from .method import Method, Parameter, Stages, Statistic
from .parts import (
    LAMBDA,
    WEIGHT,
    density,
    elected_sum,
    l1_scale,
    normalize,
    norms,
    weighted_sum,
    weights_do_not_cancel,
)


def mean_ranks(size: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Rank of every counted entry within its row as a share, 0 for the smallest and 1 for the largest; else ½.

    ``size`` [rows, columns] holds non-negative floats. Equal entries share the mean of their ranks, so that which of
    them stay is left to chance alone; a row with one counted entry, or with equal ones only, gives ½.
    """
    flat = np.flatnonzero(counted)
    share = np.full(size.size, 0.5)
    if not len(flat):
        return share.reshape(size.shape)
    flat, starts = _ascending(size, flat)
    row = flat[starts] // size.shape[1]
    lengths = np.diff(starts, append=len(flat))
    entries = np.bincount(row, lengths, len(size))
    before = np.cumsum(entries) - entries
    rank = starts - before[row] + (lengths - 1) / 2
    last = entries[row] - 1
    share[flat] = np.repeat(np.where(last > 0, rank / np.maximum(last, 1), 0.5), lengths)
    return share.reshape(size.shape)


def _ascending(size: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat indices by row and magnitude, and where in that order a run of equal magnitudes starts."""
    rows, columns = size.shape
    position = max(1, (size.size - 1).bit_length())
    if size.dtype == np.float32 and (rows - 1).bit_length() + 31 + position <= 64:
        # Row, magnitude and index in one integer: sorting integers is several times faster than sorting by two keys.
        word = size.reshape(-1).view(np.uint32)[flat].astype(np.uint64) | (flat // columns).astype(np.uint64) << 31
        key = np.sort(word << position | flat.astype(np.uint64))
        flat, word = (key & ((1 << position) - 1)).astype(np.int64), key >> position
        return flat, np.flatnonzero(np.r_[True, word[1:] != word[:-1]])
    value, row = size.reshape(-1)[flat], flat // columns
    order = np.lexsort((value, row))
    value, row = value[order], row[order]
    return flat[order], np.flatnonzero(np.r_[True, (value[1:] != value[:-1]) | (row[1:] != row[:-1])])


def keep_probability(xp: Any, base: Any, tau: Any, *, density: Any, epsilon: Any, rank_nonzero: bool) -> np.ndarray:
    """Probability [K, rows, columns] of keeping each entry: density − ε for a row's smallest to density + ε."""
    found = np.empty(tau.shape, tau.dtype)
    wanted = spreads(density=density[:, 0, 0], epsilon=epsilon[:, 0, 0], rank_nonzero=rank_nonzero)
    for k, (delta, spread) in enumerate(zip(tau, wanted, strict=True)):
        if spread.half == 0:
            found[k] = spread.middle
            continue
        if delta.dtype == np.float32:
            rows = np.ascontiguousarray(delta)
            if spread_by_rank(rows, *spread, found[k]) is not None:
                continue
        size = np.abs(delta)
        rank = mean_ranks(size, np.ones(size.shape, bool) if spread.ranked_zeros else size > 0)
        found[k] = spread.middle + spread.half * (2 * rank - 1)
    return found


def spreads(*, density: Any, epsilon: Any, rank_nonzero: bool) -> list[Spread]:
    """The same probabilities by rank, an expert each; a density of 0 or 1 leaves nothing to spread."""
    pairs = zip(np.asarray(density, np.float64), np.asarray(epsilon, np.float64), strict=True)
    return [Spread(float(share), float(spread) if 0 < share < 1 else 0.0, not rank_nonzero) for share, spread in pairs]


def della_formula(
    xp: Any, base: Any, tau: Any, *, uniform: Any, field: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """θ* = θ₀ + λ · mean of τ̂ that agree with the elected sign, with τ̂ kept with probability p and rescaled."""
    return base + lam * elected_sum(xp, drop(xp, tau, uniform, field, _factor(field, scale)), weight, normalize)


def della_linear_formula(
    xp: Any, base: Any, tau: Any, *, uniform: Any, field: Any, scale: Any, weight: Any, lam: Any, normalize: bool
) -> Any:
    """θ* = θ₀ + λ Σ w_k τ̂_k with the same τ̂."""
    return base + lam * weighted_sum(xp, drop(xp, tau, uniform, field, _factor(field, scale)), weight, normalize)


def _factor(keep: Any, scale: Any) -> Any:
    """What kept entries are multiplied by; "inverse" is one over their own probability."""
    return 1 / keep if isinstance(scale, str) else scale


def _norms(xp: Any, base: Any, tau: Any, *, uniform: Any, field: Any) -> Any:
    return norms(xp, tau, xp.where(uniform < field, tau, 0.0))


def _statistics(experts: int, *, rescale: str, **_: Any) -> Stages:
    uses = ("density", "epsilon", "rank_nonzero")
    return ((Statistic("norms", _norms, "sum", uses=uses),),) if rescale == "l1" else ()


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    return {"scale": "inverse"} if values["rescale"] == "inverse" else l1_scale(values)


def _window(values: Mapping[str, Any]) -> list[str]:
    share, spread = np.asarray(values["density"]), np.asarray(values["epsilon"])
    wrong = (share > 0) & (share < 1) & ((share - spread < 0) | (share + spread > 1))
    if not np.any(wrong):
        return []
    k = int(np.argmax(wrong))
    limit = min(share[k], 1 - share[k])
    return [
        f"probabilities from density - epsilon to density + epsilon must lie in [0, 1]: with density {share[k]:g}, "
        f"epsilon can be at most {limit:.3g}, not {spread[k]:g}"
    ]


DELLA = Method(
    name="della",
    formula=della_formula,
    summary="Drop changes at random, small ones more often; average those that agree with the elected sign.",
    paper="DELLA-Merging, arXiv 2406.11617",
    status="second-hand",
    looks_at="signs",
    parameters=(
        WEIGHT,
        density("Mean probability that an entry is kept."),
        Parameter("epsilon", 0.15, "Half the spread of these probabilities within a row.", per="expert", low=0.0),
        LAMBDA,
        normalize(True),
        RESCALE,
        Parameter("rank_nonzero", True, "Rank the changed entries of a row only, not its zeros."),
    ),
    statistics=_statistics,
    derive=_derive,
    rows_field=keep_probability,
    spreads=spreads,
    check=_window,
    notes=(
        "rescale: inverse divides each kept entry by its own probability, as in the paper; mergekit restores the L1 "
        "norm of the tensor and ranks zeros too: compat: mergekit sets rescale l1 and rank_nonzero false.",
        "Equal magnitudes share the mean of their ranks; the only entry of a row has the density as its probability.",
        "At density 0 or 1 epsilon has no effect.",
    ),
    compat={"rescale": "l1", "rank_nonzero": False},
)

DELLA_LINEAR = Method(
    name="della_linear",
    formula=della_linear_formula,
    summary="Drop changes at random, small ones more often; rescale the rest and add them up.",
    paper=DELLA.paper,
    status="second-hand",
    parameters=tuple(normalize(False) if p.name == "normalize" else p for p in DELLA.parameters),
    statistics=_statistics,
    derive=_derive,
    rows_field=keep_probability,
    spreads=spreads,
    check=lambda values: [*_window(values), *weights_do_not_cancel(values)],
    notes=DELLA.notes,
    compat=DELLA.compat,
)

METHODS = (DELLA, DELLA_LINEAR)

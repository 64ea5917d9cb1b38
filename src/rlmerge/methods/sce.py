"""SCE: Wan et al., 2024, FuseChat, arXiv 2408.07990, §3.3: select, calculate, erase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Method, Parameter, Stages, Statistic
from .parts import elect_sign, elected_sum


def variance(xp: Any, base: Any, tau: Any) -> Any:
    """Variance over experts times K², per coordinate: Σ (τ_i − τ_j)² over the pairs.

    Exactly 0 where all changes are equal, and exact for changes of a few bfloat16 steps, so that coordinates which
    differ equally tie instead of being split by rounding.
    """
    total = tau[0] * 0.0
    for i in range(len(tau)):
        for j in range(i):
            away = tau[i] - tau[j]
            total = total + away * away
    return total


def select(xp: Any, tau: Any, threshold: Any) -> Any:
    """Task vectors at the coordinates where the experts differ most, 0 elsewhere."""
    return xp.where(variance(xp, None, tau) >= threshold[0], tau, 0.0)


def sce_formula(xp: Any, base: Any, tau: Any, *, threshold: Any, share: Any, floor: Any) -> Any:
    """θ* = θ₀ + Σ w_k τ̂_k / Σ w_k over the experts whose selected change has the majority's sign."""
    selected = select(xp, tau, threshold)
    sign = elect_sign(xp, selected)
    mass = xp.sum(xp.where(selected * sign > 0, share, 0.0))
    total = elected_sum(xp, selected, share, normalize=False, sign=sign)
    return base + total / xp.maximum(xp.where(mass == 0, 1.0, mass), floor)


def _energy(xp: Any, base: Any, tau: Any, *, threshold: Any) -> Any:
    selected = select(xp, tau, threshold)
    return selected * selected


def _rank(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    """The top share of the coordinates where experts differ at all; where they differ nowhere, all or none."""
    share = float(values["select_topk"])
    if share == 0:
        return np.zeros(1, np.int64)
    if values["undecided"] == "none":
        return np.floor(share * nonzero).astype(np.int64)
    return np.where(nonzero > 0, np.maximum(1, np.floor(share * nonzero)), numel + 1).astype(np.int64)


def _select_all(values: Mapping[str, Any]) -> np.ndarray | None:
    return np.zeros(1) if float(values["select_topk"]) >= 1 else None


def _statistics(experts: int, **_: Any) -> Stages:
    threshold = Statistic("threshold", variance, "kth", rank=_rank, skip=_select_all, uses=("select_topk", "undecided"))
    return ((threshold,), (Statistic("energy", _energy, "sum"),))


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    energy = np.asarray(values["energy"], np.float64)
    total = energy.sum()
    if total == 0 or total / float(values["numel"]) < float(values["floor"]):
        return {"share": np.full(energy.shape, 1 / len(energy))}
    return {"share": energy / total}


SCE = Method(
    name="sce",
    formula=sce_formula,
    summary="Select where experts differ most, weigh them by squared change, erase minority signs.",
    paper="FuseChat, arXiv 2408.07990",
    status="second-hand",
    looks_at="signs",
    parameters=(
        Parameter("select_topk", 1.0, "Share of the coordinates on which experts differ.", low=0.0, high=1.0),
        Parameter(
            "undecided",
            "all",
            "What a select_topk below 1 selects where experts differ nowhere.",
            choices=("all", "none"),
        ),
        Parameter("floor", 0.0, "Weigh experts equally where the mean squared change is below this.", low=0.0),
    ),
    statistics=_statistics,
    derive=_derive,
    notes=(
        "mergekit weighs experts equally where the mean squares of the changes add up to less than 1e-6, as RL-sized "
        "changes always do; compat: mergekit sets floor to 1e-6.",
        "Where all experts agree on every coordinate of a tensor, or there is one expert, all of it is selected; "
        "mergekit selects nothing, and keeps no coordinate where the share of those that differ is below one. compat: "
        "mergekit sets undecided to none.",
        "Equal variances at the threshold are all selected.",
    ),
    compat={"floor": 1e-6, "undecided": "none"},
)

METHODS = (SCE,)

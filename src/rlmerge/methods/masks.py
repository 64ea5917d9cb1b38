"""Task arithmetic behind masks: what several experts count on, and what one of them needs of the sum.

Consensus and TALL masks: Wang et al., 2024, arXiv 2405.07813. EMR-Merging: Huang et al., 2024, arXiv 2405.17461.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .method import Method, Parameter, Share, Stages, Statistic
from .parts import LAMBDA, WEIGHT


def consensus_formula(xp: Any, base: Any, tau: Any, *, weight: Any, lam: Any, mask_lambda: Any, agreeing: Any) -> Any:
    """θ* = θ₀ + λ·T where at least ``agreeing`` experts count on the coordinate, |τ_k| > mask_lambda_k·|T − τ_k|.

    T = Σ w_k τ_k.
    """
    total = xp.sum(weight * tau)
    counted = xp.count([xp.abs(tau[k]) > mask_lambda[k] * xp.abs(total - tau[k]) for k in range(len(tau))])
    return base + lam * xp.where(counted >= agreeing, total, 0.0)


CONSENSUS_TA = Method(
    name="consensus_ta",
    formula=consensus_formula,
    summary="Task arithmetic on the coordinates that several experts count on.",
    paper="Localizing Task Information (Consensus TA), arXiv 2405.07813",
    status="exact",
    parameters=(
        WEIGHT,
        LAMBDA,
        Parameter("mask_lambda", 0.4, "How much of the others' change an expert's must exceed.", per="expert", low=0.0),
        Parameter("agreeing", 2.0, "How many experts must count on a coordinate; 0 is task arithmetic.", low=0.0),
    ),
    min_experts=2,
    looks_at="coordinates",
    notes=(
        "The authors choose mask_lambda for each expert from 0.2 to 0.6, and lambda, on validation data.",
        "Masks compare an expert's change with the weighted sum; weights belong to us.",
    ),
)


def _unified(xp: Any, tau: Any) -> tuple[Any, Any]:
    """The largest magnitude among the changes that have the sign of the sum, and that sign; a sum of 0 elects −."""
    sign = xp.where(xp.sum(tau) > 0, 1.0, -1.0)
    return xp.max([xp.where(each * sign > 0, xp.abs(each), 0.0) for each in tau]), sign


def emr_formula(xp: Any, base: Any, tau: Any, *, lam: Any, chosen: Any, together: Any, scale: Any) -> Any:
    """θ₀ + λ·u with u the elected sign times the largest magnitude of that sign; for one expert θ₀ + λ·s_k·m_k·u.

    m_k is 1 where τ_k has the elected sign, and s_k = Σ|τ_k| / Σ m_k|u| over the whole model.
    """
    size, sign = _unified(xp, tau)
    part = xp.sum([xp.where(tau[k] * sign > 0, chosen[k] * scale[k] * size, 0.0) for k in range(len(tau))])
    return base + lam * (sign * (together * size + part))


def _emr_sums(xp: Any, base: Any, tau: Any) -> Any:
    size, sign = _unified(xp, tau)
    return [*xp.abs(tau), *[xp.where(each * sign > 0, size, 0.0) for each in tau]]


def _emr_nothing(values: Mapping[str, Any]) -> np.ndarray | None:
    return np.ones(2 * int(values["experts"])) if int(values["expert"]) == 0 else None


def _emr_statistics(experts: int, **_: Any) -> Stages:
    return ((Statistic("sums", _emr_sums, "sum", "model", skip=_emr_nothing, uses=("expert", "experts")),),)


def _emr_derive(values: dict[str, Any]) -> dict[str, Any]:
    own, unified = np.split(np.asarray(values["sums"], np.float64), 2)
    chosen = np.arange(1, len(own) + 1) == int(values["expert"])
    scale = np.divide(own, unified, out=np.ones_like(own), where=unified > 0)
    return {"chosen": chosen.astype(np.float64), "together": float(not chosen.any()), "scale": scale}


def _emr_check(values: Mapping[str, Any]) -> list[str]:
    expert, experts = float(values["expert"]), int(values["experts"])
    if expert != int(expert) or expert > experts:
        return [f"expert must be 0 or the number of one of the {experts} experts, not {expert:g}"]
    return []


def _emr_report(values: Mapping[str, Any]) -> Mapping[str, Share]:
    if int(values["expert"]) == 0:
        return {}
    k = int(values["expert"]) - 1
    own, unified = np.split(np.asarray(values["sums"], np.float64), 2)
    return {f"rescaling for {{{k}}}": Share(float(own[k]), float(unified[k]))}


EMR = Method(
    name="emr",
    formula=emr_formula,
    summary="Elect a sign and the largest change that has it; masked and rescaled for one expert where asked.",
    paper="EMR-Merging, arXiv 2405.17461",
    status="exact",
    parameters=(
        LAMBDA,
        Parameter("expert", 0.0, "Whose model to write, from 1; 0 writes the unified one, without mask.", low=0.0),
    ),
    statistics=_emr_statistics,
    derive=_emr_derive,
    check=_emr_check,
    report=_emr_report,
    looks_at="signs",
    notes=(
        "The method keeps one unified change and a mask and a factor for each task; a merge writes one model, so name "
        "the expert, or take the unified one, which the paper does not score by itself.",
        "The factor is the ratio of the sums over the whole model, as in the paper; the authors' code adds up the "
        "means of the tensors.",
    ),
)

METHODS = (CONSENSUS_TA, EMR)

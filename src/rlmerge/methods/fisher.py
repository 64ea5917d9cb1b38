"""Fisher-weighted averaging: Matena and Raffel, 2022, arXiv 2111.09832, eq. 3, with diagonal Fisher information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .measured import measured_sum, no_sensitivity, shares
from .method import Method, Parameter, Stages, Statistic


def fisher_formula(
    xp: Any, base: Any, theta: Any, *, weight: Any, floor: Any, sensitivity: Any = None, fisher_sum: Any = None
) -> Any:
    """θ* = Σ λ_k F_k θ_k / Σ λ_k F_k; where all F are 0, Σ λ_k θ_k / Σ λ_k.

    Computed as an offset from the base, or else from the first expert, so that nothing is lost where experts agree.
    """
    anchor = theta[0] if base is None else base
    measured = 0.0 * theta if sensitivity is None else sensitivity
    if fisher_sum is not None:
        measured = measured / xp.where(fisher_sum > 0, fisher_sum, 1.0)
    amount = weight * xp.maximum(measured, floor)
    return anchor + xp.sum(shares(xp, amount, weight) * (theta - anchor))


def _statistics(experts: int, *, normalize: bool, **_: Any) -> Stages:
    return ((Statistic("fisher_sum", measured_sum, "sum", "model", skip=no_sensitivity),),) if normalize else ()


def _check(values: Mapping[str, Any]) -> list[str]:
    return [] if np.any(np.asarray(values["weight"]) > 0) else ["all weights are 0; give one expert a weight above 0"]


def _warn(values: Mapping[str, Any]) -> list[str]:
    return ["no sensitivity was measured here, so experts are averaged"] if values["sensitivity"] is None else []


FISHER = Method(
    name="fisher",
    formula=fisher_formula,
    summary="Average of the experts' weights, each weighted by its Fisher information.",
    paper="Fisher-weighted averaging, arXiv 2111.09832",
    status="exact",
    looks_at="sensitivities",
    parameters=(
        Parameter("weight", 1.0, "Weight of the expert.", per="expert", low=0.0),
        Parameter("floor", 0.0, "Sensitivities below this count as this much.", low=0.0),
        Parameter("normalize", False, "Divide each expert's sensitivities by their sum over the model first."),
    ),
    statistics=_statistics,
    inputs=("sensitivity",),
    needs_inputs=lambda static: True,
    space="weights",
    base="optional",
    check=_check,
    warn=_warn,
    notes=(
        "Where no expert is sensitive (all F = 0 and floor 0) the weighted mean is taken.",
        "F grows with the square of the gradients, so an expert measured on longer answers counts more; normalize "
        "takes that away.",
    ),
)

METHODS = (FISHER,)

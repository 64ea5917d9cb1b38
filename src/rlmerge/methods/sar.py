"""SAR-Merging: "Sparsity Curse", 2026, arXiv 2606.18521. Arbitrate conflicts by sensitivity, sparsify, rescale.

The abstract fixes these three steps and their order; every choice it leaves open is a parameter here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlmerge.frozen import frozen

from .measured import MEASURED_ON, measured_sum, no_sensitivity, shares
from .method import Formula, Method, Parameter, Share, Stages, Statistic
from .parts import LAMBDA, keep_all, scale_to_l1, top_share
from .ram import is_active


@frozen
class Contest:
    """Step 1 on one tile: the task vectors it leaves (K of [n]), and masks: where it took place, where signs were
    opposed there, and who won (K of [n], none where the changes were averaged)."""

    claims: list[Any]
    contested: Any
    opposed: Any
    won: list[Any]


def arbitrate(
    xp: Any,
    tau: Any,
    *,
    active: str,
    epsilon: Any,
    arbitration: str,
    score: str,
    numel: Any,
    sensitivity: Any = None,
    fisher_sum: Any = None,
) -> Contest:
    """Step 1, where at least two experts are active; with ``winner_on_sign_conflict`` only if their signs differ too.

    The winner keeps its change and the others lose theirs. With ``fisher_mean`` every active change is weighted with
    F_k / Σ F instead, so that their sum is the weighted mean.
    """
    mask = is_active(xp, tau, active, epsilon, None)
    opposed = xp.any(mask & (tau > 0)) & xp.any(mask & (tau < 0))
    contested = opposed if arbitration == "winner_on_sign_conflict" else xp.count(mask) >= 2
    if arbitration == "fisher_mean":
        equal = xp.where(mask, 1.0, 0.0)
        amount = equal if sensitivity is None else xp.where(mask, sensitivity, 0.0)
        claims = xp.where(contested, shares(xp, amount, equal) * tau, tau)
        return Contest(list(claims), contested, opposed, [])
    won = winners(xp, tau, mask, rating(xp, tau, score, numel, sensitivity, fisher_sum))
    claims = [xp.where(contested & ~mine, 0.0, delta) for mine, delta in zip(won, tau, strict=True)]
    return Contest(claims, contested, opposed, won)


def rating(xp: Any, tau: Any, score: str, numel: Any, sensitivity: Any, fisher_sum: Any) -> Any:
    """S, S·|τ| or S·τ² with S = F divided by its mean over the tensor, or F itself without that mean.

    Without sensitivities S = 1, and |τ| then orders experts as all three scores do.
    """
    size = xp.abs(tau)
    if sensitivity is None:
        return size
    relative = sensitivity
    if fisher_sum is not None:
        mean = fisher_sum / numel
        relative = sensitivity / xp.where(mean > 0, mean, 1.0)
    if score == "fisher":
        return relative
    return relative * size if score == "fisher_tau" else relative * size * size


def winners(xp: Any, tau: Any, mask: Any, rating: Any) -> list[Any]:
    """One mask per expert: where it has the highest rating of the active ones.

    Of equal ratings the larger |τ| wins, and of equal changes that of the expert named first.
    """
    size = xp.abs(tau)
    rated = xp.where(mask, rating, -1.0)
    best, largest = rated[0], size[0]
    won = [best == best]
    for k in range(1, len(tau)):
        better = (rated[k] > best) | ((rated[k] == best) & (size[k] > largest))
        won = [*(held & ~better for held in won), better]
        best, largest = xp.where(better, rated[k], best), xp.where(better, size[k], largest)
    return won


def trimmed(xp: Any, claims: list[Any], threshold: Any) -> list[Any]:
    """Step 2: the entries of at least each expert's threshold, so equal magnitudes all stay."""
    return [xp.where(xp.abs(claim) >= least, claim, 0.0) for claim, least in zip(claims, threshold, strict=True)]


def _after_arbitration(then: Formula) -> Formula:
    """``then(xp, base, contest, **values)`` as a formula that also asks for all that ``arbitrate`` wants."""
    asked = [p for p in inspect.signature(arbitrate).parameters.values() if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(then)
    def formula(xp: Any, base: Any, tau: Any, **values: Any) -> Any:
        choices = {p.name: values.pop(p.name) for p in asked if p.name in values}
        return then(xp, base, arbitrate(xp, tau, **choices), **values)

    own = inspect.signature(then)
    formula.__signature__ = own.replace(parameters=[*own.parameters.values(), *asked])  # type: ignore[attr-defined]
    return formula


@_after_arbitration
def sar_formula(xp: Any, base: Any, contest: Contest, *, threshold: Any, scale: Any, lam: Any) -> Any:
    """θ* = θ₀ + λ Σ τ̂_k, where τ̂ is arbitrated, trimmed to its largest entries and rescaled."""
    kept = trimmed(xp, contest.claims, threshold)
    return base + lam * xp.sum([factor * claim for factor, claim in zip(scale, kept, strict=True)])


@_after_arbitration
def _contests(xp: Any, base: Any, contest: Contest) -> Any:
    return [contest.contested, contest.contested & contest.opposed, *(contest.contested & mine for mine in contest.won)]


@_after_arbitration
def _magnitudes(xp: Any, base: Any, contest: Contest) -> Any:
    return [xp.abs(claim) for claim in contest.claims]


@_after_arbitration
def _norms(xp: Any, base: Any, contest: Contest, *, rescale: str, threshold: Any) -> Any:
    both = [*contest.claims, *trimmed(xp, contest.claims, threshold)]
    return [*(xp.abs(x) for x in both), *((x * x for x in both) if rescale == "l2" else ())]


def _top_of_nonzero(numel: int, nonzero: np.ndarray, values: Mapping[str, Any]) -> np.ndarray:
    return top_share(nonzero, nonzero, values)


def _statistics(experts: int, *, arbitration: str, normalize: bool, **_: Any) -> Stages:
    total = Statistic("fisher_sum", measured_sum, "sum", skip=no_sensitivity)
    threshold = Statistic("threshold", _magnitudes, "kth", rank=_top_of_nonzero, skip=keep_all, uses=("density",))
    stages = ((Statistic("contests", _contests, "count"), threshold), (Statistic("norms", _norms, "sum"),))
    return ((total,), *stages) if normalize and arbitration != "fisher_mean" else stages


def _derive(values: dict[str, Any]) -> dict[str, Any]:
    experts = int(values["experts"])
    sums = np.asarray(values["norms"], np.float64).reshape(-1, experts)
    scale = np.ones(experts)
    if values["rescale"] == "l1":
        scale = scale_to_l1(sums[0], sums[1])
    elif values["rescale"] == "l2":
        scale = np.sqrt(scale_to_l1(sums[2], sums[3]))
    elif values["rescale"] == "inverse":
        density = np.asarray(values["density"], np.float64)
        scale = np.where(density > 0, 1 / np.where(density > 0, density, 1.0), 1.0)
    return {"scale": scale}


def _report(values: Mapping[str, Any]) -> dict[str, Share]:
    contested, opposed, *won = (float(count) for count in values["contests"])
    before, after = np.asarray(values["norms"], np.float64).reshape(-1, int(values["experts"]))[:2]
    mass = float(before.sum())
    return {
        "coordinates arbitrated": Share(contested, float(values["numel"])),
        "of these, sign conflicts resolved": Share(opposed, contested),
        **{f"of these, won by {{{k}}}": Share(count, contested) for k, count in enumerate(won)},
        "L1 mass dropped": Share(mass - float(after.sum()), mass),
        "L1 mass restored": Share(float(((values["scale"] - 1) * after).sum()), mass),
    }


def _warn(values: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    if values["sensitivity"] is None:
        rule = "changes are averaged" if values["arbitration"] == "fisher_mean" else "the largest change wins"
        found.append(f"no sensitivities are given, so in a conflict {rule}")
    elif not np.all(values.get("fisher_sum", 1)):
        found.append("the sensitivities of an expert are all 0, so it loses every conflict with another that has some")
    if np.any(np.asarray(values["density"]) == 0):
        found.append("density 0 keeps no change of an expert")
    return found


SAR_MERGING = Method(
    name="sar_merging",
    formula=sar_formula,
    summary="Let the most sensitive change win each conflict, keep the largest changes, restore their norm.",
    paper="SAR-Merging, 'Sparsity Curse', arXiv 2606.18521",
    status="reconstruction",
    looks_at="sensitivities",
    parameters=(
        Parameter(
            "active", "epsilon", "When a change counts: above epsilon, or bits differ.", choices=("epsilon", "bits")
        ),
        Parameter("epsilon", 1e-5, "A change counts when its magnitude exceeds this.", low=0.0),
        Parameter(
            "arbitration",
            "winner",
            "Where several experts changed a weight: one wins, or their mean weighted by sensitivity is taken.",
            choices=("winner", "fisher_mean", "winner_on_sign_conflict"),
        ),
        Parameter(
            "score",
            "fisher_tau2",
            "What the winner has most of: S, S·|τ| or S·τ².",
            choices=("fisher", "fisher_tau", "fisher_tau2"),
        ),
        Parameter("normalize", True, "S is F divided by its mean over the tensor; false: F itself."),
        MEASURED_ON,
        Parameter(
            "density",
            0.8,
            "Share of each expert's non-zero changes kept in a tensor, largest first.",
            per="expert",
            low=0.0,
            high=1.0,
        ),
        Parameter(
            "rescale",
            "l1",
            "What stays gets back the L1 or L2 norm that the tensor had, is divided by the density, or is left alone.",
            choices=("l1", "l2", "inverse", "none"),
        ),
        LAMBDA,
    ),
    statistics=_statistics,
    derive=_derive,
    inputs=("sensitivity",),
    warn=_warn,
    report=_report,
    notes=(
        "A reconstruction: the abstract fixes arbitration, sparsification and rescaling in this order, and no more.",
        "Without sensitivities S = 1, and the largest change wins each conflict.",
        "With normalize, the scale of an expert's sensitivities does not matter; fisher_mean always takes F itself.",
        "Equal scores: the larger change wins, then the expert named first. Changes at the threshold are all kept.",
        "SAR also names Subspace-Aligned Rewiring, arXiv 2607.03065, which is another method.",
    ),
)

METHODS = (SAR_MERGING,)

"""A recipe to start from, with the reason for each of its values; its weights are to be swept on dev data."""

from __future__ import annotations

import math

import numpy as np
import yaml

from rlmerge.inspection.evidence import Evidence
from rlmerge.inspection.results import Recommendation

SPARSE = 0.5
"""Unchanged share from which RAM's distinction between own and shared changes means something."""

OWN = 0.2
"""Share of changes that are an expert's own from which it pays to keep them whole."""

FAR = 0.06
"""‖τ‖/‖θ₀‖ beyond which a full sum leaves the region where updates add up; long supervised training gets there."""


def recommend(evidence: Evidence) -> Recommendation | None:
    """None when fewer than two experts differ from the base and from each other, or none can be of this base."""
    chosen = _distinct(evidence)
    if len(chosen) < 2 or max(e.figures["relative_norm"].value for e in evidence.moved) > 0.5 or evidence.structure:
        return None
    reasons: dict[str, str] = {"base_model": "the base every figure is measured against"}
    left_out = [e.model.name for k, e in enumerate(evidence.experts) if k not in chosen]
    if left_out:
        reasons["models"] = f"without {', '.join(left_out)}: equal to the base or to another expert"
    method, parameters = _method(evidence, chosen, reasons)
    recipe: dict[str, object] = {
        "merge_method": method,
        "base_model": evidence.base.reference,
        "models": _models(evidence, chosen, method, reasons),
    }
    if parameters:
        recipe["parameters"] = parameters
    _types(evidence, recipe, reasons)
    return Recommendation(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), reasons)


def _distinct(evidence: Evidence) -> list[int]:
    """Experts that moved, one of each group of identical ones."""
    names = [expert.model.name for expert in evidence.experts]
    twin = {p.b for p in evidence.pairs if p.figures["distance"].value == 0 and p.figures["jaccard"].value == 1}
    return [k for k, e in enumerate(evidence.experts) if e.figures["norm"].value > 0 and names[k] not in twin]


def _method(evidence: Evidence, chosen: list[int], reasons: dict[str, str]) -> tuple[str, dict[str, object]]:
    unchanged = min(evidence.experts[k].figures["unchanged_bits"].value for k in chosen)
    own = min(evidence.experts[k].shared_exactly[0] for k in chosen)
    if unchanged < SPARSE or own < OWN:
        what = f"only {unchanged:.0%} of weights are unchanged" if unchanged < SPARSE else f"only {own:.0%} are own"
        reasons["merge_method"] = f"task arithmetic is the baseline every other method must beat; {what} (see weight)"
        return "task_arithmetic", {}
    reasons["merge_method"] = (
        f"{unchanged:.0%} or more of each expert's weights are unchanged and {own:.0%} or more of its changes are its "
        "own: RAM keeps those whole and averages only the shared ones"
    )
    reasons["parameters.active"] = "stored values decide what changed; |τ| > 1e-5 overlooks small one-step changes"
    return "ram", {"active": "bits"}


def _models(evidence: Evidence, chosen: list[int], method: str, reasons: dict[str, str]) -> list[dict[str, object]]:
    references = [evidence.experts[k].model.reference for k in chosen]
    if method != "task_arithmetic":
        return [{"model": reference} for reference in references]
    weights = retaining_weights(evidence.gram[np.ix_(chosen, chosen)])
    reach = max(evidence.experts[k].figures["relative_norm"].value for k in chosen)
    reason = "the merged update projected on each expert's own update then has length 1: ⟨Σ w τ, τ_k⟩ = ‖τ_k‖²"
    if reach > FAR:
        weights = weights * (FAR / reach)
        reason += (
            f"; scaled by {FAR / reach:.2f}, because updates of {reach:.0%} of the base's norm rarely add up whole"
        )
    silent = [evidence.experts[k].model.name for k, w in zip(chosen, weights, strict=True) if round(float(w), 2) == 0]
    if silent:
        reason += f"; {', '.join(silent)} gets 0 because the others, larger and alike, already move further that way"
    reasons["weight"] = f"{reason}. The coefficient matters more than the method: try 0.5 to 1 times these on dev data"
    return [
        {"model": reference, "parameters": {"weight": round(float(weight), 2)}}
        for reference, weight in zip(references, weights, strict=True)
    ]


def retaining_weights(gram: np.ndarray) -> np.ndarray:
    """Weights w [K] in [0, 1] that come closest to ⟨Σ w τ, τ_k⟩ = ‖τ_k‖² for every k, by projected least squares."""
    norms = np.sqrt(np.diag(gram))
    cosines = gram / np.outer(norms, norms)
    scaled = norms.copy()  # w_k ‖τ_k‖: the system then has unit diagonal
    for _ in range(200):
        scaled = np.clip(scaled - (cosines @ scaled - norms) / len(norms), 0.0, norms)
    return scaled / norms


def _types(evidence: Evidence, recipe: dict[str, object], reasons: dict[str, str]) -> None:
    kinds = {evidence.base.dtype, *(e.model.dtype for e in evidence.experts)}
    if len(kinds) > 1:
        recipe["dtype"] = "float32"
        reasons["dtype"] = "the models are stored in different types; float32 holds them all"
        return
    forecast = evidence.forecast(str(recipe["merge_method"]))
    kept = forecast.survived if forecast is not None else math.nan
    reasons["out_dtype"] = f"left at {evidence.base.dtype}: about {kept:.1%} of all changes survive its rounding"

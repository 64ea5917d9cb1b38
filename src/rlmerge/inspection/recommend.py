"""A recipe to start from, with the reason for each of its values; its weights are to be swept on dev data."""

from __future__ import annotations

import math

import numpy as np
import yaml

from rlmerge.inspection.evidence import Evidence
from rlmerge.inspection.results import Recommendation

_SPARSE = 0.5
"""Unchanged share from which it is worth a word that a merge changes more than the experts did."""

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
    recipe: dict[str, object] = {"merge_method": "task_arithmetic", "base_model": evidence.base.reference}
    if _has_matrices(evidence):
        recipe |= _covariance(evidence, chosen, reasons)
    else:
        reasons["merge_method"] = "no tensor is a matrix, so there is nothing to do but add changes up (see weight)"
        recipe["models"] = _weighted(evidence, chosen, reasons)
    _types(evidence, recipe, reasons)
    return Recommendation(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), reasons)


def _distinct(evidence: Evidence) -> list[int]:
    """Experts that moved, one of each group of identical ones."""
    names = [expert.model.name for expert in evidence.experts]
    twin = {p.b for p in evidence.pairs if p.figures["distance"].value == 0 and p.figures["jaccard"].value == 1}
    return [k for k, e in enumerate(evidence.experts) if e.figures["norm"].value > 0 and names[k] not in twin]


def _has_matrices(evidence: Evidence) -> bool:
    """Whether there are matrices, and not of embeddings alone, whose changes can act on one another's inputs."""
    return any(len(row.shape) > 1 and min(row.shape[-2:]) > 1 and row.kind != "embedding" for row in evidence.rows)


def _covariance(evidence: Evidence, chosen: list[int], reasons: dict[str, str]) -> dict[str, object]:
    """Method and models of the recipe that the laboratory found to keep most without data."""
    unchanged = min(evidence.experts[k].figures["unchanged_bits"].value for k in chosen)
    reasons["merge_method"] = (
        "what one expert's change does to the inputs of another's is taken back. In our laboratory (tasks in words, "
        "five seeds, but models of 0.3 M parameters) it kept 86 % of the gain of RL experts as it is, tuned task "
        "arithmetic 75 %; its relatives ACTMat, SWUDI and ACE, tuned, kept as much. Of real 7B RL experts ACTMat, as "
        "published, kept 68 %, task arithmetic 51 %. Score task_arithmetic beside it on dev data"
    )
    if unchanged >= _SPARSE:
        reasons["merge_method"] += f"; weights that no expert changed ({unchanged:.0%} or more of each) move too"
    scale = _scale(evidence, chosen)
    reasons["lambda"] = "the whole change of every expert; the coefficient matters, so try 0.5 to 1.25 times this"
    if scale < 1:
        reasons["lambda"] = f"{_far(evidence, chosen)}. Try 0.5 to 1.25 times this on dev data"
    models = [{"model": evidence.experts[k].model.reference} for k in chosen]
    return {"merge_method": "covariance", "models": models, "parameters": {"lambda": round(scale, 2)}}


def _weighted(evidence: Evidence, chosen: list[int], reasons: dict[str, str]) -> list[dict[str, object]]:
    """Models with the weights of task arithmetic that keep each expert's change whole."""
    weights = retaining_weights(evidence.gram[np.ix_(chosen, chosen)])
    reason = "the merged update projected on each expert's own update then has length 1: ⟨Σ w τ, τ_k⟩ = ‖τ_k‖²"
    scale = _scale(evidence, chosen)
    if scale < 1:
        weights = weights * scale
        reason += f"; {_far(evidence, chosen)}"
    silent = [evidence.experts[k].model.name for k, w in zip(chosen, weights, strict=True) if round(float(w), 2) == 0]
    if silent:
        reason += f"; {', '.join(silent)} gets 0 because the others, larger and alike, already move further that way"
    reasons["weight"] = f"{reason}. The coefficient matters more than the method: try 0.5 to 1 times these on dev data"
    return [
        {"model": evidence.experts[k].model.reference, "parameters": {"weight": round(float(weight), 2)}}
        for k, weight in zip(chosen, weights, strict=True)
    ]


def _reach(evidence: Evidence, chosen: list[int]) -> float:
    return max(evidence.experts[k].figures["relative_norm"].value for k in chosen)


def _scale(evidence: Evidence, chosen: list[int]) -> float:
    return min(1.0, FAR / _reach(evidence, chosen))


def _far(evidence: Evidence, chosen: list[int]) -> str:
    reach = _reach(evidence, chosen)
    return f"scaled by {FAR / reach:.2f}, because updates of {reach:.0%} of the base's norm rarely add up whole"


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
    forecast = evidence.forecast("task_arithmetic")
    kept = forecast.survived if forecast is not None else math.nan
    reasons["out_dtype"] = (
        f"left at {evidence.base.dtype}: about {kept:.1%} of all changes survive its rounding when they are added up"
    )

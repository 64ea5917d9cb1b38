"""Rules about ancestry: are these experts of this base at all?"""

from __future__ import annotations

import math

import numpy as np

from rlmerge.inspection.evidence import Evidence
from rlmerge.inspection.results import Finding

FOREIGN = 0.5
"""‖τ‖/‖θ₀‖ from which an expert cannot come from this base: independent models give √2, long fine-tuning 0.1."""

DISTANT = 0.2
"""‖τ‖/‖θ₀‖ from which the base should be checked."""

CENTRAL = 0.8
"""A model whose mean squared distance to the others is below this share of the base's looks like the true base. For
orthogonal updates of equal size a swapped base gives 0.60 with three experts, 0.67 with two."""


def equals_base(evidence: Evidence) -> Finding | None:
    """Experts that store the base's values everywhere."""
    same = [expert.model.name for expert in evidence.experts if expert.figures["norm"].value == 0]
    if not same:
        return None
    return Finding(
        "equals_base",
        "problem",
        f"{_list(same)} {_is(same)} the base",
        "Every compared value equals the base's, so there is nothing to merge. Was the right checkpoint saved?",
        {"experts equal to the base": len(same)},
    )


def identical_experts(evidence: Evidence) -> Finding | None:
    """Pairs of experts without any distance."""
    same = [
        (pair.a, pair.b)
        for pair in evidence.pairs
        if pair.figures["distance"].value == 0 and pair.figures["jaccard"].value == 1
    ]
    if not same:
        return None
    names = ", ".join(f"{a} = {b}" for a, b in same)
    text = "Their task vectors are equal; the merge would count one model twice. Leave one of them out."
    return Finding("identical_experts", "problem", f"identical experts: {names}", text, {"identical pairs": len(same)})


def wrong_base(evidence: Evidence) -> Finding | None:
    """Experts too far from the base."""
    far = {e.model.name: v for e, v in zip(evidence.experts, evidence.figure("relative_norm"), strict=True)}
    worst = {name: value for name, value in far.items() if value > DISTANT}
    if not worst:
        return None
    foreign = max(worst.values()) > FOREIGN
    text = (
        "Fine-tuning gives no update this large: the expert was trained from another base, or the base is wrong."
        if foreign
        else "Very long training, or not quite this base (for example base instead of instruct). Check it."
    )
    return Finding(
        "wrong_base",
        "problem" if foreign else "warning",
        f"{_list(list(worst))} {'does' if len(worst) == 1 else 'do'} not look trained from {evidence.base.name}",
        text,
        {f"‖τ‖/‖θ₀‖ of {name}": value for name, value in worst.items()},
    )


def swapped(evidence: Evidence) -> Finding | None:
    """An expert that lies in the middle of the others, where the base should be."""
    if len(evidence.moved) < 2 or any(p.figures["distance"].value == 0 for p in evidence.pairs):
        return None
    squares = np.diag(evidence.gram)
    between = squares[:, None] + squares[None, :] - 2 * evidence.gram
    from_base = float(squares.mean())
    central = (between.sum(axis=1) + squares) / len(squares)
    k = int(np.argmin(central))
    ratio = float(central[k]) / from_base
    if not math.isfinite(ratio) or ratio >= CENTRAL:
        return None
    name = evidence.experts[k].model.name
    return Finding(
        "swapped",
        "problem",
        f"{name} looks like the base of the others",
        f"It is closer to all other models than {evidence.base.name} is. Were the arguments swapped?",
        {f"mean squared distance, {name} over base": ratio},
    )


def vocabulary(evidence: Evidence) -> Finding | None:
    """Other tokens, chat templates or stop tokens."""
    other = [d for d in evidence.identities if d.aspect != "config"]
    if not other:
        return None
    grave = any(d.aspect == "vocabulary" for d in other)
    text = "; ".join(f"{d.expert}: {d.aspect} {d.detail}" for d in other)
    advice = " Rows of the embedding then mean different tokens." if grave else " rlmerge plan says what a merge ships."
    title = "the experts do not share the base's tokenizer" if grave else "the experts tokenize, chat or stop otherwise"
    return Finding("vocabulary", "problem" if grave else "info", title, f"{text}.{advice}", {"differences": len(other)})


def config(evidence: Evidence) -> Finding | None:
    """Other architectures."""
    other = [d for d in evidence.identities if d.aspect == "config"]
    if not other:
        return None
    text = "; ".join(f"{d.expert}: {d.detail}" for d in other)
    return Finding("config", "warning", "the configurations differ", f"{text}.", {"differences": len(other)})


def structure(evidence: Evidence) -> Finding | None:
    """Missing, extra or reshaped tensors."""
    if not evidence.structure:
        return None
    text = "; ".join(evidence.structure) + ". Figures are about the tensors that can be compared."
    title = "the models do not hold the same tensors"
    return Finding("structure", "warning", title, text, {"kinds of mismatch": len(evidence.structure)})


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"

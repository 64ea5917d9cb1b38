"""Rules about number formats: what the stored type can show, and what it hides."""

from __future__ import annotations

from rlmerge.inspection.evidence import Evidence
from rlmerge.inspection.results import Finding

WIDE = ("float32", "float64")

BELOW_EPSILON = 0.05
"""Share of an expert's changes below 1e-5 from which an absolute test for activity loses too much."""


def nonfinite(evidence: Evidence) -> Finding | None:
    """NaN and infinity."""
    bad = {expert.model.name: expert.nonfinite for expert in evidence.experts if expert.nonfinite}
    if not bad:
        return None
    where = [row.name for row in evidence.rows if row.nonfinite]
    return Finding(
        "nonfinite",
        "problem",
        "there are NaN or infinite weights",
        f"They are left out of every figure. Tensors: {', '.join(where[:3])}{' …' if len(where) > 3 else ''}. "
        "A merge refuses them unless told --on-nonfinite keep or zero.",
        {f"coordinates of {name}, base included": count for name, count in bad.items()},
    )


def mixed_dtypes(evidence: Evidence) -> Finding | None:
    """Base and experts in different types."""
    kinds = {evidence.base.dtype, *(expert.model.dtype for expert in evidence.experts)}
    if len(kinds) == 1:
        return None
    stored = ", ".join(f"{m.name} {m.dtype}" for m in (evidence.base, *(e.model for e in evidence.experts)))
    return Finding(
        "mixed_dtypes",
        "warning",
        "the models are stored in different types",
        f"{stored}. A task vector between two types contains their rounding difference, so sparsity and overlap read "
        "wrong. Convert all models to one type, or merge with dtype: float32.",
        {"types": len(kinds)},
    )


def sparsity_reading(evidence: Evidence) -> Finding | None:
    """How to read the unchanged share, given the type."""
    shares = evidence.figure("unchanged_bits")
    dtype = evidence.base.dtype
    if not evidence.moved or dtype not in (*WIDE, "bfloat16"):
        return None
    if dtype in WIDE:
        text = f"{dtype} stores the smallest step, so unchanged weights show only where no gradient ever came."
    elif min(shares) > 0.5:
        text = "bfloat16 keeps 8 bits of a weight: most updates were too small to change it. Sparse RL updates look so."
    elif max(shares) > 0.5:
        text = "Some updates are sparse in this type and others dense; magnitude tests treat them unequally."
    else:
        text = "Most weights changed by at least one bfloat16 step: these updates are dense in this type."
    ends = list(dict.fromkeys((f"{min(shares):.0%}", f"{max(shares):.0%}")))
    title = f"{' to '.join(ends)} of weights are bit-identical to the base in {dtype}"
    figures = {f"unchanged, {e.model.name}": s for e, s in zip(evidence.experts, shares, strict=True)}
    return Finding("sparsity_reading", "info", title, text, figures)


def below_epsilon(evidence: Evidence) -> Finding | None:
    """Real changes that |τ| > 1e-5 does not see."""
    lost: dict[str, float] = {}
    for expert in evidence.moved:
        changed = 1 - expert.figures["unchanged_bits"].value
        active = 1 - expert.figures["small_absolute"].value
        lost[expert.model.name] = max(0.0, 1 - active / changed)
    if not lost or max(lost.values()) < BELOW_EPSILON:
        return None
    return Finding(
        "below_epsilon",
        "info",
        f"up to {max(lost.values()):.0%} of an expert's changes are smaller than 1e-5",
        "Methods that call a change active when |τ| > 1e-5 (RAM by default) ignore them; set active: bits.",
        {f"changes below 1e-5, {name}": share for name, share in lost.items()},
    )

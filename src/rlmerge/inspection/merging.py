"""Rules about what merging does to these experts: dilution, conflict, erasure, degeneracy."""

from __future__ import annotations

import math

from rlmerge.inspection.evidence import Evidence
from rlmerge.inspection.results import Finding

DILUTED = 0.6
"""Share of an expert's own change that averaging must keep not to be called dilution."""

OWN = 0.05
"""Share of changes that are an expert's own, below which dilution is judged by direction instead of by coordinate."""

OPPOSED = 0.55
"""Σ|C⁻|/Σ|C| from which experts pull apart for practical purposes; random signs give 0.5."""

SAME_DIRECTION = 0.3
"""Cosine from which experts partly learned the same."""

SIGMAS = 4.0
"""Standard deviations of the null from which a difference from chance is called one."""

MORE_THAN_CHANCE = 1.5
"""Jaccard over its chance value from which footprints coincide."""

SURVIVES = 0.95
"""Share of changes that must survive averaging and rounding not to be called erasure."""

UNEVEN = 3.0
"""Ratio of the largest to the smallest update norm from which one expert dominates a plain sum."""

PERCENTILE, TRIMMED = 0.9, 0.8
"""Unchanged shares at which the 90th percentile of |τ|, and a trim to density 0.2, are 0."""

NEGLIGIBLE = 0.01
"""Share of the weights below which tensors that behave so, a few norms, are not worth a finding."""


def dilution(evidence: Evidence) -> Finding | None:
    """Averaging divides by K what only one expert learned: its own coordinates, or its own direction."""
    average = evidence.forecast("linear")
    if average is None or len(evidence.experts) < 2:
        return None
    own = [o for o in average.experts if o.unique > OWN and math.isfinite(o.realised)]
    moved = [o for o in average.experts if math.isfinite(o.projection)]
    if not moved:
        return None
    shares = {o.expert: o.realised for o in own} or {o.expert: o.projection for o in moved}
    what = "what only one expert changed" if own else "an expert's update, along its own direction"
    kept = sum(shares.values()) / len(shares)
    figures = {f"kept of {name}'s own change" if own else f"kept of {name}": v for name, v in shares.items()}
    if kept >= DILUTED:
        return Finding("dilution", "good", f"averaging keeps {kept:.0%} of {what}", "", figures)
    return Finding(
        "dilution",
        "warning",
        f"averaging keeps {kept:.0%} of {what}",
        f"Plain averaging divides by {len(evidence.experts)} what the others do not share. Sum the task vectors instead"
        + (", or use RAM, which leaves unique changes whole." if own else "."),
        figures,
    )


def overlap(evidence: Evidence) -> Finding | None:
    """Do the footprints coincide more than chance says?"""
    pairs = [p for p in evidence.pairs if math.isfinite(p.figures["jaccard"].value)]
    ratios = [p.figures["jaccard"].value / p.figures["jaccard"].null for p in pairs if p.figures["jaccard"].null]
    if not ratios:
        return None
    figures: dict[str, float] = {}
    for p in pairs:
        figures[f"Jaccard {p.a}, {p.b}"] = p.figures["jaccard"].value
        figures[f"by chance {p.a}, {p.b}"] = p.figures["jaccard"].null or math.nan
    if min(ratios) < MORE_THAN_CHANCE:
        title = "the experts change about as many common weights as chance says"
        return Finding("overlap", "info", title, "Little is decided by resolving overlaps.", figures)
    title = f"the experts change the same weights {min(ratios):.1f} to {max(ratios):.1f} times as often as chance says"
    text = "A common footprint alone is no conflict: see the signs and the cosine."
    return Finding("overlap", "info", title, text, figures)


def conflict(evidence: Evidence) -> Finding | None:
    """Do they pull the same weights in opposite directions more than random signs would?"""
    pairs = [p for p in evidence.pairs if math.isfinite(p.figures["conflict_share"].value)]
    if not pairs:
        return None
    figures: dict[str, float] = {}
    for p in pairs:
        figures[f"conflict share {p.a}, {p.b}"] = p.figures["conflict_share"].value
        figures[f"cosine {p.a}, {p.b}"] = p.figures["cosine"].value
    against = [p for p in pairs if p.figures["conflict_share"].value > OPPOSED and _clear(p.figures["conflict_share"])]
    if against:
        names = ", ".join(f"{p.a} and {p.b}" for p in against)
        return Finding(
            "conflict",
            "warning",
            f"{names} pull against each other",
            "More of their common change cancels than random signs would cancel. A sign election (TIES) or smaller "
            "weights help; compare both.",
            figures,
        )
    cosines = [p.figures["cosine"].value for p in pairs]
    if max(cosines) > SAME_DIRECTION:
        title = f"some experts partly learned the same (cosine up to {max(cosines):.2f})"
        return Finding("conflict", "info", title, "A plain sum counts the common part more than once.", figures)
    return Finding(
        "conflict",
        "good",
        "no more conflict than random signs give",
        f"Cosines between {min(cosines):.3f} and {max(cosines):.3f}: the updates are near-orthogonal, and adding them "
        "disturbs each little.",
        figures,
    )


def uneven_norms(evidence: Evidence) -> Finding | None:
    """Does one expert outweigh the others?"""
    norms = {expert.model.name: expert.figures["norm"].value for expert in evidence.moved}
    if len(norms) < 2 or max(norms.values()) < UNEVEN * min(norms.values()):
        return None
    largest = max(norms, key=lambda name: norms[name])
    ratio = max(norms.values()) / min(norms.values())
    return Finding(
        "uneven_norms",
        "warning",
        f"{largest}'s update is {ratio:.1f} times as large as the smallest",
        "It will dominate magnitude tests (TIES, magnitude arbitration) and a plain sum. Consider a smaller weight.",
        {f"‖τ‖ of {name}": norm for name, norm in norms.items()},
    )


def routers(evidence: Evidence) -> Finding | None:
    """Do several experts move the routers of a mixture of experts?"""
    group = evidence.routers
    if group is None:
        return None
    moves = {e.model.name: x for e, x in zip(evidence.experts, group.relative_norm, strict=True)}
    figures = {f"‖τ‖/‖θ₀‖ of the routers of {name}": move for name, move in moves.items()}
    shares = zip(evidence.experts, group.energy, strict=True)
    figures |= {f"share of ‖τ‖² of {expert.model.name}": share for expert, share in shares}
    moved = [name for name, move in moves.items() if move > 0]
    if len(moved) < 2:
        title = f"only {moved[0]} moved the routers" if moved else "no expert moved the routers"
        return Finding("routers", "good", title, "", figures)
    largest = max(moves.values())
    return Finding(
        "routers",
        "warning",
        f"{len(moved)} experts moved the routers, by up to {largest:.2%} of their norm",
        "A merged router may send tokens where no expert expects them. Take the routers from one model, with a rule "
        "`filter: router` for its weight.",
        figures,
    )


def erasure(evidence: Evidence) -> Finding | None:
    """What does rounding to the stored type take away after averaging?"""
    average = evidence.forecast("linear")
    if average is None or not math.isfinite(average.survived):
        return None
    figures = {f"survives {f.label}": f.survived for f in evidence.forecasts if math.isfinite(f.survived)}
    if average.survived >= SURVIVES:
        title = f"rounding to {average.dtype} erases little: {average.survived:.1%} of changes survive averaging"
        return Finding("erasure", "good", title, "", figures)
    return Finding(
        "erasure",
        "warning",
        f"averaging and rounding to {average.dtype} would take back {1 - average.survived:.0%} of all changes",
        "Changes of one step, divided by the number of experts, round back to the base. Keep weights at 1, write "
        "float32 (out_dtype), or round stochastically.",
        figures,
    )


def degenerate_masks(evidence: Evidence) -> Finding | None:
    """Where magnitude masks select everything or nothing."""
    rows = [row for row in evidence.rows if all(math.isfinite(u) for u in row.unchanged)]
    total = sum(math.prod(row.shape) for row in rows)
    if not total:
        return None
    shares = [
        sum(math.prod(r.shape) for r in rows if max(r.unchanged) >= limit) / total for limit in (PERCENTILE, TRIMMED)
    ]
    if shares[1] < NEGLIGIBLE:
        return None
    return Finding(
        "degenerate_masks",
        "info" if shares[0] < NEGLIGIBLE else "warning",
        f"magnitude masks degenerate in tensors with {shares[1]:.0%} of the weights",
        f"There at least 80 % of an expert's weights are unchanged, so trimming to density 0.2 keeps every change. "
        f"In {shares[0]:.0%} the 90th percentile of |τ| is 0 and a percentile mask selects everything.",
        {"weights where density 0.2 trims nothing": shares[1], "weights where the 90th percentile is 0": shares[0]},
    )


def _clear(measure: object) -> bool:
    value, null, sd = (getattr(measure, name) for name in ("value", "null", "null_sd"))
    return abs(value - null) > SIGMAS * (sd or 0.0)

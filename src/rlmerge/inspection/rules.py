"""The verdict: rules as data. Each looks at the evidence and returns a finding with its figures, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlmerge.frozen import frozen
from rlmerge.inspection import lineage, merging, precision
from rlmerge.inspection.evidence import Evidence
from rlmerge.inspection.results import Finding, Level

Look = Callable[[Evidence], Finding | None]


@frozen
class Rule:
    """``aspect`` is what the rule is about, ``look`` decides. Rules are independent of each other."""

    name: str
    aspect: str
    look: Look


RULES: Sequence[Rule] = (
    Rule("equals_base", "lineage", lineage.equals_base),
    Rule("identical_experts", "lineage", lineage.identical_experts),
    Rule("wrong_base", "lineage", lineage.wrong_base),
    Rule("swapped", "lineage", lineage.swapped),
    Rule("vocabulary", "lineage", lineage.vocabulary),
    Rule("config", "lineage", lineage.config),
    Rule("structure", "lineage", lineage.structure),
    Rule("nonfinite", "precision", precision.nonfinite),
    Rule("mixed_dtypes", "precision", precision.mixed_dtypes),
    Rule("sparsity_reading", "precision", precision.sparsity_reading),
    Rule("below_epsilon", "precision", precision.below_epsilon),
    Rule("dilution", "dilution", merging.dilution),
    Rule("overlap", "conflict", merging.overlap),
    Rule("conflict", "conflict", merging.conflict),
    Rule("uneven_norms", "conflict", merging.uneven_norms),
    Rule("routers", "conflict", merging.routers),
    Rule("erasure", "erasure", merging.erasure),
    Rule("degenerate_masks", "degeneracy", merging.degenerate_masks),
)

_ORDER: dict[Level, int] = {"problem": 0, "warning": 1, "info": 2, "good": 3}


def judge(evidence: Evidence) -> tuple[Finding, ...]:
    """All findings, the gravest first."""
    found = [finding for rule in RULES if (finding := rule.look(evidence)) is not None]
    return tuple(sorted(found, key=lambda finding: _ORDER[finding.level]))

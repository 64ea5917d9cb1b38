"""The claims of the sources, judged on a study: what was measured, under which control, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlmerge_lab.claims import explanations, factors, geometry, landscape, mergers, merging, repetition
from rlmerge_lab.claims.cells import Study
from rlmerge_lab.claims.figure import Figure, Margin, Outcome, Side
from rlmerge_lab.claims.sources import UNTESTED
from rlmerge_lab.claims.summary import summarize
from rlmerge_lab.claims.verdict import ADJUSTMENT, RULE, Verdict, adjust

SCHEMA = "rlmerge.lab.verdicts/1"

__all__ = ["SCHEMA", "Figure", "Judgement", "Margin", "Outcome", "Side", "Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts on one study, the number of distinct comparisons that decide them, and the tables of the report."""

    verdicts: tuple[Verdict, ...]
    comparisons: int
    summary: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data with finite numbers and None only; schema ``rlmerge.lab.verdicts/1``."""
        return {
            "schema": SCHEMA,
            "rule": RULE,
            "adjustment": ADJUSTMENT,
            "comparisons": self.comparisons,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "summary": dict(self.summary),
            "untested": list(UNTESTED),
        }


def judge(study: Mapping[str, Any]) -> Judgement:
    """Every claim, judged on a study's plain dict (schema ``rlmerge.lab.study/1``).

    Arms, methods, seeds and figures that the study lacks leave their claims undecided, with the reason; null and NaN
    count as lacking. No claim is judged otherwise because of what another one found.
    """
    rows = Study(study)
    rooms = (geometry, landscape, merging, explanations, factors, mergers, repetition)
    found = [verdict for room in rooms for verdict in room.verdicts(rows)]
    verdicts, comparisons = adjust(found)
    return Judgement(verdicts, comparisons, summarize(rows))

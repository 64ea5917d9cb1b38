"""The claims of the sources, judged on a study: what was measured, under which control, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import explanations, geometry, merging, methods, rotations, students
from .cells import Study
from .figure import Figure, Margin, Outcome, Side
from .summary import summarize
from .verdict import ADJUSTMENT, RULE, UNTESTED, Verdict, adjust

SCHEMA = "rlmerge.lab.verdicts/2"

__all__ = ["SCHEMA", "Figure", "Judgement", "Margin", "Outcome", "Side", "Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts on one study, the number of distinct comparisons that decide them, and the tables of the report."""

    verdicts: tuple[Verdict, ...]
    comparisons: int
    summary: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data with finite numbers and None only; schema ``rlmerge.lab.verdicts/2``.

        ``untested`` are claims without a figure, each with the reason; they are not among ``verdicts``.
        """
        untested = [
            {"claim": verdict.claim, "reason": verdict.reason} for verdict in self.verdicts if not verdict.tested
        ]
        untested += [{"claim": claim, "reason": "No study of the laboratory measures it."} for claim in UNTESTED]
        return {
            "schema": SCHEMA,
            "rule": RULE,
            "adjustment": ADJUSTMENT,
            "comparisons": self.comparisons,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts if verdict.tested],
            "summary": dict(self.summary),
            "untested": untested,
        }


def judge(study: Mapping[str, Any]) -> Judgement:
    """Every claim, judged on a study's plain dict (schema ``rlmerge.lab.study/1``).

    Arms, methods, seeds and figures that the study lacks leave their claims undecided, with the reason; null and NaN
    count as lacking. No claim is judged otherwise because of what another one found.
    """
    rows = Study(study)
    groups = (
        geometry.verdicts,
        geometry.landscape_verdicts,
        merging.verdicts,
        explanations.verdicts,
        explanations.factor_verdicts,
        rotations.verdicts,
        methods.verdicts,
        students.verdicts,
        methods.repetition_verdicts,
    )
    found = [verdict for group in groups for verdict in group(rows)]
    verdicts, comparisons = adjust(found)
    return Judgement(verdicts, comparisons, summarize(rows))

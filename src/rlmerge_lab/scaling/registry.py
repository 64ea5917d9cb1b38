"""The six studies by name: what each computes, how it is judged, and how it is shown."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlmerge_lab.scaling import figures, rules, studies, tables
from rlmerge_lab.scaling.figures.style import Figure
from rlmerge_lab.scaling.table import Table
from rlmerge_lab.scaling.verdict import Claim, Rule, Verdict, judge


@dataclass(frozen=True, slots=True)
class Study:
    """One study as data; ``run`` takes the study's own keyword arguments and returns its frozen result."""

    name: str
    title: str
    summary: str
    run: Callable[..., Any]
    rules: tuple[Rule[Any], ...]
    tables: Callable[[Any], tuple[Table, ...]]
    figures: Callable[[Any], tuple[Figure, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A study that has run: its result, the verdicts, and the tables and figures that show it."""

    name: str
    title: str
    summary: str
    seconds: float
    result: Any
    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]

    def count(self, verdict: Verdict) -> int:
        """How many of the study's claims got this verdict."""
        return sum(claim.verdict is verdict for claim in self.claims)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the drawings, JSON-able; NaN becomes None."""
        return {
            "study": self.name,
            "title": self.title,
            "seconds": round(self.seconds, 3),
            "claims": [claim.to_dict() for claim in self.claims],
            "result": plain(self.result),
        }


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study(
            "sparsity",
            "Sparsity metrics across scales",
            "Table 1 and Figure 1: four metrics of simulated task vectors from 1B to 405B.",
            studies.sparsity.run,
            rules.sparsity.RULES,
            tables.sparsity.tables,
            figures.sparsity.figures,
        ),
        Study(
            "law",
            "The sparsity law",
            "Section 3.1: s(N) = 1 − a·N⁻ᵇ fitted every way, its intervals, and real checkpoints beside it.",
            studies.law.run,
            rules.law.RULES,
            tables.law.tables,
            figures.law.figures,
        ),
        Study(
            "merge",
            "Merge quality",
            "Table 2, Figures 2 and 3: cosine and fidelity, and the retention that cosine cannot see.",
            studies.merge.run,
            rules.merge.RULES,
            tables.merge.tables,
            figures.merge.figures,
        ),
        Study(
            "anatomy",
            "Anatomy of a 70B model",
            "Table 3 and Figure 4: sparsity by kind of tensor and by depth, and a control with equal zeros.",
            studies.anatomy.run,
            rules.anatomy.RULES,
            tables.anatomy.tables,
            figures.anatomy.figures,
        ),
        Study(
            "agents",
            "Overlap between agents",
            "Figure 5: Jaccard, cosine and shared positions across scales, beside chance.",
            studies.agents.run,
            rules.agents.RULES,
            tables.agents.tables,
            figures.agents.figures,
        ),
        Study(
            "memory",
            "Memory",
            "Table 4 and Figure 6: the paper's formulas and column, real model shapes, and a tile budget.",
            studies.memory.run,
            rules.memory.RULES,
            tables.memory.tables,
            figures.memory.figures,
        ),
    )
}


def run(name: str, **arguments: Any) -> Outcome:
    """Compute one study and judge it. RequestError when scipy is needed and absent."""
    study = STUDIES[name]
    started = time.perf_counter()
    result = study.run(**arguments)
    return Outcome(
        name=study.name,
        title=study.title,
        summary=study.summary,
        seconds=time.perf_counter() - started,
        result=result,
        claims=judge(study.rules, result),
        tables=study.tables(result),
        figures=study.figures(result),
    )


def plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

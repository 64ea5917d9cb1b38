"""The scale study "Does Sparsity Persist?", run again: its simulations, tables and figures, each statement judged.

One file a study: what it computes, how each statement is judged, and the tables and pictures that show it. Merging is
the product's own. Fits need scipy, which is imported when they are made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rlmerge.jsondata import plain
from rlmerge_lab.report.parts import Picture, Sheet

from . import agents, anatomy, law, memory, merging, sparsity
from .verdict import Claim, Verdict


@dataclass(frozen=True, slots=True)
class Study:
    """One study: ``home`` has ``run(...)``, which returns a result, and ``claims``, ``tables``, ``pictures`` of it."""

    title: str
    summary: str
    home: ModuleType


STUDIES = {
    "sparsity": Study(
        "Sparsity metrics across scales",
        "Table 1 and Figure 1: four metrics of simulated task vectors from 1B to 405B.",
        sparsity,
    ),
    "law": Study(
        "The sparsity law",
        "Section 3.1: s(N) = 1 − a·N⁻ᵇ fitted every way, its intervals, and real checkpoints beside it.",
        law,
    ),
    "merge": Study(
        "Merge quality",
        "Table 2, Figures 2 and 3: cosine and fidelity, and the retention that cosine cannot see.",
        merging,
    ),
    "anatomy": Study(
        "Anatomy of a 70B model",
        "Table 3 and Figure 4: sparsity by kind of tensor and by depth, and a control with equal zeros.",
        anatomy,
    ),
    "agents": Study(
        "Overlap between agents",
        "Figure 5: Jaccard, cosine and shared positions across scales, beside chance.",
        agents,
    ),
    "memory": Study(
        "Memory",
        "Table 4 and Figure 6: the paper's formulas and column, real model shapes, and a tile budget.",
        memory,
    ),
}
"""The six studies by name."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A study that has run: its result, the verdicts, and the tables and pictures that show it."""

    name: str
    title: str
    summary: str
    seconds: float
    result: Any
    claims: tuple[Claim, ...]
    tables: tuple[Sheet, ...]
    pictures: tuple[Picture, ...]

    def count(self, verdict: Verdict) -> int:
        """How many of the study's claims got this verdict."""
        return sum(claim.verdict is verdict for claim in self.claims)

    @property
    def tally(self) -> str:
        """``3 reproduced, 1 reproduced in kind, 2 not reproduced``."""
        return ", ".join(f"{self.count(verdict)} {verdict}" for verdict in Verdict if self.count(verdict))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the drawings, JSON-able; NaN becomes None."""
        return {
            "study": self.name,
            "title": self.title,
            "seconds": round(self.seconds, 3),
            "claims": plain(self.claims),
            "result": plain(self.result),
        }


def run(name: str, **arguments: Any) -> Outcome:
    """Compute one study, with the arguments of its own ``run``, and judge it."""
    study = STUDIES[name]
    started = time.perf_counter()
    result = study.home.run(**arguments)
    seconds = time.perf_counter() - started
    shown = study.home.claims(result), study.home.tables(result), study.home.pictures(result)
    return Outcome(name, study.title, study.summary, seconds, result, *shown)

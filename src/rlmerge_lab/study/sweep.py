"""Task arithmetic over fixed coefficients: how retention follows the effective scale, apart from conflicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlmerge_lab.study.cases import Case, decided_by


@dataclass(frozen=True, slots=True)
class SweepJob:
    """Scores θ₀ + λ Σ τ_k on test for each coefficient λ of ``lambdas``."""

    case: Case
    lambdas: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"sweep.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by("sweep", case=self.case.identity, lambdas=self.lambdas)

    @property
    def cost(self) -> int:
        return self.case.items(0, len(self.lambdas))

    def run(self) -> list[dict[str, Any]]:
        """One row per coefficient."""
        family = self.case.family
        total = family.merge("task_arithmetic", {}, self.case.seed)
        rows: list[dict[str, Any]] = []
        for factor in self.lambdas:
            merge = total.scaled(factor)
            weights = family.stored(merge)
            test, _ = self.case.exams.test.passes(family.model(weights), family.home, self.case.tasks)
            rows.append(
                {
                    "seed": self.case.seed,
                    "arm": self.case.arm,
                    "lambda": factor,
                    "norm": merge.norm / family.base_norm,
                    **self.case.test.outcome(test).to_dict(),
                    "test": test,
                    **family.survival(merge, weights),
                }
            )
        return rows

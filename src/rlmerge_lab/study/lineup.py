"""Which methods merge which set, and what is left out for which reason."""

from __future__ import annotations

from typing import Any

from rlmerge import methods
from rlmerge_lab.study.budget import StudyBudget
from rlmerge_lab.study.cases import Case
from rlmerge_lab.study.contenders import Contender, contenders
from rlmerge_lab.study.tuning import REFERENCE


class Lineup:
    """The contenders of every set, and a record of who took part and who did not."""

    def __init__(self, budget: StudyBudget) -> None:
        self.budget = budget
        self.present: dict[str, Contender] = {}
        self.absent: dict[tuple[str, int], str] = {}

    def of(self, case: Case, measured: bool) -> list[Contender]:
        """The contenders that merge ``case``, task arithmetic always first; ``measured``: their inputs are there."""
        found, skipped = contenders(self._names(case), len(case.experts), measured)
        self.present |= {contender.label: contender for contender in found}
        self.absent |= {(label, len(case.experts)): reason for label, reason in skipped.items()}
        return found

    def measures(self, case: Case) -> bool:
        """Whether a contender of ``case`` asks for sensitivities."""
        return any(one.measured for one in contenders(self._names(case), len(case.experts), measured=True)[0])

    def skipped(self) -> list[dict[str, Any]]:
        """Who never merged a set of some size, and why."""
        return [{"method": label, "experts": count, "reason": reason} for (label, count), reason in self.absent.items()]

    def _names(self, case: Case) -> list[str]:
        if case.set != "all":
            named = self.budget.pair_methods
        elif case.arm not in self.budget.main_arms:
            named = self.budget.other_methods
        else:
            named = methods.names() if self.budget.methods is None else self.budget.methods
        return list(dict.fromkeys((REFERENCE, *named)))

"""Generation health of a set: what base, experts and merges write when they are let to."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge_lab.study.cases import Case, decided_by
from rlmerge_lab.study.contenders import Contender
from rlmerge_lab.study.tuning import made


@dataclass(frozen=True, slots=True)
class HealthJob:
    """Samples an answer of at most ``tokens`` tokens to ``prompts`` test prompts of each task, and measures them.

    ``merges`` are contenders with their parameters as results have them; those with measured inputs are left out.
    """

    case: Case
    merges: tuple[tuple[Contender, Mapping[str, Any]], ...]
    prompts: int
    tokens: int

    @property
    def label(self) -> str:
        return f"health.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        merges = [[contender.label, dict(parameters)] for contender, parameters in self.merges]
        asked = {"prompts": self.prompts, "tokens": self.tokens}
        return decided_by("health", case=self.case.identity, merges=merges, **asked)

    @property
    def cost(self) -> int:
        return 20 * self.prompts * len(self.case.tasks) * (1 + len(self.case.tasks) + len(self.merges))

    def run(self) -> list[dict[str, Any]]:
        """One row per model: ``base``, ``expert:<task>``, ``merge:<method>``."""
        from rlmerge.evaluate.health import health

        case = self.case
        own = {"base": case.base.path} | {f"expert:{t}": e.path for t, e in zip(case.tasks, case.experts, strict=True)}
        asked = [item.prompt for task in case.tasks for item in case.exams.test.items((task,))[: self.prompts]]
        with tempfile.TemporaryDirectory(prefix="rlmerge-study-") as folder:
            models = dict(own)
            for contender, parameters in self.merges:
                if contender.measured:
                    continue
                name = f"merge:{contender.label}"
                models[name] = Path(folder) / contender.label
                case.family.write(made(case, contender, parameters), models[name])
            found = health(models, asked, references=tuple(own), max_new_tokens=self.tokens, seed=case.seed)
        where = {"seed": case.seed, "arm": case.arm, "prompts": found.prompts, "max_new_tokens": found.max_new_tokens}
        return [{**where, "model": model.name, **_without_name(model.to_dict())} for model in found.models]


def _without_name(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != "name"}

"""Which layers a method's advantage over task arithmetic comes from: tensors of the two merges exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlmerge import methods
from rlmerge.recipe.layers import layer_index

from .candidates import REFERENCE, Candidate
from .cases import Case, decided_by
from .family import Family, Merge
from .off_task import off_task
from .sensitivity import SensitivityJob
from .tuning import merge_of

OUTSIDE = -1
"""Stands for embeddings, final norm and head among the numbers of layers."""


def is_ablated(candidate: Candidate) -> bool:
    """Whether a candidate looks at more than single weights, so that its layers are looked at one by one."""
    return methods.get(candidate.method).looks_at in ("inputs", "subspaces")


@dataclass(frozen=True, slots=True)
class AblationJob:
    """Scores on test what lies between ``candidate``'s tuned merge of a case and tuned task arithmetic.

    ``parameters`` and ``reference`` are those of the two merges as results have them. In each of the first ``layers``
    decoder layers the method's tensors stand in task arithmetic's merge (``layer``), then those outside the layers do
    (``outside``: embeddings, final norm, head); and the method's merge has task arithmetic in layer 0 (``rest``).
    """

    case: Case
    candidate: Candidate
    parameters: Mapping[str, Any]
    reference: Mapping[str, Any]
    layers: int
    measured: tuple[SensitivityJob, ...] = ()

    @property
    def label(self) -> str:
        return f"ablation.{self.case.name}.{self.candidate.label}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by(
            "ablation",
            case=self.case.identity,
            candidate={"label": self.candidate.label, **self.candidate.to_dict()},
            parameters=[dict(self.parameters), dict(self.reference)],
            layers=self.layers,
            measured=[job.digest for job in self.measured],
        )

    @property
    def cost(self) -> int:
        return self.case.items(0, self.layers + 2)

    def run(self) -> list[dict[str, Any]]:
        """One row per part."""
        family = self.case.family
        own = merge_of(self.case, self.candidate, self.parameters, self.measured).delta
        plain = merge_of(self.case, Candidate(REFERENCE, REFERENCE, None, "lambda"), self.reference).delta
        at = layer_numbers(family)
        parts = [("layer", number, at == number) for number in range(min(self.layers, int(at.max()) + 1))]
        parts += [("outside", None, at == OUTSIDE), ("rest", 0, at != 0)]
        return [self._row(family, part, layer, Merge(np.where(chosen, own, plain))) for part, layer, chosen in parts]

    def _row(self, family: Family, part: str, layer: int | None, merge: Merge) -> dict[str, Any]:
        case, weights = self.case, family.stored(merge)
        found, _ = case.evaluations.test.passes(family.model(weights), family.home, (*case.tasks, *case.off))
        test = {task: found[task] for task in case.tasks}
        return {
            "seed": case.seed,
            "arm": case.arm,
            "set": case.set,
            "method": self.candidate.label,
            "part": part,
            "layer": layer,
            "test": test,
            **case.test.outcome(test).to_dict(),
            **off_task(case.off, found),
            "norm": merge.norm / family.base_norm,
        }


def layer_numbers(family: Family) -> npt.NDArray[np.int16]:
    """The decoder layer of each weight [n], ``OUTSIDE`` for those of none."""
    shapes = family.config.shapes()
    numbers = [OUTSIDE if (layer := layer_index(name)) is None else layer for name in shapes]
    return np.repeat(np.array(numbers, np.int16), [int(np.prod(shape)) for shape in shapes.values()])

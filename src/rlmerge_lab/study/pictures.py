"""Landscape pictures: what an expert scores on its own task as another expert's update is added to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlmerge_lab.study.cases import Case, decided_by


@dataclass(frozen=True, slots=True)
class PictureJob:
    """One picture for each expert of a set: around it, along the update of the expert after it, on its own task."""

    case: Case
    items: int
    alphas: tuple[float, ...]
    betas: tuple[float, ...]

    @property
    def label(self) -> str:
        return f"landscape.{self.case.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        points = {"items": self.items, "alphas": self.alphas, "betas": self.betas}
        return decided_by("landscape", case=self.case.identity, **points)

    @property
    def cost(self) -> int:
        return len(self.case.tasks) * self.items * len(self.alphas) * len(self.betas)

    def run(self) -> list[dict[str, Any]]:
        """The pictures as plain data."""
        from rlmerge.evaluate.landscape import landscape
        from rlmerge.evaluate.scorers import TinyScorer

        family, tasks = self.case.family, self.case.tasks
        base, *experts = (family.model(vector).weights for vector in (family.base, *family.experts))
        rows: list[dict[str, Any]] = []
        for place, task in enumerate(tasks):
            other = (place + 1) % len(tasks)
            scorer = TinyScorer.of(family.home, self.case.exams.test.items((task,))[: self.items])
            found = landscape(
                base,
                experts[place],
                experts[other],
                scorer,
                alphas=self.alphas,
                betas=self.betas,
                names=(task, tasks[other]),
                seed=self.case.seed,
            )
            rows += [{"seed": self.case.seed, "arm": self.case.arm, **picture.to_dict()} for picture in found]
        return rows

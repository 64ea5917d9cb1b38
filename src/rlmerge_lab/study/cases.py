"""A set of experts to merge, with everything that decides the scores of a merge, and the jobs on single models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlmerge import __version__
from rlmerge_lab.study.family import Family
from rlmerge_lab.study.judging import Exam, Reference

SCHEMA = 1
"""Counted up whenever the same inputs give other results, so that older records are made again."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model directory and the digest of its weights."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Exams:
    """Questions to choose settings by (``dev``) and to report on (``test``)."""

    dev: Exam
    test: Exam

    def to_dict(self) -> dict[str, Any]:
        return {"dev": self.dev.to_dict(), "test": self.test.to_dict()}


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """Scores one model on all tasks of the lab: pass@1 on dev and test, and greedy on test."""

    name: str
    model: Model
    home: Path
    exams: Exams
    tasks: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"score.{self.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        return decided_by("score", model=self.model.digest, exams=self.exams.to_dict(), tasks=self.tasks)

    @property
    def cost(self) -> int:
        return len(self.exams.dev.items(self.tasks)) + len(self.exams.test.items(self.tasks))

    def run(self) -> dict[str, Any]:
        """{"dev", "test", "greedy"}: scores by task."""
        family = load_family(self.exams.dev.family, self.model.path, (self.model.path,))
        model = family.model(family.base)
        dev, _ = self.exams.dev.passes(model, self.home, self.tasks)
        test, greedy = self.exams.test.passes(model, self.home, self.tasks)
        return {"dev": dev, "test": test, "greedy": greedy}


@dataclass(frozen=True, slots=True)
class Case:
    """The experts of one ``seed`` and ``arm`` that are merged together, one for each of ``tasks``.

    ``set`` is "all", or "a+b" for a pair; ``dev`` and ``test`` say what base and experts score.
    """

    seed: int
    arm: str
    set: str
    tasks: tuple[str, ...]
    base: Model
    experts: tuple[Model, ...]
    exams: Exams
    dev: Reference
    test: Reference

    @property
    def name(self) -> str:
        """For file names and messages."""
        return f"seed-{self.seed}.{self.arm}.{self.set}"

    @property
    def family(self) -> Family:
        """The models in memory, shared between jobs on the same set."""
        return load_family(self.exams.dev.family, self.base.path, tuple(expert.path for expert in self.experts))

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides merges and their scores; names of arms and sets do not."""
        models = [self.base.digest, *(expert.digest for expert in self.experts)]
        return {"seed": self.seed, "tasks": self.tasks, "models": models, "exams": self.exams.to_dict()}

    def items(self, dev: float, test: float) -> int:
        """Answers in so many scorings on dev and on test."""
        return round(dev * len(self.exams.dev.items(self.tasks)) + test * len(self.exams.test.items(self.tasks)))


@lru_cache(maxsize=2)
def load_family(kind: type[Family], base: Path, experts: tuple[Path, ...]) -> Family:
    """The models, kept as long as jobs on them follow each other."""
    return kind.read(base, experts)


def decided_by(kind: str, **content: Any) -> dict[str, Any]:
    """The identity of a result of this ``kind``, made by this version of the program."""
    return {"kind": kind, "schema": SCHEMA, "version": __version__, **content}

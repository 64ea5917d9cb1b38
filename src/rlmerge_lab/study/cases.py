"""From a trained laboratory to the cases of a study: its models, what they score, and the sets that are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

from rlmerge import __version__
from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.checkpoint.module_kinds import place
from rlmerge.errors import RequestError
from rlmerge_lab.training.directory import Lab

from .budget import StudyBudget
from .family import Family
from .off_task import off_task
from .scoring import Evaluation, Reference, evaluation_of

SCHEMA = 1
"""Counted up whenever the same inputs give other results, so that older records are made again."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model directory and the digest of its weights."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Evaluations:
    """Questions to choose settings by (``dev``) and to report on (``test``)."""

    dev: Evaluation
    test: Evaluation

    def to_dict(self) -> dict[str, Any]:
        return {"dev": self.dev.to_dict(), "test": self.test.to_dict()}


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """Scores one model on all ``tasks`` of the lab: pass@1 on dev and test, and greedy on test; on ``held`` on test."""

    name: str
    model: Model
    home: Path
    evaluations: Evaluations
    tasks: tuple[str, ...]
    held: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"score.{self.name}"

    @property
    def identity(self) -> Mapping[str, Any]:
        held = {"held": self.held} if self.held else {}
        asked = {"evaluations": self.evaluations.to_dict(), "tasks": self.tasks, **held}
        return decided_by("score", model=self.model.digest, **asked)

    @property
    def cost(self) -> int:
        every = (*self.tasks, *self.held)
        return len(self.evaluations.dev.items(self.tasks)) + len(self.evaluations.test.items(every))

    def run(self) -> dict[str, Any]:
        """{"dev", "test", "greedy"}: scores by task, and "held" of held tasks."""
        family = load_family(self.evaluations.dev.family, self.model.path, (self.model.path,))
        model = family.model(family.base)
        dev, _ = self.evaluations.dev.passes(model, self.home, self.tasks)
        test, greedy = self.evaluations.test.passes(model, self.home, (*self.tasks, *self.held))
        own = {"test": {task: test[task] for task in self.tasks}, "greedy": {task: greedy[task] for task in self.tasks}}
        return {"dev": dev, **own, "held": {task: test[task] for task in self.held}}


@dataclass(frozen=True, slots=True)
class Case:
    """The experts of one ``seed`` and ``arm`` that are merged together, one for each of ``tasks``.

    ``set`` is "all", or "a+b" for a pair; ``dev`` and ``test`` say what base and experts score. ``off`` is what the
    base scores on test on tasks that none of these experts was trained on: held ones, and those outside of a pair.
    """

    seed: int
    arm: str
    set: str
    tasks: tuple[str, ...]
    base: Model
    experts: tuple[Model, ...]
    evaluations: Evaluations
    dev: Reference
    test: Reference
    off: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def name(self) -> str:
        """For file names and messages."""
        return f"seed-{self.seed}.{self.arm}.{self.set}"

    @property
    def family(self) -> Family:
        """The models in memory, shared between jobs on the same set."""
        return load_family(self.evaluations.dev.family, self.base.path, tuple(expert.path for expert in self.experts))

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides merges and their scores; names of arms and sets do not."""
        models = [self.base.digest, *(expert.digest for expert in self.experts)]
        off = {"off": tuple(self.off)} if self.off else {}
        asked = {"seed": self.seed, "tasks": self.tasks, **off}
        return {**asked, "models": models, "evaluations": self.evaluations.to_dict()}

    def items(self, dev: float, test: float) -> int:
        """Answers in so many scorings on dev and on test."""
        asked = self.evaluations.test.items((*self.tasks, *self.off))
        return round(dev * len(self.evaluations.dev.items(self.tasks)) + test * len(asked))


@lru_cache(maxsize=2)
def load_family(kind: type[Family], base: Path, experts: tuple[Path, ...]) -> Family:
    """The models, kept as long as jobs on them follow each other."""
    return kind.read(base, experts)


def decided_by(kind: str, **content: Any) -> dict[str, Any]:
    """The identity of a result of this ``kind``, made by this version of the program."""
    return {"kind": kind, "schema": SCHEMA, "version": __version__, **content}


Scored = Mapping[str, Mapping[str, float]]
"""{"dev", "test", "greedy", "held"}: scores by task of one model."""


class Source:
    """The models of ``lab`` with the digests of their weights; CheckpointError when one cannot be read."""

    def __init__(self, lab: Lab, budget: StudyBudget) -> None:
        if len(lab.tasks) < 2:
            raise RequestError("a study merges experts of at least two tasks", where=str(lab.root))
        self.lab = lab
        dev, test = (evaluation_of(lab, split, limit) for split, limit in _splits(budget))
        self.evaluations = Evaluations(dev, test)
        self.manifests: dict[Path, Mapping[str, Any]] = {}
        self.bases = {seed: self._model(lab.base(seed)) for seed in lab.seeds}
        self.held = lab.profile.held
        self.experts = {
            (seed, arm, task): self._model(lab.expert(seed, arm, task))
            for seed in lab.seeds
            for arm in lab.arms
            for task in lab.tasks
        }
        self.students = {(seed, arm): self._model(lab.student(seed, arm)) for seed in lab.seeds for arm in lab.students}

    @property
    def parameters(self) -> int:
        """Weights of one model."""
        base = next(iter(self.bases.values()))
        return sum(info.numel for info in open_checkpoint(base.path).tensors.values())

    @property
    def vocabulary(self) -> int | None:
        """Tokens that the models know: rows of the embedding; None where no tensor is called one."""
        tensors = open_checkpoint(next(iter(self.bases.values())).path).tensors
        return next((info.shape[0] for name, info in tensors.items() if place(name).kind == "embedding"), None)

    def score_jobs(self) -> dict[str, ScoreJob]:
        """One job per base, expert and student, by digest: the same weights are scored once."""
        jobs: dict[str, ScoreJob] = {}
        named = {f"seed-{seed}.base": model for seed, model in self.bases.items()}
        named |= {f"seed-{seed}.{arm}.{task}": model for (seed, arm, task), model in self.experts.items()}
        named |= {f"seed-{seed}.{arm}": model for (seed, arm), model in self.students.items()}
        for name, model in named.items():
            home = self.bases[int(name.split(".")[0].removeprefix("seed-"))].path
            jobs.setdefault(model.digest, ScoreJob(name, model, home, self.evaluations, self.lab.tasks, self.held))
        return jobs

    def case(self, seed: int, arm: str, tasks: Sequence[str], scored: Mapping[str, Scored]) -> Case:
        """The experts of ``tasks`` as a set to merge, with their scores by digest."""
        base = self.bases[seed]
        experts = tuple(self.experts[seed, arm, task] for task in tasks)

        def reference(split: str) -> Reference:
            own = {task: scored[e.digest][split][task] for task, e in zip(tasks, experts, strict=True)}
            return Reference({task: scored[base.digest][split][task] for task in tasks}, own)

        name = "all" if len(tasks) == len(self.lab.tasks) else "+".join(tasks)
        known = scored[base.digest]
        off = {task: score for task, score in known["test"].items() if task not in tasks} | dict(
            known.get("held") or {}
        )
        splits = reference("dev"), reference("test")
        return Case(seed, arm, name, tuple(tasks), base, experts, self.evaluations, *splits, off)

    def expert_rows(self, case: Case, figures: Mapping[str, Any], scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
        """What is to say about each expert of a set: its size and sparsity, its training, its scores on all tasks."""
        rows: list[dict[str, Any]] = []
        for task, expert in zip(case.tasks, case.experts, strict=True):
            manifest = self.manifests[expert.path]
            trained = {key: manifest.get(key) for key in ("steps", "stopped", "learning_rate")}
            where = {"seed": case.seed, "arm": case.arm, "task": task}
            found = scored[expert.digest]
            kept = off_task(scored[case.base.digest].get("held") or {}, found.get("held") or {})
            rows.append({**where, **figures[task], **trained, **found, **kept})
        return rows

    def student_rows(self, scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
        """What each student scores, and its scores on dev by generated tokens as it was trained."""
        rows: list[dict[str, Any]] = []
        for (seed, arm), model in self.students.items():
            found = scored[model.digest]
            kept = off_task(scored[self.bases[seed].digest].get("held") or {}, found.get("held") or {})
            curve = self.manifests[model.path].get("curve") or []
            rows.append({"seed": seed, "arm": arm, "curve": curve, **found, **kept})
        return rows

    def cases(self, scored: Mapping[str, Scored]) -> list[Case]:
        """All experts of each seed and arm, main comparison first."""
        return [self.case(seed, arm, self.lab.tasks, scored) for seed in self.lab.seeds for arm in self.lab.arms]

    def pairs(self, arms: Sequence[str], scored: Mapping[str, Scored]) -> list[Case]:
        """Every two experts of each seed and of each of ``arms`` that the lab has; none where two are all."""
        tasks = self.lab.tasks
        if len(tasks) == 2:
            return []
        return [
            self.case(seed, arm, pair, scored)
            for seed in self.lab.seeds
            for arm in self.lab.arms
            if arm in arms
            for pair in combinations(tasks, 2)
        ]

    def _model(self, path: Path) -> Model:
        """A finished model of the lab; RequestError when it is not there."""
        manifest = self.lab.manifest(path)
        if manifest is None:
            hint = (
                f"Train what is missing first: rlmerge lab train -o {self.lab.root} --profile {self.lab.profile.name}"
            )
            raise RequestError("is absent or unfinished", where=str(path), hint=hint)
        self.manifests[path] = manifest
        return Model(path, open_checkpoint(path).edition)


def _splits(budget: StudyBudget) -> tuple[tuple[str, int | None], ...]:
    return ("dev", budget.dev_items), ("test", budget.test_items)

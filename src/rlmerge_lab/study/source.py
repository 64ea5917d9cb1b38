"""From a trained laboratory to the cases of a study: which models there are, what they score, what is merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from rlmerge.checkpoint.model import open_checkpoint
from rlmerge.errors import RequestError
from rlmerge_lab.study.budget import StudyBudget
from rlmerge_lab.study.cases import Case, Exams, Model, ScoreJob
from rlmerge_lab.study.judging import Reference
from rlmerge_lab.study.sampled import exam_of
from rlmerge_lab.study.sensing import SensitivityJob

Scored = Mapping[str, Mapping[str, float]]
"""{"dev", "test", "greedy"}: scores by task of one model."""


class Named(Protocol):
    """Anything with a name, such as a profile."""

    @property
    def name(self) -> str: ...


class Lab(Protocol):
    """What a study needs of a trained laboratory: its directories, and what was trained in them."""

    @property
    def root(self) -> Path: ...

    @property
    def profile(self) -> Named: ...

    @property
    def seeds(self) -> tuple[int, ...]: ...

    @property
    def tasks(self) -> tuple[str, ...]: ...

    @property
    def arms(self) -> tuple[str, ...]: ...

    def base(self, seed: int) -> Path: ...

    def expert(self, seed: int, arm: str, task: str) -> Path: ...

    def items(self, split: str) -> Path: ...

    def manifest(self, model: Path) -> Mapping[str, Any] | None: ...


class Source:
    """The models of ``lab`` with the digests of their weights; CheckpointError when one cannot be read."""

    def __init__(self, lab: Lab, budget: StudyBudget) -> None:
        if len(lab.tasks) < 2:
            raise RequestError("a study merges experts of at least two tasks", where=str(lab.root))
        self.lab = lab
        dev, test = (exam_of(lab, split, limit) for split, limit in _splits(budget))
        self.exams = Exams(dev, test)
        self.manifests: dict[Path, Mapping[str, Any]] = {}
        self.bases = {seed: self._model(lab.base(seed)) for seed in lab.seeds}
        self.experts = {
            (seed, arm, task): self._model(lab.expert(seed, arm, task))
            for seed in lab.seeds
            for arm in lab.arms
            for task in lab.tasks
        }

    @property
    def parameters(self) -> int:
        """Weights of one model."""
        base = next(iter(self.bases.values()))
        return sum(info.numel for info in open_checkpoint(base.path).tensors.values())

    def score_jobs(self) -> dict[str, ScoreJob]:
        """One job per base and expert, by digest: the same weights are scored once."""
        jobs: dict[str, ScoreJob] = {}
        named = {f"seed-{seed}.base": model for seed, model in self.bases.items()}
        named |= {f"seed-{seed}.{arm}.{task}": model for (seed, arm, task), model in self.experts.items()}
        for name, model in named.items():
            home = self.bases[int(name.split(".")[0].removeprefix("seed-"))].path
            jobs.setdefault(model.digest, ScoreJob(name, model, home, self.exams, self.lab.tasks))
        return jobs

    def case(self, seed: int, arm: str, tasks: Sequence[str], scored: Mapping[str, Scored]) -> Case:
        """The experts of ``tasks`` as a set to merge, with their scores by digest."""
        base = self.bases[seed]
        experts = tuple(self.experts[seed, arm, task] for task in tasks)

        def reference(split: str) -> Reference:
            own = {task: scored[e.digest][split][task] for task, e in zip(tasks, experts, strict=True)}
            return Reference({task: scored[base.digest][split][task] for task in tasks}, own)

        name = "all" if len(tasks) == len(self.lab.tasks) else "+".join(tasks)
        return Case(seed, arm, name, tuple(tasks), base, experts, self.exams, reference("dev"), reference("test"))

    def expert_rows(self, case: Case, figures: Mapping[str, Any], scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
        """What is to say about each expert of a set: its size and sparsity, its training, its scores on all tasks."""
        rows: list[dict[str, Any]] = []
        for task, expert in zip(case.tasks, case.experts, strict=True):
            manifest = self.manifests[expert.path]
            trained = {key: manifest.get(key) for key in ("steps", "stopped", "learning_rate")}
            where = {"seed": case.seed, "arm": case.arm, "task": task}
            rows.append({**where, **figures[task], **trained, **scored[expert.digest]})
        return rows

    def sensitivity_jobs(self, case: Case, prompts: int, folder: Path) -> tuple[SensitivityJob, ...]:
        """What measures each expert of a set on prompts of its own task."""
        named = zip(case.tasks, case.experts, strict=True)
        return tuple(
            SensitivityJob(f"seed-{case.seed}.{case.arm}.{task}", expert, task, self.exams.dev, prompts, folder)
            for task, expert in named
        )

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

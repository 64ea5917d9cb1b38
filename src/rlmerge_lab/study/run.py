"""Runs a study: scores, geometry, sweeps, merges by every method, pictures; the result is study.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge import __version__
from rlmerge.methods import names
from rlmerge.progress import Progress, Quiet
from rlmerge_lab.jobs import Job, Pool
from rlmerge_lab.store import Records
from rlmerge_lab.training.directory import Lab

from .ablation import AblationJob, is_ablated
from .budget import StudyBudget
from .candidates import REFERENCE, Candidates
from .cases import Case, Scored, Source
from .measures import GeometryJob, HealthJob, LandscapeJob, SweepJob, text_prompts
from .sensitivity import SensitivityJob, can_measure, sensitivity_jobs
from .tuning import EXACT, HIGH, LOW, MergeJob


def run_study(
    lab: Lab,
    budget: StudyBudget | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    records: Path | None = None,
    command: str = "rlmerge lab study",
) -> dict[str, Any]:
    """Study how the experts of ``lab`` merge; the result is the content of study.json.

    Every piece is kept under ``records`` (``study/`` in the lab) by the digest of what decides it, so a run that was
    killed continues, and one with a larger budget adds what is new. The numbers do not depend on ``workers`` (None:
    one per usable core, fewer where models share a GPU). RequestError when the lab is incomplete or the budget names
    unknown methods; RunError when a process dies or the disk is full, after which the same call continues.
    """
    budget = budget or StudyBudget()
    budget.check_methods(names())
    kept = Records(records or lab.root / "study")
    source = Source(lab, budget)
    with Pool(kept, progress or Quiet(), workers or source.evaluations.dev.processes(_usable_cores())) as pool:
        return _Study(source, budget, pool).run(command)


class _Study:
    """One run: its phases, and the processor time they took, resumed pieces included."""

    def __init__(self, source: Source, budget: StudyBudget, pool: Pool) -> None:
        self.source, self.budget, self.pool = source, budget, pool
        self.candidates = Candidates(budget)
        self.seconds = 0.0
        self.sensed: dict[str, tuple[SensitivityJob, ...]] = {}

    def run(self, command: str) -> dict[str, Any]:
        """Everything, phase after phase."""
        score_jobs = self.source.score_jobs()
        scored: dict[str, Scored] = dict(zip(score_jobs, self._do("score models", [*score_jobs.values()]), strict=True))
        cases, pairs = self.source.cases(scored), self.source.pairs(self.budget.pair_arms, scored)
        shapes = self._do("measure geometry", [GeometryJob(case) for case in cases])
        sweeps = self._do("sweep coefficients", [SweepJob(case, self.budget.sweep) for case in cases])
        merges = _rows(merge["rows"] for merge in self._merges([*cases, *pairs]))
        pictures, health = self._pictures(cases), self._health(cases, merges)
        ablation = self._ablation(cases, merges)
        described = zip(cases, shapes, strict=True)
        return {
            **header(self.source, self.budget, self.candidates, self.seconds, command),
            "experts": _rows(self.source.expert_rows(case, shape["experts"], scored) for case, shape in described),
            "bases": [{"seed": seed, **scored[model.digest]} for seed, model in self.source.bases.items()],
            "students": self.source.student_rows(scored),
            "geometry": _rows(shape["pairs"] for shape in shapes),
            "merges": merges,
            "sweep": _rows(sweeps),
            "ablation": ablation,
            "landscape": pictures,
            "health": health,
        }

    def _do(self, phase: str, jobs: Sequence[Job]) -> list[Any]:
        """The results of ``jobs``, in order."""
        done = self.pool.do(phase, jobs)
        self.seconds += sum(record["seconds"] for record in done)
        return [record["result"] for record in done]

    def _merges(self, cases: Sequence[Case]) -> list[Any]:
        """Task arithmetic on every set, and then the other methods, at the norm it was tuned to as well."""
        sensed = self._sense(cases)
        self.sensed = dict(zip((case.name for case in cases), sensed, strict=True))
        methods = [self.candidates.of(case, measured=bool(jobs)) for case, jobs in zip(cases, sensed, strict=True)]
        trials = self.budget.trials
        first = [MergeJob(case, own[0], trials) for case, own in zip(cases, methods, strict=True)]
        references = self._do("tune task arithmetic", first)
        others = [
            MergeJob(case, candidate, trials, reference["norm"], jobs if candidate.measured else ())
            for case, own, reference, jobs in zip(cases, methods, references, sensed, strict=True)
            for candidate in own[1:]
        ]
        return [*references, *self._do("tune other methods", others)]

    def _sense(self, cases: Sequence[Case]) -> list[tuple[SensitivityJob, ...]]:
        """For each set the finished measurements of its experts, none where no method asks for them."""
        possible = bool(self.budget.calibration) and can_measure()
        jobs = [
            sensitivity_jobs(case, self.budget.calibration, self.pool.records.folder)
            if possible and self.candidates.measures(case)
            else ()
            for case in cases
        ]
        every = [job for each in jobs for job in each]
        for job in every:
            if not job.directory.exists():
                self.pool.records.drop(job.label, job.identity)
        self._do("measure sensitivities", every)
        return jobs

    def _pictures(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """Landscapes of the main arms on the first seeds."""
        budget, chosen = self.budget, self._main(cases, self.budget.landscape_seeds)
        jobs = [LandscapeJob(case, budget.landscape_items, budget.alphas, budget.betas) for case in chosen]
        return _rows(self._do("picture landscapes", jobs))

    def _health(self, cases: Sequence[Case], merges: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Generation health of the main arms on the first seeds, of merges as tuned and of the plain average."""
        found = {
            (row["seed"], row["arm"], row["set"], row["method"]): row["parameters"]
            for row in merges
            if row["rule"] == EXACT.get(row["method"], "tuned")
        }
        budget, jobs = self.budget, list[HealthJob]()
        texts = text_prompts(self.source.lab, budget.health_texts)
        for case in self._main(cases, self.budget.health_seeds):
            keys = {name: (case.seed, case.arm, case.set, name) for name in budget.health_methods}
            written = tuple((self.candidates.present[name], found[key]) for name, key in keys.items() if key in found)
            asked = (budget.health_prompts, budget.health_tokens, texts, budget.health_temperature)
            jobs.append(HealthJob(case, written, *asked))
        return _rows(self._do("let models write", jobs))

    def _ablation(self, cases: Sequence[Case], merges: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tuned merges of the main arms taken apart by layer, of methods that look at more than single weights."""
        if not self.budget.ablation_layers:
            return []
        tuned = {
            (row["seed"], row["arm"], row["set"], row["method"]): row["parameters"]
            for row in merges
            if row["rule"] == "tuned"
        }
        jobs: list[AblationJob] = []
        for case in self._main(cases, len(self.source.lab.seeds)):
            where = (case.seed, case.arm, case.set)
            for label, candidate in self.candidates.present.items():
                if is_ablated(candidate) and (*where, label) in tuned:
                    measured = self.sensed[case.name] if candidate.measured else ()
                    parameters = tuned[*where, label], tuned[*where, REFERENCE]
                    jobs.append(AblationJob(case, candidate, *parameters, self.budget.ablation_layers, measured))
        return _rows(self._do("take merges apart", jobs))

    def _main(self, cases: Sequence[Case], seeds: int) -> list[Case]:
        first = self.source.lab.seeds[:seeds]
        return [case for case in cases if case.seed in first and case.arm in self.budget.main_arms]


def _rows(tables: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SCHEMA = "rlmerge.lab.study/1"
"""Version of the result: the number grows when a field changes its meaning or goes away; new fields do not count."""


def header(source: Source, budget: StudyBudget, candidates: Candidates, seconds: float, command: str) -> dict[str, Any]:
    """The fields of study.json beside its tables; ``seconds`` of processor time went into the study itself."""
    lab = source.lab
    # Older manifests hold the time by the clock only, which other work beside the training makes longer.
    manifests = list(source.manifests.values())
    training = sum(float(one.get("cpu_seconds", one.get("seconds", 0.0))) for one in manifests)
    return {
        "schema": SCHEMA,
        "profile": lab.profile.name,
        "seeds": list(lab.seeds),
        "tasks": list(lab.tasks),
        "held": list(source.held),
        "arms": list(lab.arms),
        "methods": list(candidates.present),
        "method_details": {label: candidate.to_dict() for label, candidate in candidates.present.items()},
        "skipped": candidates.skipped(),
        "scores": source.evaluations.test.scores,
        "trials": budget.trials,
        "scales": [LOW, HIGH],
        "budget": budget.to_dict(),
        "versions": {**_trained_with(source), "rlmerge": __version__, **_here()},
        "command": command,
        "cpu_hours": (training + seconds) / 3600,
        "cpu_seconds": {"training": training, "study": seconds},
        "cpu_at_most": not all("cpu_seconds" in one for one in manifests),
        "parameters": source.parameters,
        "vocabulary": source.vocabulary,
    }


def _here() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__}


def _trained_with(source: Source) -> Mapping[str, str]:
    """The versions the experts' manifests name; those of the last one where they differ."""
    return {name: v for manifest in source.manifests.values() for name, v in manifest.get("versions", {}).items()}

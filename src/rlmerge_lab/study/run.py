"""Runs a study: scores, geometry, sweeps, merges by every method, pictures; the result is study.json."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rlmerge import methods
from rlmerge.progress import Progress, Quiet
from rlmerge_lab.study.budget import StudyBudget
from rlmerge_lab.study.cases import Case
from rlmerge_lab.study.heading import heading
from rlmerge_lab.study.lineup import Lineup
from rlmerge_lab.study.pictures import PictureJob
from rlmerge_lab.study.pool import Job, Pool
from rlmerge_lab.study.records import Records
from rlmerge_lab.study.sensing import SensitivityJob, can_measure
from rlmerge_lab.study.shape import ShapeJob
from rlmerge_lab.study.source import Lab, Scored, Source
from rlmerge_lab.study.sweep import SweepJob
from rlmerge_lab.study.tuning import EXACT, MergeJob
from rlmerge_lab.study.wellbeing import HealthJob


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
    budget.check_methods(methods.names())
    kept = Records(records or lab.root / "study")
    source = Source(lab, budget)
    with Pool(kept, progress or Quiet(), workers or source.exams.dev.processes(_usable_cores())) as pool:
        return _Study(source, budget, pool).run(command)


class _Study:
    """One run: its phases, and the processor time they took, resumed pieces included."""

    def __init__(self, source: Source, budget: StudyBudget, pool: Pool) -> None:
        self.source, self.budget, self.pool = source, budget, pool
        self.lineup = Lineup(budget)
        self.seconds = 0.0

    def run(self, command: str) -> dict[str, Any]:
        """Everything, phase after phase."""
        score_jobs = self.source.score_jobs()
        scored: dict[str, Scored] = dict(zip(score_jobs, self._do("score models", [*score_jobs.values()]), strict=True))
        cases, pairs = self.source.cases(scored), self.source.pairs(self.budget.pair_arms, scored)
        shapes = self._do("measure geometry", [ShapeJob(case) for case in cases])
        sweeps = self._do("sweep coefficients", [SweepJob(case, self.budget.sweep) for case in cases])
        merges = _rows(merge["rows"] for merge in self._merges([*cases, *pairs]))
        pictures, health = self._pictures(cases), self._health(cases, merges)
        described = zip(cases, shapes, strict=True)
        return {
            **heading(self.source, self.budget, self.lineup, self.seconds, command),
            "experts": _rows(self.source.expert_rows(case, shape["experts"], scored) for case, shape in described),
            "bases": [{"seed": seed, **scored[model.digest]} for seed, model in self.source.bases.items()],
            "geometry": _rows(shape["pairs"] for shape in shapes),
            "merges": merges,
            "sweep": _rows(sweeps),
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
        lineups = [self.lineup.of(case, measured=bool(jobs)) for case, jobs in zip(cases, sensed, strict=True)]
        trials = self.budget.trials
        first = [MergeJob(case, own[0], trials) for case, own in zip(cases, lineups, strict=True)]
        references = self._do("tune task arithmetic", first)
        others = [
            MergeJob(case, contender, trials, reference["norm"], jobs if contender.measured else ())
            for case, own, reference, jobs in zip(cases, lineups, references, sensed, strict=True)
            for contender in own[1:]
        ]
        return [*references, *self._do("tune other methods", others)]

    def _sense(self, cases: Sequence[Case]) -> list[tuple[SensitivityJob, ...]]:
        """For each set the finished measurements of its experts, none where no method asks for them."""
        possible = bool(self.budget.calibration) and can_measure()
        jobs = [
            self.source.sensitivity_jobs(case, self.budget.calibration, self.pool.records.folder)
            if possible and self.lineup.measures(case)
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
        jobs = [PictureJob(case, budget.landscape_items, budget.alphas, budget.betas) for case in chosen]
        return _rows(self._do("picture landscapes", jobs))

    def _health(self, cases: Sequence[Case], merges: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Generation health of the main arms on the first seeds, of merges as tuned and of the plain average."""
        found = {
            (row["seed"], row["arm"], row["set"], row["method"]): row["parameters"]
            for row in merges
            if row["rule"] == EXACT.get(row["method"], "tuned")
        }
        jobs: list[HealthJob] = []
        for case in self._main(cases, self.budget.health_seeds):
            keys = {name: (case.seed, case.arm, case.set, name) for name in self.budget.health_methods}
            written = tuple((self.lineup.present[name], found[key]) for name, key in keys.items() if key in found)
            jobs.append(HealthJob(case, written, self.budget.health_prompts, self.budget.health_tokens))
        return _rows(self._do("let models write", jobs))

    def _main(self, cases: Sequence[Case], seeds: int) -> list[Case]:
        first = self.source.lab.seeds[:seeds]
        return [case for case in cases if case.seed in first and case.arm in self.budget.main_arms]


def _rows(tables: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

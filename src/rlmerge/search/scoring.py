"""Scores of base, experts and candidates, on as many items of each task as a decision needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.compare import Comparer, check_own
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.exact import Exact, Item, score
from rlmerge.evaluate.harness.command import Command
from rlmerge.evaluate.runner import Runner
from rlmerge.evaluate.subjects import Subject, open_subjects
from rlmerge.evaluate.task_specs import Job, read_tasks
from rlmerge.evaluate.task_specs import Options as EvalOptions
from rlmerge.evaluate.tokenizers import check_tokenizers
from rlmerge.language.characters import read_encoder
from rlmerge.language.tiny import MAX_PARAMETERS, TinyConfig, TinyLlama, load
from rlmerge.progress import Progress

from .candidates import Candidate
from .objectives import Standards

__all__ = ["Bench", "EvalOptions", "Subject", "open_models"]

CANDIDATE = "the candidate"
"""What a candidate is called in the table of its objective."""

SHARES = (0.25, 0.5, 1.0)
"""Shares of the items at which candidates are compared: the better half goes on to the next."""

FEWEST = 8
"""Items of a task below which nothing is decided on a part of them."""

Scores = Mapping[str, Score]
"""The score that models are judged by, by task."""


def open_models(base: str, experts: Sequence[str]) -> tuple[tuple[Subject, ...], list[str]]:
    """Base and experts, named and ready to be scored, and warnings about their tokenizers."""
    subjects = open_subjects(base, experts, ())
    return subjects, check_tokenizers(subjects)


@dataclass
class _Level:
    """One share of the items: how many of each task, None for all there are."""

    count: int | None
    jobs: tuple[Job, ...]


class Bench:
    """Tasks to score on. The first items of a task are the same for every model, so all comparisons are paired."""

    def __init__(
        self, tasks: Sequence[str], options: EvalOptions, limit: int | None, prune: bool, progress: Progress
    ) -> None:
        self.options = replace(options, limit=limit)
        self.progress = progress
        jobs = read_tasks(tasks, self.options)
        self.labels = [job.label for job in jobs]
        self.levels = self._levels(jobs, tasks, limit) if prune else [_Level(None, jobs)]
        self.references: dict[str, dict[str, Score]] = {}
        """Scores of base and experts on all items, by task and model."""
        self.warnings: list[str] = []

    def _levels(self, jobs: tuple[Job, ...], tasks: Sequence[str], limit: int | None) -> list[_Level]:
        whole = [_Level(None, jobs)]
        if any(isinstance(job.evaluator, Command) for job in jobs):
            return whole
        exact = all(isinstance(job.evaluator, Exact) for job in jobs)
        most = max(len(_items(job)) for job in jobs) if exact else limit
        if most is None or most * SHARES[0] < FEWEST:
            return whole
        counts = [math.ceil(most * share) for share in SHARES[:-1]]
        parts = [jobs if exact else read_tasks(tasks, replace(self.options, limit=count)) for count in counts]
        return [*(_Level(count, part) for count, part in zip(counts, parts, strict=True)), *whole]

    def identity(self) -> list[object]:
        """What decides the scores beside the models, as plain data."""
        return [
            [job.label, job.task, job.evaluator.name, dict(job.evaluator.identity())] for job in self.levels[-1].jobs
        ]

    def accepts_memory(self, model: Checkpoint) -> bool:
        """Whether candidates shaped like ``model`` can be scored without being written."""
        if not all(isinstance(job.evaluator, Exact) for job in self.levels[-1].jobs):
            return False
        try:
            return TinyConfig.parse(model.config or {}, model.reference).parameters <= MAX_PARAMETERS
        except RequestError:
            return False

    def score_references(self, subjects: Sequence[Subject]) -> None:
        """Score base and experts on all items, or find their scores in the user's store. RunError when one fails."""
        found = self._reference_scores(subjects, self.levels[-1].jobs)
        self.references = {label: {s.name: found[s.digest, label] for s in subjects} for label in self.labels}
        self._subjects = subjects

    def _reference_scores(self, subjects: Sequence[Subject], jobs: Sequence[Job]) -> dict[tuple[str, str], Score]:
        runner = Runner(self.options.directory, subjects[0].name, False, True, self.progress)
        try:
            for subject in subjects:
                runner.score(subject, jobs, subject.name)
        finally:
            runner.close()
        if runner.failed:
            raise runner.failure()
        self.warnings += [warning for warning in runner.warnings if warning not in self.warnings]
        return {key: scores[0] for key, scores in runner.found.items()}

    def standards(self, own: Mapping[str, Sequence[str]] | None) -> Standards:
        """What candidates are measured by; ``own`` as for ``rlmerge eval``."""
        names = [subject.name for subject in self._subjects]
        check_own(own or {}, names[1:], self.labels)
        roles = {name: "base" if place == 0 else "expert" for place, name in enumerate(names)}
        comparer = Comparer(self.references, roles)
        self.warnings += [warning for warning in comparer.warnings if warning not in self.warnings]
        falling = {task for task, row in self.references.items() if not row[names[0]].higher_is_better}
        return Standards(names[0], comparer.own_tasks(own), frozenset(falling))

    def table(self, scores: Scores, level: int) -> dict[str, dict[str, float]]:
        """Values by task and model, of a candidate's ``scores`` beside base and experts on the same items."""
        count = self.levels[level].count
        if count is not None and any(score.items is None for row in self.references.values() for score in row.values()):
            part = self._reference_scores(self._subjects, self.levels[level].jobs)
            rows = {
                label: {subject.name: part[subject.digest, label].value for subject in self._subjects}
                for label in self.labels
            }
        else:
            rows = {
                label: {name: _value(score, count) for name, score in row.items()}
                for label, row in self.references.items()
            }
        return {label: {**row, CANDIDATE: scores[label].value} for label, row in rows.items()}

    def score(self, candidate: Candidate, level: int) -> dict[str, Score]:
        """The first score of each task, on the items of a level. RunError or RequestError when the harness fails."""
        jobs, count = self.levels[level].jobs, self.levels[level].count
        if all(isinstance(job.evaluator, Exact) for job in jobs):
            return self._exact(candidate, jobs, count)
        assert candidate.directory is not None, "only exact scores are made in memory"
        found: dict[str, Score] = {}
        groups: dict[int, list[Job]] = {}
        for job in jobs:
            groups.setdefault(id(job.evaluator), []).append(job)
        for group in groups.values():
            evaluator = group[0].evaluator
            try:
                given = evaluator.score(candidate.directory, [job.task for job in group])
            finally:
                close = getattr(evaluator, "close", None)
                if close is not None:
                    close()
            for job in group:
                mine = next((each for each in given if each.task == job.task), None)
                if mine is None:
                    hint = "It must return at least one for every task."
                    raise RunError("the evaluator gave no score of it", where=job.label, hint=hint)
                self._check_metric(job.label, mine)
                found[job.label] = replace(mine, task=job.label)
        return found

    def _exact(self, candidate: Candidate, jobs: Sequence[Job], count: int | None) -> dict[str, Score]:
        """Exact scores, of which only items that were not seen yet are computed."""
        network: TinyLlama | None = None
        spell = read_encoder(self._subjects[0].path)
        found: dict[str, Score] = {}
        for job in jobs:
            known = candidate.scored.setdefault(job.label, [])
            new = _items(job)[len(known) : count]
            if new:
                network = network or self._network(candidate)
                # Far from every trained model weights overflow; what is then not finite is no score.
                with np.errstate(over="ignore", invalid="ignore"):
                    known += score(network, new, spell).probability.tolist()
            found[job.label] = Score.of_items(job.label, "pass@1", known[:count])
        return found

    def _network(self, candidate: Candidate) -> TinyLlama:
        if candidate.state is None:
            assert candidate.directory is not None, "a candidate is in memory or on disk"
            return load(candidate.directory)
        config = TinyConfig.parse(self._subjects[0].checkpoint.config or {}, self._subjects[0].checkpoint.reference)
        weights = candidate.weights()
        return TinyLlama(config, {name: weights[name] for name in config.shapes()})

    def _check_metric(self, label: str, found: Score) -> None:
        reference = next(iter(self.references[label].values()))
        if found.metric != reference.metric:
            what = f"was scored by {found.metric!r}, and its base by {reference.metric!r}"
            raise RunError(what, where=label, hint="Make the harness give the same metric first for every model.")


def _items(job: Job) -> list[Item]:
    exact = job.evaluator
    assert isinstance(exact, Exact), "only exact tasks list their items"
    return [item for item in exact.items if item.task == job.task][: exact.limit]


def _value(found: Score, count: int | None) -> float:
    """The mean of the first ``count`` items."""
    if count is None or found.items is None:
        return found.value
    part = found.items[:count]
    return math.fsum(part) / len(part)

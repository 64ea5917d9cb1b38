"""Running evaluators over models, one task after another, keeping every score as soon as it is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rlmerge.errors import RunError
from rlmerge.evaluate.cache import Entry, Store
from rlmerge.evaluate.scores import Holding, Score
from rlmerge.evaluate.subjects import Subject
from rlmerge.evaluate.words import Job
from rlmerge.progress import Progress

_Todo = tuple[Job, Entry]
"""A task to be scored, and where its scores will be kept."""


@dataclass
class Scorer:
    """Scores models, each content and task once, and remembers what failed.

    ``found`` has the scores by model digest and task, ``fresh`` the digests for which a harness was run, ``failed`` the
    failures by model and task. What fails on ``base`` is not tried on other models: nothing could be compared.
    """

    store: Store
    base: str
    rescore: bool
    together: bool
    progress: Progress
    found: dict[tuple[str, str], tuple[Score, ...]] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    failed: dict[tuple[str, str], RunError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    holding: Holding | None = None

    def score(self, subject: Subject, jobs: Sequence[Job], phase: str) -> None:
        """Find or make the scores of one model. A harness's failure is kept and the other tasks go on."""
        hopeless = {label for name, label in self.failed if name == self.base}
        todo: list[_Todo] = []
        for job in jobs:
            key = subject.digest, job.label
            if key in self.found or job.label in hopeless:
                continue
            entry = self.store.entry(job.evaluator, subject.digest, job.task)
            kept = None if self.rescore else entry.load()
            if kept is None:
                todo.append((job, entry))
            else:
                self.found[key] = _relabel(kept, job)
        if not todo:
            return
        batches = _by_evaluator(todo) if self.together else [[one] for one in todo]
        self.progress.start(f"scoring {phase}", len(todo), "tasks")
        for batch in batches:
            try:
                self._run(subject, batch)
            except RunError as error:
                self.failed.update({(subject.name, job.label): error for job, _ in batch})
                labels = ", ".join(job.label for job, _ in batch)
                self.progress.message(f"{subject.name} on {labels} failed: {error.what}")
            self.progress.advance(len(batch))
        self.progress.done()

    def _run(self, subject: Subject, batch: Sequence[_Todo]) -> None:
        evaluator = batch[0][0].evaluator
        if evaluator is not self.holding:
            self.close()
        self.holding = evaluator if isinstance(evaluator, Holding) else None
        started = time.monotonic()
        given = evaluator.score(subject.path, [job.task for job, _ in batch])
        seconds = time.monotonic() - started
        for job, entry in batch:
            scores = tuple(score for score in given if score.task == job.task)
            if not scores:
                what = f"the evaluator {job.evaluator.name!r} gave no score of it"
                raise RunError(what, where=job.label, hint="It must return at least one for every task.")
            self.found[subject.digest, job.label] = _relabel(scores, job)
            self.fresh.add(subject.digest)
            self._keep(subject, job, entry, scores)
            first = scores[0]
            self.progress.message(f"{subject.name} on {job.label}: {first.metric} {first.value:.3f} ({seconds:.0f} s)")

    def _keep(self, subject: Subject, job: Job, entry: Entry, scores: tuple[Score, ...]) -> None:
        if self.store.entry(job.evaluator, subject.digest, job.task) != entry:
            # Under which content they were made, nobody can say.
            self._warn(f"data or programs of {job.evaluator.name!r} changed while it ran; its scores are not kept")
            return
        try:
            entry.save(scores)
        except OSError as error:
            reason = f"could not be kept in {self.store.directory} ({error.strerror})"
            self._warn(f"scores {reason}; a later run scores again")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.message(f"warning: {text}")

    def close(self) -> None:
        """Let the evaluator of the last turn give back its memory: two models may not fit on a GPU."""
        if self.holding is not None:
            self.holding.close()
            self.holding = None

    def failure(self) -> RunError:
        """Everything that failed as one error."""
        lines = [f"{name} on {task}: {error}" for (name, task), error in self.failed.items()]
        hint = "Finished scores are kept; run the same command again for the rest."
        what = f"{len(lines)} score{'s' * (len(lines) > 1)} could not be made:\n" + "\n".join(lines)
        return RunError(what, hint=hint)


def _relabel(scores: Sequence[Score], job: Job) -> tuple[Score, ...]:
    """The scores under the name that reports use."""
    return tuple(replace(score, task=job.label) for score in scores)


def _by_evaluator(todo: Sequence[_Todo]) -> list[list[_Todo]]:
    groups: dict[int, list[_Todo]] = {}
    for job, entry in todo:
        groups.setdefault(id(job.evaluator), []).append((job, entry))
    return list(groups.values())

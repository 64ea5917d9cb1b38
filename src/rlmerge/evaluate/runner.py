"""Running evaluators over models, one task after another, keeping every score as soon as it is known."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlmerge.errors import RunError
from rlmerge.evaluate.evaluator import ClosableEvaluator, Score
from rlmerge.evaluate.subjects import Subject
from rlmerge.evaluate.task_specs import Job
from rlmerge.jsondata import Entry, JsonStore, plain
from rlmerge.progress import Progress

SCHEMA = "rlmerge.scores/2"


@dataclass
class Runner:
    """Scores models, each content and task once, and remembers what failed.

    Scores are kept under ``scores/`` of the directory ``store``. ``found`` has them by model digest and task, ``fresh``
    the digests for which a harness was run, ``failed`` the failures by model and task. What fails on ``base`` is not
    tried on other models: nothing could be compared.
    """

    store: Path
    base: str
    rescore: bool
    together: bool
    progress: Progress
    found: dict[tuple[str, str], tuple[Score, ...]] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    failed: dict[tuple[str, str], RunError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    open_evaluator: ClosableEvaluator | None = None

    def score(self, subject: Subject, jobs: Sequence[Job], phase: str) -> None:
        """Find or make the scores of one model. A harness's failure is kept and the other tasks go on."""
        failed_on_base = {label for name, label in self.failed if name == self.base}
        missing: list[Job] = []
        for job in jobs:
            key = subject.digest, job.label
            if key in self.found or job.label in failed_on_base:
                continue
            kept = None if self.rescore else load_scores(score_entry(self.store, job, subject.digest))
            if kept is None:
                missing.append(job)
            else:
                self.found[key] = _relabel(kept, job)
        if not missing:
            return
        self.progress.start(f"scoring {phase}", len(missing), "tasks")
        for batch in _by_evaluator(missing) if self.together else [[job] for job in missing]:
            try:
                self._run(subject, batch)
            except RunError as error:
                self.failed.update({(subject.name, job.label): error for job in batch})
                labels = ", ".join(job.label for job in batch)
                self.progress.message(f"{subject.name} on {labels} failed: {error.what}")
            self.progress.advance(len(batch))
        self.progress.done()

    def _run(self, subject: Subject, batch: Sequence[Job]) -> None:
        evaluator = batch[0].evaluator
        if evaluator is not self.open_evaluator:
            self.close()
        self.open_evaluator = evaluator if isinstance(evaluator, ClosableEvaluator) else None
        entries = [score_entry(self.store, job, subject.digest) for job in batch]
        started = time.monotonic()
        given = evaluator.score(subject.path, [job.task for job in batch])
        seconds = time.monotonic() - started
        for job, entry in zip(batch, entries, strict=True):
            scores = tuple(score for score in given if score.task == job.task)
            if not scores:
                what = f"the evaluator {evaluator.name!r} gave no score for this task"
                raise RunError(what, where=job.label, hint="It must return at least one for every task.")
            self.found[subject.digest, job.label] = _relabel(scores, job)
            self.fresh.add(subject.digest)
            self._keep(subject, job, entry, scores)
            first = scores[0]
            self.progress.message(f"{subject.name} on {job.label}: {first.metric} {first.value:.3f} ({seconds:.0f} s)")

    def _keep(self, subject: Subject, job: Job, entry: Entry, scores: tuple[Score, ...]) -> None:
        if score_entry(self.store, job, subject.digest) != entry:
            # Under which content they were made, nobody can say.
            self._warn(f"data or programs of {job.evaluator.name!r} changed while it ran; its scores are not kept")
            return
        try:
            entry.save([score.to_dict() for score in scores])
        except OSError as error:
            self._warn(f"scores could not be kept in {self.store} ({error.strerror}); a later run scores again")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress.message(f"warning: {text}")

    def close(self) -> None:
        """Let the evaluator of the last turn give back its memory: two models may not fit on a GPU."""
        if self.open_evaluator is not None:
            self.open_evaluator.close()
            self.open_evaluator = None

    def failure(self) -> RunError:
        """Everything that failed as one error."""
        lines = [f"{name} on {task}: {error}" for (name, task), error in self.failed.items()]
        hint = "Finished scores are kept; run the same command again for the rest."
        what = f"{len(lines)} score{'s' * (len(lines) > 1)} could not be made:\n" + "\n".join(lines)
        return RunError(what, hint=hint)


def score_entry(store: Path, job: Job, model: str) -> Entry:
    """Where the scores of the model with digest ``model`` on a task are kept."""
    evaluator = job.evaluator
    about: dict[str, Any] = {"schema": SCHEMA, "model": model, "evaluator": evaluator.name, "task": job.task}
    return JsonStore(store / "scores").entry({**about, "identity": plain(evaluator.identity())})


def load_scores(entry: Entry) -> tuple[Score, ...] | None:
    """The scores kept in ``entry``; None without any that can be trusted."""
    rows: list[Mapping[str, Any]] = entry.load() or []
    try:
        return tuple(map(Score.from_dict, rows)) or None
    except (KeyError, TypeError, ValueError, RunError):
        return None


def _relabel(scores: Sequence[Score], job: Job) -> tuple[Score, ...]:
    """The scores under the name that reports use."""
    return tuple(replace(score, task=job.label) for score in scores)


def _by_evaluator(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        groups.setdefault(id(job.evaluator), []).append(job)
    return list(groups.values())

"""Scoring a base, its experts and merges with whatever harness, and comparing them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlmerge.errors import RunError
from rlmerge.evaluate.cache import Store
from rlmerge.evaluate.compare import Comparer, check_own
from rlmerge.evaluate.prompts import read_prompts
from rlmerge.evaluate.results import Cell, Evaluation, ScoredModel, Task
from rlmerge.evaluate.scores import Score
from rlmerge.evaluate.scoring import Scorer
from rlmerge.evaluate.statistics import Interval
from rlmerge.evaluate.subjects import Subject, open_subjects
from rlmerge.evaluate.survey import read_landscape, survey_health, survey_landscape
from rlmerge.evaluate.tokenizers import check_tokenizers
from rlmerge.evaluate.words import Job, Options, read_tasks
from rlmerge.progress import Progress, Quiet

PathLike = str | os.PathLike[str]


def evaluate(
    models: Sequence[PathLike],
    *,
    base: PathLike,
    experts: Sequence[PathLike],
    tasks: Sequence[str | Job],
    options: Options | None = None,
    own: Mapping[str, Sequence[str]] | None = None,
    rescore: bool = False,
    together: bool = False,
    health: PathLike | None = None,
    landscape: PathLike | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the merges ``models``, their ``base`` and every one of their ``experts`` on ``tasks``, and compare.

    ``tasks`` are words as on the command line (see ``words``) or jobs with an evaluator of one's own. Scores are kept
    in the store of ``options`` as soon as they are known and found there again unless ``rescore``; a killed call goes
    on where it was. ``own`` gives the tasks each expert was trained for, by the expert's name; ``Comparer.own_tasks``
    says what happens without it. With ``together`` a harness gets all tasks of a model in one call, which loads the
    model once but loses them all when it is killed. ``health`` is a file of prompts that every model answers,
    ``landscape`` one of items with listed answers that the surroundings of the experts are scored on; neither is kept.

    RequestError, before anything is scored where possible, for models or tasks that make no sense; RunError that lists
    every model and task that could not be scored, once all others are.
    """
    options, progress = options or Options(), progress or Quiet()
    subjects = open_subjects(base, experts, models)
    warnings = [*check_tokenizers(subjects), *_twins(subjects)]
    jobs = [job for task in tasks for job in ([task] if isinstance(task, Job) else ())]
    words = [task for task in tasks if isinstance(task, str)]
    jobs += read_tasks(words, options) if words else ()
    check_own(own or {}, [s.name for s in subjects if s.role == "expert"], [job.label for job in jobs])
    prompts = read_prompts(Path(health)) if health is not None else ()
    items = read_landscape(Path(landscape), subjects, options.limit) if landscape is not None else ()
    scorer = Scorer(Store(options.directory), subjects[0].name, rescore, together, progress)
    try:
        for place, subject in enumerate(subjects, 1):
            scorer.score(subject, jobs, f"{subject.name} ({place} of {len(subjects)})")
    finally:
        scorer.close()
    if scorer.failed:
        raise scorer.failure()
    found = _compare(subjects, jobs, scorer, own, [*warnings, *scorer.warnings])
    owners = {task.task: task.experts for task in found.tasks}
    return replace(
        found,
        health=survey_health(subjects, prompts, options, progress) if prompts else None,
        landscape=survey_landscape(subjects, items, owners, options, progress) if items else None,
    )


def _twins(subjects: Sequence[Subject]) -> list[str]:
    """Warnings about models with the same content, which no score can tell apart."""
    first: dict[str, Subject] = {}
    warnings: list[str] = []
    for subject in subjects:
        twin = first.setdefault(subject.digest, subject)
        if twin is not subject:
            warnings.append(f"{subject.name} holds exactly what {twin.name} holds; both have the same scores")
    return warnings


def _compare(
    subjects: Sequence[Subject],
    jobs: Sequence[Job],
    scorer: Scorer,
    own: Mapping[str, Sequence[str]] | None,
    warnings: Sequence[str],
) -> Evaluation:
    table = {
        job.label: {subject.name: scorer.found[subject.digest, job.label][0] for subject in subjects} for job in jobs
    }
    comparer = Comparer(table, {subject.name: subject.role for subject in subjects})
    owners = comparer.own_tasks(own)
    idle = [s.name for s in subjects if s.role == "expert" and not any(s.name in names for names in owners.values())]
    notes = [f"no task was found to be the own one of {name}; name them with --own" for name in idle]
    return Evaluation(
        models=tuple(
            ScoredModel(
                subject.name,
                subject.path,
                subject.role,
                subject.digest,
                "now" if subject.digest in scorer.fresh else "cached",
                subject.checkpoint.warnings,
            )
            for subject in subjects
        ),
        tasks=tuple(_task(label, row, owners[label]) for label, row in table.items()),
        scores=tuple(
            Cell(name, score, comparer.interval(label, name))
            for label, row in table.items()
            for name, score in row.items()
        ),
        other_scores=tuple(
            Cell(subject.name, score, _from_error(score))
            for job in jobs
            for subject in subjects
            for score in scorer.found[subject.digest, job.label][1:]
        ),
        merges=tuple(comparer.merge(subject.name, owners) for subject in subjects if subject.role == "merge"),
        comparisons=tuple(comparer.comparisons()),
        health=None,
        landscape=None,
        warnings=(*warnings, *comparer.warnings, *notes),
    )


def _task(label: str, row: Mapping[str, Score], experts: tuple[str, ...]) -> Task:
    score = next(iter(row.values()))
    for name, other in row.items():
        if (other.metric, other.higher_is_better) != (score.metric, score.higher_is_better):
            what = f"{name} was scored by {other.metric!r} and its base by {score.metric!r}"
            raise RunError(what, where=label, hint="Make the harness give the same metric first for every model.")
    return Task(label, score.metric, score.higher_is_better, score.n, score.k, experts)


def _from_error(score: Score) -> Interval:
    """A score's normal 95 % interval."""
    width = float("nan") if score.stderr is None else 1.959964 * score.stderr
    return Interval(score.value, score.value - width, score.value + width)

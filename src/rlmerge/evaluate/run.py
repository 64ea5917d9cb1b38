"""Scoring a base, its experts and merges with whatever harness, and comparing them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlmerge.errors import RequestError, RunError
from rlmerge.evaluate.compare import Comparer, check_own
from rlmerge.evaluate.evaluator import Score
from rlmerge.evaluate.generate import make_generator
from rlmerge.evaluate.health import Health
from rlmerge.evaluate.health import health as measure_health
from rlmerge.evaluate.landscape.survey import read_landscape, survey_landscape
from rlmerge.evaluate.results import Cell, Evaluation, ScoredModel, Task
from rlmerge.evaluate.runner import Runner
from rlmerge.evaluate.statistics import Interval
from rlmerge.evaluate.subjects import Subject, open_subjects
from rlmerge.evaluate.task_specs import Job, Options, read_tasks
from rlmerge.evaluate.tokenizers import check_tokenizers
from rlmerge.language.data import read_prompts
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

    ``tasks`` are specifications as on the command line (see ``task_specs``) or jobs with an evaluator of one's own.
    Scores are kept in the store of ``options`` as soon as they are known and found there again unless ``rescore``; a
    killed call goes on where it was. ``own`` gives the tasks each expert was trained for, by the expert's name;
    ``Comparer.own_tasks`` says what happens without it. With ``together`` a harness gets all tasks of a model in one
    call, which loads the model once but loses them all when it is killed. ``health`` is a file of prompts that every
    model answers, ``landscape`` one of items with listed answers that the surroundings of the experts are scored on;
    neither is kept.

    RequestError, before anything is scored where possible, for models or tasks that make no sense; RunError that lists
    every model and task that could not be scored, once all others are.
    """
    options, progress = options or Options(), progress or Quiet()
    for name, value in (("models", models), ("experts", experts), ("tasks", tasks)):
        if isinstance(value, str | os.PathLike):  # a text is a sequence too, of its characters
            raise RequestError(f"{name} must be a list, not {os.fspath(value)!r}", hint=f"Write [{value!r}].")
    subjects = open_subjects(base, experts, models)
    warnings = [*check_tokenizers(subjects), *_duplicates(subjects)]
    jobs = _jobs(tasks, options)
    check_own(own or {}, [s.name for s in subjects if s.role == "expert"], [job.label for job in jobs])
    prompts = read_prompts(Path(health)) if health is not None else ()
    items = read_landscape(Path(landscape), subjects, options.limit) if landscape is not None else ()
    runner = Runner(options.directory, subjects[0].name, rescore, together, progress)
    try:
        for place, subject in enumerate(subjects, 1):
            runner.score(subject, jobs, f"{subject.name} ({place} of {len(subjects)})")
    finally:
        runner.close()
    if runner.failed:
        raise runner.failure()
    found = _compare(subjects, jobs, runner, own, [*warnings, *runner.warnings])
    owners = {task.task: task.experts for task in found.tasks}
    return replace(
        found,
        health=survey_health(subjects, prompts, options, progress) if prompts else None,
        landscape=survey_landscape(subjects, items, owners, options, progress) if items else None,
    )


def _jobs(tasks: Sequence[str | Job], options: Options) -> list[Job]:
    """What is to be scored, each under a label of its own."""
    specs = [task for task in tasks if isinstance(task, str)]
    jobs = [task for task in tasks if isinstance(task, Job)]
    jobs += read_tasks(specs, options) if specs or not jobs else ()
    labels = [job.label for job in jobs]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise RequestError("the task is given twice", where=twice, hint="Give every job a label of its own.")
    return jobs


def _duplicates(subjects: Sequence[Subject]) -> list[str]:
    """Warnings about models with the same content, which no score can tell apart."""
    first: dict[str, Subject] = {}
    warnings: list[str] = []
    for subject in subjects:
        known = first.setdefault(subject.digest, subject)
        if known is not subject:
            warnings.append(f"{subject.name} holds exactly what {known.name} holds; both have the same scores")
    return warnings


def survey_health(subjects: Sequence[Subject], prompts: Sequence[str], options: Options, progress: Progress) -> Health:
    """Generation health of every model on ``prompts``, with the KL to base and experts."""
    own_writer = options.backend != "transformers"
    return measure_health(
        {subject.name: subject.path for subject in subjects},
        prompts,
        references=[subject.name for subject in subjects if subject.role != "merge"],
        generator=make_generator(options.backend, server=options.server) if own_writer else None,
        device=options.device or "auto",
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=options.seed,
        chat=options.chat,
        progress=progress,
    )


def _compare(
    subjects: Sequence[Subject],
    jobs: Sequence[Job],
    runner: Runner,
    own: Mapping[str, Sequence[str]] | None,
    warnings: Sequence[str],
) -> Evaluation:
    table = {
        job.label: {subject.name: runner.found[subject.digest, job.label][0] for subject in subjects} for job in jobs
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
                "now" if subject.digest in runner.fresh else "cached",
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
            for score in runner.found[subject.digest, job.label][1:]
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

"""The measurements of an evaluation beside its scores: how models generate, and what lies around the experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError
from rlmerge.evaluate import tiny
from rlmerge.evaluate.basin import barrier, sharpness
from rlmerge.evaluate.generate import make_generator
from rlmerge.evaluate.health import health
from rlmerge.evaluate.landscape import Scorer, landscape
from rlmerge.evaluate.scorers import CausalScorer, TinyScorer
from rlmerge.evaluate.subjects import Subject
from rlmerge.evaluate.tasks import Item, read_items
from rlmerge.evaluate.weights import Weights, read_weights
from rlmerge.evaluate.words import Options
from rlmerge.progress import Progress

ALPHAS = (-0.5, 0.0, 0.5, 1.0, 1.5)
"""Steps along the other expert's task vector; 1 is the plain sum of both."""
BETAS = (-1.0, 0.0, 1.0)
"""Steps along a random direction of the same length."""
ITEMS = 100
"""Items of a task that a landscape is taken over, unless there is a limit."""


def survey_health(
    subjects: Sequence[Subject], prompts: Sequence[str], options: Options, progress: Progress
) -> dict[str, Any]:
    """Generation health of every model on ``prompts``, with the KL to base and experts."""
    own_writer = options.backend != "transformers"
    return health(
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
    ).to_dict()


def read_landscape(file: Path, subjects: Sequence[Subject], limit: int | None) -> tuple[Item, ...]:
    """Items with listed answers of ``file``, the first ``limit`` of each task (``ITEMS`` if None).

    RequestError when there are none, or fewer than two experts to look between.
    """
    if sum(subject.role == "expert" for subject in subjects) < 2:
        hint = "Give two experts or more, or leave --landscape out."
        raise RequestError("a landscape lies between experts, and there is one", hint=hint)
    count: Counter[str] = Counter()
    kept: list[Item] = []
    for item in read_items(file):
        count[item.task] += 1
        if count[item.task] <= (limit or ITEMS):
            kept.append(item)
    if not kept:
        raise RequestError("holds no items", where=str(file), hint="Name a JSON Lines file with a line an item.")
    return tuple(kept)


def survey_landscape(
    subjects: Sequence[Subject],
    items: Sequence[Item],
    own: Mapping[str, Sequence[str]],
    options: Options,
    progress: Progress,
) -> dict[str, Any]:
    """Around each expert along each other one, on its own tasks; barriers between experts; sharpness of every model.

    ``own`` maps tasks to their experts; an expert with no task among those of ``items`` is looked at on all of them.
    """
    experts = [subject for subject in subjects if subject.role == "expert"]
    everything = _scorer(subjects[0], items, options)
    weights = {subject.name: read_weights(subject.path) for subject in subjects}
    pictures: list[dict[str, Any]] = []
    for center, direction in permutations(experts, 2):
        theirs = [item for item in items if center.name in own.get(item.task, ())]
        found = landscape(
            weights[subjects[0].name],
            weights[center.name],
            weights[direction.name],
            _scorer(subjects[0], theirs, options) if theirs else everything,
            alphas=ALPHAS,
            betas=BETAS,
            names=(center.name, direction.name),
            seed=options.seed,
            progress=progress,
        )
        pictures += [picture.to_dict() for picture in found]
    return {
        "pictures": pictures,
        "barriers": [one.to_dict() for pair in combinations(experts, 2) for one in _barrier(pair, weights, everything)],
        "sharpness": [
            one.to_dict()
            for subject in subjects
            for one in sharpness(weights[subject.name], everything, name=subject.name, seed=options.seed)
        ],
    }


def _barrier(pair: Sequence[Subject], weights: Mapping[str, Weights], score: Scorer) -> Sequence[Any]:
    a, b = (subject.name for subject in pair)
    return barrier(weights[a], weights[b], score, names=(a, b))


def _scorer(base: Subject, items: Sequence[Item], options: Options) -> Scorer:
    """NumPy for small character-level Llamas, transformers for all others."""
    try:
        found = TinyScorer.of(base.path, items)
    except RequestError:
        return CausalScorer(base.path, items, device=options.device or "auto", chat=options.chat)
    if found.config.parameters <= tiny.MAX_PARAMETERS:
        return found
    return CausalScorer(base.path, items, device=options.device or "auto", chat=options.chat)

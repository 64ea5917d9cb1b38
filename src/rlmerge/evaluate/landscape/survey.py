"""The surroundings of an evaluation's models: pictures and barriers between its experts, sharpness of every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path

from rlmerge.errors import RequestError
from rlmerge.evaluate.exact import Item, read_items
from rlmerge.evaluate.landscape.loss import (
    Barrier,
    Landscape,
    Picture,
    Sharpness,
    WeightScorer,
    barrier,
    landscape,
    sharpness,
)
from rlmerge.evaluate.landscape.scorers import CausalScorer, TinyScorer
from rlmerge.evaluate.landscape.weights import read_weights
from rlmerge.evaluate.subjects import Subject
from rlmerge.evaluate.task_specs import Options
from rlmerge.language.tiny import MAX_PARAMETERS
from rlmerge.progress import Progress

ALPHAS = (-0.5, 0.0, 0.5, 1.0, 1.5)
"""Steps along the other expert's task vector; 1 is the plain sum of both."""
BETAS = (-1.0, 0.0, 1.0)
"""Steps along a random direction of the same length."""
ITEMS = 100
"""Items of a task that a landscape is taken over, unless there is a limit."""


def read_landscape(file: Path, subjects: Sequence[Subject], limit: int | None) -> tuple[Item, ...]:
    """Items with listed answers of ``file``, the first ``limit`` of each task (``ITEMS`` if None).

    RequestError when there are none, or fewer than two experts to look between.
    """
    experts = sum(subject.role == "expert" for subject in subjects)
    if experts < 2:
        hint = "Give two experts or more, or leave --landscape out."
        raise RequestError(f"a landscape needs at least 2 experts, not {experts}", hint=hint)
    count: Counter[str] = Counter()
    kept: list[Item] = []
    for item in read_items(file):
        count[item.task] += 1
        if count[item.task] <= (limit or ITEMS):
            kept.append(item)
    return tuple(kept)


def survey_landscape(
    subjects: Sequence[Subject],
    items: Sequence[Item],
    own: Mapping[str, Sequence[str]],
    options: Options,
    progress: Progress,
) -> Landscape:
    """Around each expert along each other one, on its own tasks; barriers between experts; sharpness of every model.

    ``own`` maps tasks to their experts; an expert with no task among those of ``items`` is looked at on all of them.
    """
    experts = [subject.name for subject in subjects if subject.role == "expert"]
    everything = _scorer(subjects[0], items, options)
    weights = {subject.name: read_weights(subject.path) for subject in subjects}
    pictures: list[Picture] = []
    for center, direction in permutations(experts, 2):
        theirs = [item for item in items if center in own.get(item.task, ())]
        pictures += landscape(
            weights[subjects[0].name],
            weights[center],
            weights[direction],
            _scorer(subjects[0], theirs, options) if theirs else everything,
            alphas=ALPHAS,
            betas=BETAS,
            names=(center, direction),
            seed=options.seed,
            progress=progress,
        )
    barriers: list[Barrier] = []
    for a, b in combinations(experts, 2):
        barriers += barrier(weights[a], weights[b], everything, names=(a, b))
    sharp: list[Sharpness] = []
    for name, own_weights in weights.items():
        sharp += sharpness(own_weights, everything, name=name, seed=options.seed)
    return Landscape(tuple(pictures), tuple(barriers), tuple(sharp))


def _scorer(base: Subject, items: Sequence[Item], options: Options) -> WeightScorer:
    """NumPy for small character-level Llamas, transformers for all others."""
    try:
        found = TinyScorer.of(base.path, items)
        if found.config.parameters <= MAX_PARAMETERS:
            return found
    except RequestError:
        pass
    return CausalScorer(base.path, items, device=options.device or "auto", chat=options.chat)

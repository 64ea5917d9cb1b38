"""``rlmerge tune``: from a search file to a study, its rounds, and the honest end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint import Checkpoint
from rlmerge.errors import RequestError
from rlmerge.extras import require
from rlmerge.merging.make import Opened, open_recipe
from rlmerge.options import Options
from rlmerge.progress import Progress, Quiet
from rlmerge.recipe import Recipe, load_recipe
from rlmerge.recipe.tree import Scalar

from .baseline import peak
from .baseline import starts as near_baseline
from .candidates import Maker
from .ending import Ending, Write
from .judging import Judge
from .request import default_search, read_search
from .results import Tuning
from .rounds import Rounds
from .scoring import open_models
from .settings import Settings
from .space import Space
from .study import Study, finished_values
from .workers import FOLDER as WORKERS

if TYPE_CHECKING:
    from .kl import ExpertDivergence

WARM = 5
"""Best trials of an earlier search that a new one starts from."""

BASELINE = "baseline"
"""Where trials at and around the baseline's best coefficient are from."""

_INSPECT_SCALES = (1.0, 0.75, 0.5)
"""Times the recommended weights: what ``rlmerge inspect`` says to try."""


def tune(
    search: str | PathLike[str] | Mapping[str, Any] | None,
    out: str | PathLike[str],
    *,
    base: str | None = None,
    experts: Sequence[str] = (),
    methods: Sequence[str] = (),
    from_inspect: bool = False,
    warm: str | PathLike[str] | None = None,
    write: Write | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    **given: Any,
) -> Tuning:
    """Search the recipe that is best by an objective, in the directory ``out``; started again it goes on.

    ``search`` is a search file, YAML text or mapping: a recipe in which values may be ranges, with a section ``tune``.
    Without one the default space of ``methods`` over ``base`` and ``experts`` is searched. ``given`` are ``Settings``
    that stand over the file's, with ``objective`` a name, weights by name, or a list of those. ``from_inspect`` starts
    at the recipe that ``rlmerge inspect`` recommends, ``warm`` at the best trials of another search. ``write`` merges
    the winner into ``out/merged``.

    RequestError when the search, a model or a task makes no sense, before anything is merged; RunError when every
    candidate fails, or the disk does not take what is written. Both leave a study that goes on.
    """
    began = time.monotonic()
    progress = progress or Quiet()
    options = options or Options()
    space, settings = _read(search, base, experts, methods, given)
    folder = _folder(Path(out))
    first = space.recipe({})
    if first.base is None or not first.is_whole:
        what = "a search needs a recipe of whole models with a base_model: it says what every gain is measured from"
        raise RequestError(what, where=first.origin or "search", hint="Add base_model, and leave slices out.")
    opened = open_recipe(first, options)
    subjects, warnings = open_models(str(first.base), [str(source.model) for source in first.experts])
    assert opened.models.base is not None, "it was asked for above"
    divergence: ExpertDivergence | None = None
    if settings.needs_prompts:
        divergence = _divergence(opened, first, settings, options, progress)
    elif settings.prompts:
        warnings.append("the prompts are for nothing: no objective is proxy:kl, which compares with what experts say")
    judge = Judge(settings, subjects, progress, divergence)
    in_memory = settings.hook is None and judge.accepts_memory(opened.models.base)
    starts = [*_inspected(from_inspect, space, options, progress), *_warm(warm, space)]
    signature = _signature(space, settings, judge, list(opened.models.opened.values()))
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(folder, space, settings, signature)
    try:
        memory, candidates, sampled = settings.memory, folder / "candidates", not settings.needs_account
        maker = Maker(opened, options, memory, candidates, in_memory, progress, sampled=sampled)
        run = Rounds(space, settings, study, maker, judge, progress, began)
        try:
            judge.prepare()
            if study.spent() < settings.trials:
                judge.listen()
        except RequestError:
            study.close()
            if study.is_alone:
                _remove(missing)
            raise
        if study.is_new:
            for values, origin in starts:
                study.enqueue(values, origin)
        run.baseline(first)
        for values in _near_baseline(study, space, settings, run, len(starts)):
            study.enqueue(values, BASELINE)
        run.rounds()
        if divergence is not None:
            divergence.close()
            warnings += divergence.warnings
        ending = Ending(space, settings, study, maker, judge, progress)
        return ending.finish(folder, first, subjects, write, began, [*warnings, *run.warnings])
    finally:
        study.close()


def _read(
    search: str | PathLike[str] | Mapping[str, Any] | None,
    base: str | None,
    experts: Sequence[str],
    methods: Sequence[str],
    given: Mapping[str, Any],
) -> tuple[Space, Settings]:
    if search is None:
        if base is None or not experts:
            hint = "Name a search file, or --base BASE EXPERT..."
            raise RequestError("a search needs a search file, or a base and its experts", hint=hint)
        return default_search(base, experts, methods, given)
    if base is not None or experts or methods:
        hint = "Leave them out, or leave the search file out."
        raise RequestError("a search file names base, experts and methods itself", hint=hint)
    return read_search(Path(search) if isinstance(search, PathLike) else search, given)


def _remove(missing: Sequence[Path]) -> None:
    """Take back the directory of a study in which nothing was tried, and those above it, where they were not there."""
    if missing:
        shutil.rmtree(missing[0], ignore_errors=True)
        with suppress(OSError):  # Somebody else has put something there.
            for place in missing[1:]:
                place.rmdir()


def _folder(out: Path) -> Path:
    """The study's directory; RequestError when something else is there."""
    out = out.expanduser()
    try:
        str(out).encode()
    except UnicodeEncodeError:
        hint = "Name a directory in characters: the study is a database, whose path must be text."
        raise RequestError("is no text", where=str(out), hint=hint) from None
    if out.is_dir() and any(out.iterdir()) and not (out / "study.db").is_file() and not (out / WORKERS).is_dir():
        hint = "Give the search a new directory, or that of a search to go on with."
        raise RequestError("holds something else than a search", where=str(out), hint=hint)
    if out.exists() and not out.is_dir():
        raise RequestError("is no directory", where=str(out), hint="Give the search a directory with -o.")
    return out


def _divergence(
    opened: Opened, recipe: Recipe, settings: Settings, options: Options, progress: Progress
) -> ExpertDivergence:
    """What the experts are to be asked; RequestError where torch is missing."""
    require("torch")
    require("transformers")
    from .kl import ExpertDivergence

    assert opened.models.base is not None and settings.prompts is not None, "both were asked for"
    plan = opened.plan(recipe, None, options)
    return ExpertDivergence(opened.models.base, plan, settings.prompts, settings.divergence, progress)


def _inspected(wanted: bool, space: Space, options: Options, progress: Progress) -> list[tuple[dict[str, Scalar], str]]:
    """Where ``rlmerge inspect`` would start, and at smaller weights."""
    if not wanted:
        return []
    from rlmerge.inspection.inspect import inspect

    recipe = space.recipe({})
    experts = [str(source.model) for source in recipe.experts]
    found = inspect(str(recipe.base), experts, options=options, progress=progress).to_dict()["recommendation"]
    if found is None:
        progress.message("inspect recommends no recipe to start from")
        return []
    starts: list[tuple[dict[str, Scalar], str]] = []
    place = space.locate(load_recipe(found["yaml"]))
    for scale in _INSPECT_SCALES:
        values = dict(place)
        for dimension in space.dimensions:
            value = values.get(dimension.name)
            if dimension.parameter == "weight" and not dimension.choices and isinstance(value, float):
                values[dimension.name] = dimension.nearest(value * scale)
        starts.append((values, "inspect"))
    return starts


def _warm(warm: str | PathLike[str] | None, space: Space) -> list[tuple[dict[str, Scalar], str]]:
    if warm is None:
        return []
    by_name = {dimension.name: dimension for dimension in space.dimensions}

    def locate(parameters: Mapping[str, Any]) -> dict[str, Scalar]:
        near = {name: by_name[name].nearest(value) for name, value in parameters.items() if name in by_name}
        return {name: value for name, value in near.items() if value is not None}

    return [(values, "warm") for values in finished_values(Path(warm), WARM, locate)]


def _near_baseline(study: Study, space: Space, settings: Settings, run: Rounds, others: int) -> list[dict[str, Scalar]]:
    """Around the baseline's best coefficient: a third of the trials with ``others``, each method once at the least.

    Nothing where there is no baseline, or where this was asked for before.
    """
    if study.baseline is None or study.has_origin(BASELINE):
        return []
    count = min(max(len(space.methods), settings.trials // 3 - others), settings.trials - others)
    if count <= 0:
        return []
    scaled = [method for method in space.methods if space.scales(method)]
    bare = near_baseline(study.baseline, space, len(scaled), settings.seed)
    factors = run.factors(peak(study.baseline), dict(zip(scaled, bare, strict=True)))
    return near_baseline(study.baseline, space, count, settings.seed, factors)


def _signature(space: Space, settings: Settings, judge: Judge, models: Sequence[Checkpoint]) -> dict[str, Any]:
    """What must be the same for a study to go on: budgets may grow, all that decides a score may not change."""
    bench = judge.bench
    found = {
        "ranges": [dimension.to_dict() for dimension in space.dimensions],
        "recipe": space.recipe({}).text,
        "methods": list(space.methods),
        "models": [model.edition for model in models],
        "objectives": [objective.name for objective in settings.objectives],
        "tasks": list(settings.tasks),
        "items": [] if bench is None else bench.identity(),
        "limit": settings.limit,
        "own": {name: list(tasks) for name, tasks in (settings.own or {}).items()},
        "pruning": settings.prune,
    }
    return found if judge.divergence is None else {**found, "prompts": judge.divergence.identity()}

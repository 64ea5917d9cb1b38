"""Several recipes in one file: each result a sealed directory of its own, planned before the first byte is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlmerge.checkpoint import Checkpoint, InputFile, Source, open_checkpoint, verify
from rlmerge.checkpoint.source import combined
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import DType
from rlmerge.options import Options
from rlmerge.progress import Progress
from rlmerge.recipe import LIKE_BASE, Recipe

from .account import MergeResult
from .make import make_plan
from .plan import Plan
from .seal import LOCK, lock_file


class Planned(Source):
    """A tensor that an earlier stage will write: known by name, type and shape alone."""

    def __init__(self, name: str, dtype: DType, shape: tuple[int, ...], plan: str) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.plan = plan

    @property
    def where(self) -> str:
        return self.name

    @property
    def is_there(self) -> bool:
        return False

    @property
    def files(self) -> tuple[InputFile, ...]:
        return ()

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        raise RequestError("is not merged yet", where=self.name)

    def fingerprint(self, whole: bool) -> bytes:
        return combined("planned", [self.plan.encode()], whole, name=self.name)


@frozen
class Stage:
    """One recipe of a file: its plan and the directory of its result."""

    recipe: Recipe
    plan: Plan
    out: Path


def plan_stages(
    recipes: Sequence[Recipe], out: Path | None, options: Options, folder: Path | None = None
) -> tuple[Stage, ...]:
    """Plans of all recipes, in the order in which they run; the last one's result is ``out``.

    Intermediate results go to ``folder``, by default ``OUT.stages``. Errors as for ``make_plan``.
    """
    *inner, last = recipes
    if folder is None and inner and out is not None:
        place = Path(os.path.abspath(out))  # noqa: PTH100 - the name of "." and ".." is that of the directory meant
        folder = place.parent / f"{place.name}.stages"
    folder = folder or Path("stages")
    known: dict[str, Checkpoint] = {}
    stages: list[Stage] = []
    for recipe in inner:
        name = recipe.name or ""
        if recipe.out_dtype == LIKE_BASE:
            what = f"'{name}' is merged further, and only the result of the last recipe can be {LIKE_BASE}"
            raise RequestError(what, where=recipe.origin or "recipe", hint="Leave its out_dtype away.")
        directory = folder / name
        plan = make_plan(recipe, None if out is None else directory, _inner_options(recipe, options), known)
        plan = replace(plan, out=directory)
        stages.append(Stage(recipe, plan, directory))
        known[name] = planned_checkpoint(name, plan)
    return (*stages, Stage(last, make_plan(last, out, options, known), out or Path()))


def _upon(plan: Plan, made: Mapping[str, Plan]) -> Plan:
    """A plan that knows the plans of the stages it builds on; ``made`` are those of all earlier ones by name."""
    before: dict[str, Plan] = {}
    for model in plan.recipe.models:
        if model.stage:
            below = made[model.reference]
            before |= {each.recipe.name or "": each for each in (*below.before, below)}
    return replace(plan, before=tuple(before.values())) if before else plan


def run_stages(
    stages: Sequence[Stage],
    options: Options,
    run: Callable[[Plan, Path, Progress | None], MergeResult],
    progress: Progress | None = None,
    keep: bool = False,
) -> MergeResult:
    """Merge stage after stage; a result that is there already, of the same recipe and inputs, is used as it is.

    Without ``keep`` the intermediate results are removed once the last one is complete.
    """
    known: dict[str, Checkpoint] = {}
    made: dict[str, Plan] = {}
    for stage in stages[:-1]:
        chosen = _inner_options(stage.recipe, options)
        plan = _upon(make_plan(stage.recipe, stage.out, chosen, known), made) if known else stage.plan
        if not is_complete(stage.out, plan):
            stage.out.parent.mkdir(parents=True, exist_ok=True)
            run(plan, stage.out, progress)
        elif progress is not None:
            progress.message(f"stage {stage.recipe.name}: {stage.out} is complete")
        name = stage.recipe.name or ""
        known[name] = replace(open_checkpoint(stage.out), reference=name)
        made[name] = plan
    last = stages[-1]
    plan = _upon(make_plan(last.recipe, last.out, options, known), made) if known else last.plan
    result = run(plan, last.out, progress)
    if not keep:
        for stage in stages[:-1]:
            shutil.rmtree(stage.out, ignore_errors=True)
            if stage.out.parent.is_dir() and not any(stage.out.parent.iterdir()):
                stage.out.parent.rmdir()
    return result


def is_complete(directory: Path, plan: Plan) -> bool:
    """Whether a directory holds the result of this very plan: its lock says the same of recipe, inputs and options."""
    lock = directory / LOCK
    if not lock.is_file() or lock.stat().st_size > 2**26:
        return False
    written, _, _ = lock.read_bytes().partition(b"\ncontents:")
    expected, _, _ = lock_file(plan, {}).partition(b"\ncontents:")
    return written == expected and verify(directory).ok


def planned_checkpoint(name: str, plan: Plan) -> Checkpoint:
    """What the result of a plan will be, for plans that build on it."""
    tensors = {n: Planned(n, job.output.dtype, job.output.shape, plan.digest) for n, job in plan.jobs.items()}
    written = plan.beside.files.get("config.json")
    data = written if isinstance(written, bytes) or written is None else written.copy(0, written.size)
    config = None if data is None else json.loads(data)
    template = plan.template
    path = plan.out or Path(name)
    return Checkpoint(name, path, None, tensors, config, template.side_files, (), "planned", template.side_root)


def _inner_options(recipe: Recipe, options: Options) -> Options:
    """Options of an intermediate stage: types are its own recipe's affair, and resuming is by whole stages."""
    return replace(options, dtype=None, out_dtype=None, resume=False, force=True)

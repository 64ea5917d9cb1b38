"""The Python interface: the same steps as the command line, with frozen results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge._version import __version__
from rlmerge.addresses import is_address
from rlmerge.checkpoint import VerifyResult
from rlmerge.checkpoint import verify as verify_directory
from rlmerge.checkpoint.license import strictest
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.errors import RequestError
from rlmerge.merging import MergeResult, Plan, plan_stages, run, run_stages
from rlmerge.options import Options
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe, load_recipes
from rlmerge.report.card import model_card

if TYPE_CHECKING:
    from rlmerge.calibration.results import Calibration
    from rlmerge.search.results import Tuning

AnyRecipe = Recipe | str | PathLike[str] | Mapping[str, Any]


def merge(
    recipe: AnyRecipe, out: str | PathLike[str], *, progress: Progress | None = None, **options: Any
) -> MergeResult:
    """Merge the models of ``recipe`` (a path, YAML text, mapping or ``Recipe``) into the new directory ``out``.

    An address such as ``s3://bucket/folder`` is a directory of an object store (docs/scale.md).

    The path may be that of a merge's ``rlmerge.lock.yaml``: the same models then give the same weights again. A file of
    several recipes runs stage by stage; ``keep_stages`` keeps the intermediate results in ``OUT.stages``.

    ``options`` are those of ``rlmerge.Options``. RequestError and its kin if the request or an input is wrong, with
    nothing written; RunError if the run failed and can be resumed.
    """
    keep = bool(options.pop("keep_stages", False))
    recipes, chosen = _read(recipe, options)
    place = placed(out)
    if keep and is_address(os.fspath(out)):
        raise RequestError("keep_stages is for outputs on this machine", hint="Leave it away, or write a directory.")
    return run_stages(plan_stages(recipes, place, chosen), chosen, run_plan, progress, keep)


def plan(recipe: AnyRecipe, out: str | PathLike[str] | None = None, **options: Any) -> Plan:
    """What ``merge`` would do and cost, from headers alone; every error of the recipe at once.

    Of a file of several recipes, the plan of the last; all others are planned too.
    """
    recipes, chosen = _read(recipe, options)
    return plan_stages(recipes, None if out is None else placed(out), chosen)[-1].plan


def run_plan(plan: Plan, out: str | PathLike[str], progress: Progress | None = None) -> MergeResult:
    """Carry out ``plan`` and write the model card."""
    return run(plan, placed(out), progress, _documents)


def run_plan_on(executor: str, plan: Plan, out: str | PathLike[str], progress: Progress | None = None) -> MergeResult:
    """Carry out ``plan`` on a cluster and write the model card; see ``merging.on_ray``."""
    from rlmerge.merging.on_ray import run_on_ray

    return run_on_ray(plan, Path(out), executor, progress, _documents)


def seal_plan(plan: Plan, out: str | PathLike[str], progress: Progress | None = None) -> MergeResult:
    """Complete the output of ``plan`` whose shares are merged, and write the model card; see ``merging.shares``."""
    from rlmerge.merging.shares import seal_shares

    return seal_shares(plan, Path(out), progress, _documents)


def tune(
    search: str | PathLike[str] | Mapping[str, Any] | None,
    out: str | PathLike[str],
    *,
    merge: bool = False,
    **given: Any,
) -> Tuning:
    """Search the recipe that is best by an objective, in the directory ``out``; started again it goes on.

    As ``search.run.tune``, which says what may be ``given``; ``merge`` also writes the winner to ``out/merged``, sealed
    and with its card.
    """
    from rlmerge.search.run import tune

    return tune(search, expanded(out), write=run_plan if merge else None, **given)


def calibrate(
    recipe: AnyRecipe,
    out: str | PathLike[str],
    prompts: Mapping[str, str] | Sequence[str],
    *,
    drift: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Calibration:
    """Fit the coefficients of ``recipe`` to what its experts say on ``prompts``, and write it to the YAML file ``out``.

    ``prompts`` is data by expert (the last part of its path is enough), or in the order of the experts: a file as
    ``rlmerge sensitivity`` reads it, or ``reasoning-gym:TASK``. ``drift`` is data on which the merge is to stay the
    base. ``options`` are those of ``calibration.options.CalibrationOptions``. Needs the extra ``torch``. RequestError
    if the request or an input is wrong, RunError if the run fails; ``out`` is written at the very end.
    """
    from rlmerge.calibration import calibrate
    from rlmerge.calibration.options import CalibrationOptions
    from rlmerge.recipe.load import only

    recipes = (recipe,) if isinstance(recipe, Recipe) else load_recipes(_source(recipe))
    return calibrate(only(recipes), expanded(out), prompts, drift, CalibrationOptions.of(**options), progress)


def placed(out: str | PathLike[str]) -> Path:
    """An output directory as the user means it, or what stands for the folder of an object store."""
    if not is_address(os.fspath(out)):
        return expanded(out)
    from rlmerge.checkpoint.remote.upload import upload_to

    return upload_to(os.fspath(out))


def expanded(out: str | PathLike[str]) -> Path:
    """An output directory as the user means it, ``~`` included; RequestError for an address."""
    if is_address(os.fspath(out)):
        hint = "Name a directory on this machine; merges alone are written to object stores."
        raise RequestError("is no directory on this machine", where=os.fspath(out), hint=hint)
    path = Path(out)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _read(recipe: AnyRecipe, options: dict[str, Any]) -> tuple[tuple[Recipe, ...], Options]:
    recipes = (recipe,) if isinstance(recipe, Recipe) else load_recipes(_source(recipe))
    locked = recipes[-1].locked
    return recipes, Options.of(**(options if locked is None else locked.fill(options)))


def verify(out: str | PathLike[str]) -> VerifyResult:
    """Check a merged directory, or one at an address, against its manifest, byte by byte."""
    return verify_directory(out)


def _source(recipe: str | PathLike[str] | Mapping[str, Any]) -> str | Path | Mapping[str, Any]:
    return Path(recipe) if isinstance(recipe, PathLike) else recipe


def _documents(plan: Plan, result: MergeResult) -> dict[str, bytes]:
    text = model_card(
        result.to_dict(),
        models=[_public_name(model) for model in dict.fromkeys(opened for _, opened in plan.origins.values())],
        paper="; ".join(dict.fromkeys(method.paper for method in plan.methods)),
        recipe="---\n".join(each.recipe.text for each in (*plan.before, plan)),
        license=strictest(plan.beside.licenses),
        version=__version__,
    )
    return {"README.md": text.encode()}


def _public_name(model: Checkpoint) -> str:
    """A Hub id as it is; of a local directory its name alone, since paths mean nothing to readers."""
    return model.reference.removeprefix("hf://").partition("@")[0] if model.revision else model.path.name

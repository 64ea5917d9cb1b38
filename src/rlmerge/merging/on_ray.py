"""A merge by a Ray cluster over a shared file system (extra ``ray``): a task a shard, sealed by the driver.

Every task is a share as ``--shards`` makes it, with a directory, journal and lock of its own. A worker that dies leaves
what it finished; Ray gives its task to another, which goes on from there. Two tasks never write one file.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.checkpoint.shares import MOST, Share, shares_in
from rlmerge.checkpoint.target import partial_path
from rlmerge.errors import RequestError, RlmergeError, RunError
from rlmerge.extras import require
from rlmerge.options import Options
from rlmerge.progress import Progress, Quiet
from rlmerge.recipe import Recipe

from .account import MergeResult
from .make import make_plan
from .plan import Plan
from .run import Documents
from .shares import ShareResult, run_share, seal_shares

RETRIES = 20
"""Workers that one task may outlive."""

_plans: dict[str, Plan] = {}
_known: dict[str, dict[str, dict[str, np.ndarray]]] = {}


def run_on_ray(
    plan: Plan,
    out: Path,
    executor: str = "ray",
    progress: Progress | None = None,
    documents: Documents = lambda plan, result: {},
) -> MergeResult:
    """Carry out ``plan`` on a cluster, with ``executor`` ``ray`` on one that is found or started here.

    ``out`` and local models must be on a file system that all nodes share. The bytes are those of ``run``. Errors as
    for ``run``; a run that failed goes on where it was when it is repeated with ``resume``.
    """
    began = time.perf_counter()
    ray: Any = require("ray")
    progress = progress or Quiet()
    options = plan.options
    if options.force and not options.resume:
        hint = "Remove the old directory, or merge without --executor."
        raise RequestError("--force is for merges by one process", hint=hint)
    started = not ray.is_initialized()
    if started:
        _connect(ray, executor)
    try:
        _run_tasks(ray, plan, Path(os.path.abspath(out)), progress)  # noqa: PTH100 - a link stays visible
    finally:
        if started:
            ray.shutdown()
    result = seal_shares(replace(plan, options=replace(options, resume=True)), out, progress, documents)
    return replace(result, seconds=time.perf_counter() - began)


def _connect(ray: Any, executor: str) -> None:
    address = executor if executor != "ray" else os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        hint = "Start one with: ray start --head; or leave the address away to work on this machine."
        raise RequestError(f"the Ray cluster cannot be used ({error})", where=executor, hint=hint) from error


def _run_tasks(ray: Any, plan: Plan, out: Path, progress: Progress) -> None:
    """Merge every share; RunError with what the first failure said, after all tasks have ended."""
    count = min(len(plan.shards), MOST)
    options = replace(plan.options, workers=plan.options.workers or 1, resume=True)
    task = ray.remote(num_cpus=options.workers, max_retries=RETRIES)(merge_share)
    request = ray.put((plan.recipe, options, str(out), plan.digest, Path.cwd().as_posix()))
    if not plan.options.resume:
        _refuse_work(out)
    waiting = {task.remote(request, number, count): number for number in range(1, count + 1)}
    progress.start("merge", plan.bytes_written)
    try:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            result: ShareResult = ray.get(done)
            progress.advance(result.bytes_written)
            del waiting[done]
    except BaseException as error:
        _cancel(ray, list(waiting))
        if isinstance(cause := getattr(error, "cause", None), RlmergeError):
            raise cause from None
        if isinstance(error, ray.exceptions.RayError):
            hint = "Look at the cluster, then run again with --resume to continue."
            raise RunError(f"the cluster failed ({error})", where=str(out), hint=hint) from error
        raise
    progress.done()


def _refuse_work(out: Path) -> None:
    """RequestError rather than take up, unasked, what an earlier run left."""
    home = partial_path(out)
    if home.is_dir() and shares_in(home):
        hint = "Continue it with --resume, or remove that directory."
        raise RequestError("an interrupted merge by several processes is there", where=str(home), hint=hint)


def _cancel(ray: Any, tasks: list[Any]) -> None:
    """Stop what has not begun, and wait for what has: nobody may write when this returns."""
    for each in tasks:
        with suppress(Exception):
            ray.cancel(each, force=False)
    with suppress(Exception):
        ray.wait(tasks, num_returns=len(tasks), timeout=60)


def merge_share(request: tuple[Recipe, Options, str, str, str], number: int, count: int) -> ShareResult:
    """One task, on whatever node; a worker plans once, and finds statistics over the whole model once.

    RequestError if this node plans another merge than the driver, as with other models or another version.
    """
    recipe, options, out, digest, folder = request
    os.chdir(folder)
    plan = _plans.get(digest)
    if plan is None:
        plan = _plans[digest] = make_plan(recipe, Path(out), options)
    if plan.digest != digest:
        hint = "Install the same version everywhere, and name models and output by paths that mean the same there."
        raise RequestError("this node finds other models or another version than the driver", where=out, hint=hint)
    return run_share(plan, Path(out), Share(count, number), known=_known.setdefault(digest, {}))

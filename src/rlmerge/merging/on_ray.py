"""A merge by a Ray cluster over a shared file system (extra ``ray``): a task a shard, sealed by the driver.

Every task is a share as ``--shards`` makes it, with a directory, journal and lock of its own. A worker that dies leaves
what it finished; Ray gives its task to another, which goes on from there. A task that is slow gets a second one beside
it, in a directory of its own, and the first to end counts. Two tasks never write one file.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.addresses import without_secrets
from rlmerge.checkpoint.durable import sync_directory
from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.shares import MOST, Share, shares_in
from rlmerge.checkpoint.target import partial_path
from rlmerge.errors import RequestError, RlmergeError, RunError
from rlmerge.extras import require
from rlmerge.options import Options
from rlmerge.progress import Progress, Quiet
from rlmerge.recipe import Recipe
from rlmerge.text import shortened

from .account import MergeResult
from .make import make_plan
from .plan import Plan
from .run import Documents
from .shares import ShareResult, run_share, seal_shares, shards_of

RETRIES = 20
"""Workers that one task may outlive."""

SLOW = 2.0
"""Times that a task may take what others took for as many bytes, before a second one is started beside it."""

AT_LEAST = 30.0
"""Seconds that any task may take: starting one takes some, too."""

PATIENCE = 1.0
"""Seconds after which the driver looks whether a task is slow."""

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
        raise RequestError(f"the Ray cluster cannot be used ({_brief(error)})", where=executor, hint=hint) from error


def _brief(error: BaseException) -> str:
    """What Ray says last, without the traceback of another machine before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(without_secrets(lines[-1]), 240) if lines else type(error).__name__


def _run_tasks(ray: Any, plan: Plan, out: Path, progress: Progress) -> None:
    """Merge every share; RunError with what the first failure said, after all tasks have ended."""
    if not plan.options.resume:
        _refuse_work(out)
    shutil.rmtree(_spare(out).parent, ignore_errors=True)
    race = _Race(ray, plan, out)
    progress.start("merge", plan.bytes_written)
    try:
        while race.waiting:
            for result in race.step():
                progress.advance(result.bytes_written)
    except BaseException as error:
        race.cancel()
        if isinstance(cause := getattr(error, "cause", None), RlmergeError):
            raise cause from None
        if isinstance(error, ray.exceptions.RayError):
            hint = "Look at the cluster, then run again with --resume to continue."
            raise RunError(f"the cluster failed ({_brief(error)})", where=str(out), hint=hint) from error
        raise
    finally:
        shutil.rmtree(_spare(out).parent, ignore_errors=True)
    progress.done()


def _spare(out: Path) -> Path:
    """Where second attempts work: beside the shares, in directories of their own."""
    return partial_path(out) / "second" / out.name


class _Race:
    """The tasks of one merge. ``waiting`` are the shares that no attempt has finished, with their tasks, first first.

    Once nothing waits for its turn, a task that takes far longer than others took gets a second one beside it, which
    begins anew in a directory of its own. Whichever ends first is taken; the other one is killed.
    """

    def __init__(self, ray: Any, plan: Plan, out: Path) -> None:
        self.ray = ray
        self.out = out
        self.count = min(len(plan.shards), MOST)
        options = replace(plan.options, workers=plan.options.workers or 1, resume=True)
        self.workers = options.workers or 1
        self.task = ray.remote(num_cpus=self.workers, max_retries=RETRIES)(merge_share)
        self.request = ray.put((plan.recipe, options, str(out), plan.digest, Path.cwd().as_posix()))
        numbers = range(1, self.count + 1)
        self.waiting = {number: [self._start(number, str(out))] for number in numbers}
        self.sizes = {k: sum(shard.size for shard in shards_of(plan, Share(self.count, k))) for k in numbers}
        self.paces: list[float] = []
        self.all_run: float | None = None

    def step(self) -> list[ShareResult]:
        """What has been finished within a second or so."""
        tasks = {task: number for number, attempts in self.waiting.items() for task in attempts}
        done, _ = self.ray.wait(list(tasks), num_returns=1, timeout=PATIENCE)
        found: list[ShareResult] = []
        for task in done:
            number = tasks[task]
            if number in self.waiting and (result := self._finish(number, task)) is not None:
                found.append(result)
                self.paces.append(result.seconds / max(1, self.sizes[number]))
        self._double()
        return found

    def cancel(self) -> None:
        """Stop what has not begun, and wait for what has: nobody may write when this returns."""
        tasks = [task for attempts in self.waiting.values() for task in attempts]
        for task in tasks:
            with suppress(Exception):
                self.ray.cancel(task, force=False)
        with suppress(Exception):
            self.ray.wait(tasks, num_returns=len(tasks), timeout=60)

    def _start(self, number: int, place: str) -> Any:
        return self.task.remote(self.request, number, self.count, place)

    def _finish(self, number: int, task: Any) -> ShareResult | None:
        """Take what a task made of a share; None if it was a second attempt that failed, and the first goes on."""
        first, *second = self.waiting[number]
        try:
            result: ShareResult = self.ray.get(task)
        except Exception:
            if task is first:
                raise
            self.waiting[number] = [first]
            return None
        self._kill(second if task is first else [first])
        share = Share(self.count, number)
        if task is not first:
            _adopt(partial_path(self.out), partial_path(_spare(self.out)), share)
        shutil.rmtree(partial_path(_spare(self.out)) / share.directory, ignore_errors=True)
        del self.waiting[number]
        return result

    def _kill(self, tasks: list[Any]) -> None:
        """End attempts that have lost; one that does not hear loses its directory instead."""
        for task in tasks:
            with suppress(Exception):
                self.ray.cancel(task, force=True)
                self.ray.wait([task], timeout=PATIENCE)

    def _double(self) -> None:
        """Start second attempts for what is slow, where the cluster has room for them."""
        slots = int(self.ray.cluster_resources().get("CPU", 0)) // self.workers
        running = sum(map(len, self.waiting.values()))
        if len(self.waiting) > slots or not self.paces:
            self.all_run = None
            return
        if self.all_run is None:
            self.all_run = time.monotonic()
        elapsed = time.monotonic() - self.all_run
        for number, attempts in self.waiting.items():
            usual = statistics.median(self.paces) * self.sizes[number]
            if running < slots and len(attempts) == 1 and elapsed > max(AT_LEAST, SLOW * usual):
                attempts.append(self._start(number, str(_spare(self.out))))
                running += 1


def _adopt(home: Path, spare: Path, share: Share) -> None:
    """Put the share that a second attempt finished in the place of the first one's, whatever still writes there.

    A process that cannot be killed then writes to files without a name.
    """
    place, lost = home / share.directory, home / f"lost-{share.number}"
    with writing(place):
        with suppress(FileNotFoundError):
            place.rename(lost)
        (spare / share.directory).rename(place)
        sync_directory(home)
    shutil.rmtree(lost, ignore_errors=True)


def _refuse_work(out: Path) -> None:
    """RequestError rather than take up, unasked, what an earlier run left."""
    home = partial_path(out)
    if home.is_dir() and shares_in(home):
        hint = "Continue it with --resume, or remove that directory."
        raise RequestError("an interrupted merge by several processes is there", where=str(home), hint=hint)


def merge_share(
    request: tuple[Recipe, Options, str, str, str], number: int, count: int, place: str | None = None
) -> ShareResult:
    """One task, on whatever node; a worker plans once, and finds statistics over the whole model once.

    The share grows in the partial directory of ``place``, which is that of the output unless it is a second attempt.

    RequestError if this node plans another merge than the driver, as with other models or another version.
    """
    recipe, options, out, digest, folder = request
    try:
        os.chdir(folder)
    except OSError as error:
        hint = "Start it in a folder that all nodes share, or name models and output by absolute paths in one."
        what = f"the driver's working directory is not on this node ({error.strerror})"
        raise RequestError(what, where=folder, hint=hint) from None
    plan = _plans.get(digest)
    if plan is None:
        plan = _plans[digest] = make_plan(recipe, Path(out), options)
    if plan.digest != digest:
        hint = "Install the same version everywhere, and name models and output by paths that mean the same there."
        raise RequestError("this node finds other models or another version than the driver", where=out, hint=hint)
    return run_share(plan, Path(place or out), Share(count, number), known=_known.setdefault(digest, {}))

"""What a coefficient does: θ(c) = θ₀ + Σ_k c_k D_k tensor by tensor, with D_k found by merging.

A method is asked, not believed: it is merged at all ones, with each weight doubled, and once at other weights, in
float64 and side by side. Differences give D_k, and the last merge tells whether the method is linear.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlmerge.errors import RequestError, RunError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import decode
from rlmerge.merging.execute import check_unchanged
from rlmerge.merging.job import Job
from rlmerge.merging.make import Opened
from rlmerge.merging.sinks import StateSink
from rlmerge.merging.tiles import Tile
from rlmerge.merging.together import merge_together
from rlmerge.options import Options
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe
from rlmerge.recipe.setting import Setting

NONLINEAR = 1e-4
"""‖merged − predicted‖ / ‖change‖ over the model beyond which a method is not linear; rounding stays below 1e-6."""

WEIGHT, LAMBDA = "weight", "lambda"

Find = Callable[[Recipe, Opened, "Store", Options, Progress], "Directions"]


@frozen
class Directions:
    """``base`` [n] and ``changes`` [C, n] of each merged tensor, float32; ``parameter`` says what c stands for.

    C is K for weights and 1 for lambda. ``error`` is how far the method is from linear, see ``NONLINEAR``.
    """

    parameter: str
    base: Mapping[str, np.ndarray]
    changes: Mapping[str, np.ndarray]
    error: float

    @property
    def count(self) -> int:
        """C, coefficients of a tensor."""
        return len(next(iter(self.changes.values())))


@frozen
class Store:
    """Where arrays are held: in memory, or in files of the directory ``scratch`` that have no name and go with them."""

    scratch: str | None

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array for values to come; RunError when the disk does not take it."""
        size = math.prod(shape)
        if self.scratch is None or not size:
            return np.empty(shape, np.float32)
        try:
            Path(self.scratch).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.scratch) as file:
                if hasattr(os, "posix_fallocate"):  # a full disk says so here, and not at some later write
                    os.posix_fallocate(file.fileno(), 0, 4 * size)
                file.truncate(4 * size)
                return np.memmap(file, np.float32, "r+", shape=shape)
        except OSError as error:
            hint = "Free some space, or give another --scratch."
            raise RunError(f"cannot be written ({error.strerror})", where=self.scratch, hint=hint) from error


def find_directions(recipe: Recipe, opened: Opened, store: Store, options: Options, progress: Progress) -> Directions:
    """The directions of the expert weights of ``recipe``, or of ``lambda`` where it is not linear in these.

    RequestError when the method has neither, or is linear in neither.
    """
    errors: list[str] = []
    for parameter in (WEIGHT, LAMBDA):
        if parameter in recipe.method.names:
            found = _measure(parameter, recipe, opened, store, options, progress)
            if found.error <= NONLINEAR:
                return found
            errors.append(f"{parameter} is off by {found.error:.1%}")
    raise _refusal(recipe, "weights or lambda", errors)


def along(parameter: str) -> Find:
    """``find_directions`` of one parameter alone."""

    def find(recipe: Recipe, opened: Opened, store: Store, options: Options, progress: Progress) -> Directions:
        if parameter not in recipe.method.names:
            raise _refusal(recipe, parameter, [])
        found = _measure(parameter, recipe, opened, store, options, progress)
        if found.error > NONLINEAR:
            raise _refusal(recipe, parameter, [f"it is off by {found.error:.1%}"])
        return found

    return find


def _measure(
    parameter: str, recipe: Recipe, opened: Opened, store: Store, options: Options, progress: Progress
) -> Directions:
    points = _points(len(recipe.experts)) if parameter == WEIGHT else [[1.0], [0.5]]
    plans = [opened.plan(with_values(recipe, parameter, _constants(point)), None, options) for point in points]
    fold = _Fold(parameter, points, store)
    merge_together(plans, [_LaneSink(fold, lane) for lane in range(len(plans))], progress)
    check_unchanged(job for plan in plans for job in plan.jobs.values())
    if not fold.changes:
        raise RequestError("merges no tensor", where=recipe.origin or "recipe", hint="Check its models.")
    return Directions(parameter, fold.base, fold.changes, fold.error)


def with_values(recipe: Recipe, parameter: str, values: Sequence[Setting]) -> Recipe:
    """``recipe`` with a setting of ``weight`` for each expert, or with the one of ``lambda``, instead of its own."""

    def rid(settings: Mapping[str, Setting]) -> dict[str, Setting]:
        return {name: setting for name, setting in settings.items() if name != parameter}

    module = recipe.modules[0]
    part = module.slices[0]
    own = [{parameter: value} for value in values] if parameter == WEIGHT else [{} for _ in part.sources]
    sources = tuple(
        replace(source, parameters=rid(source.parameters) | extra)
        for source, extra in zip(part.sources, own, strict=True)
    )
    part = replace(part, sources=sources, parameters=rid(part.parameters))
    shared = rid(recipe.parameters) | ({} if parameter == WEIGHT else {parameter: values[0]})
    module = replace(module, slices=(part,), parameters=rid(module.parameters))
    return replace(recipe, modules=(module,), parameters=shared)


def _constants(point: Sequence[float]) -> list[Setting]:
    return [Setting.constant(value) for value in point]


def _points(experts: int) -> list[list[float]]:
    """All ones, each weight doubled, and one more point to predict."""
    ones = [1.0] * experts
    doubled = [[2.0 if k == j else 1.0 for j in range(experts)] for k in range(experts)]
    return [ones, *doubled, [0.5 + (k + 1) / (experts + 1) for k in range(experts)]]


class _Fold:
    """Takes a tensor from every lane, and keeps differences once the last one has come."""

    def __init__(self, parameter: str, points: Sequence[Sequence[float]], store: Store) -> None:
        self.parameter, self.points, self.store = parameter, points, store
        self.base: dict[str, np.ndarray] = {}
        self.changes: dict[str, np.ndarray] = {}
        self._waiting: dict[str, dict[int, np.ndarray]] = {}
        self._off = self._size = 0.0

    @property
    def error(self) -> float:
        """‖merged − predicted‖ / ‖change‖ at the point that made no direction, over all tensors."""
        return (self._off / self._size) ** 0.5 if self._size else 0.0

    def take(self, job: Job, lane: int, merged: np.ndarray) -> None:
        """The merged tensor of one lane, float64."""
        if job.method is None:
            return
        waiting = self._waiting.setdefault(job.name, {})
        waiting[lane] = merged
        if len(waiting) == len(self.points):
            self._finish(job, [waiting[number] for number in range(len(waiting))])
            del self._waiting[job.name]

    def _finish(self, job: Job, merged: Sequence[np.ndarray]) -> None:
        assert job.base is not None, "calibrated methods have a base"
        base = decode(job.base.read(), job.base.dtype).astype(np.float64)
        first, *others, last = merged
        if self.parameter == WEIGHT:
            changes = np.stack([other - first for other in others])
            predicted = base + np.asarray(self.points[-1]) @ changes
            self._off += float(np.sum((base + changes.sum(0) - first) ** 2))
        else:
            changes = (first - base)[None]
            predicted = base + self.points[-1][0] * changes[0]
        self._off += float(np.sum((last - predicted) ** 2))
        self._size += float(np.sum((first - base) ** 2))
        self.base[job.name] = self.store.array(base.shape)
        self.changes[job.name] = self.store.array(changes.shape)
        self.base[job.name][...] = base
        self.changes[job.name][...] = changes


class _LaneSink(StateSink):
    """Hands each tensor on to the fold as it is complete, and keeps none."""

    def __init__(self, fold: _Fold, lane: int) -> None:
        super().__init__(lambda job: np.empty(job.output.numel, job.output.dtype.storage))
        self.fold, self.lane = fold, lane

    def write(self, job: Job, tile: Tile, stored: Any) -> Sequence[Future[Any]]:
        """Copied tensors take no part."""
        return () if job.method is None else super().write(job, tile, stored)

    def finish(self, job: Job, stats: Mapping[str, Any]) -> None:
        """The tensor is complete."""
        if job.method is not None:
            super().finish(job, stats)
            self.fold.take(job, self.lane, self.state.pop(job.name))


def _refusal(recipe: Recipe, parameters: str, errors: Sequence[str]) -> RequestError:
    why = "; ".join(errors) or "it has no such parameter"
    what = f"method '{recipe.method.name}' is not linear in {parameters} ({why})"
    hint = "Calibrate task_arithmetic or covariance; `rlmerge tune` searches the values of any method."
    return RequestError(what, where=recipe.origin or "recipe", hint=hint)

"""Foretells what the default recipes of the main methods would leave after rounding, without writing anything.

The executor of a merge runs all of them over tiles that are read once and throws their output away. Thresholds and
overlaps they need were seen in the measuring pass. Models beyond the sample size are looked at in evenly spread tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rlmerge.checkpoint import Checkpoint
from rlmerge.checkpoint.module_kinds import ROUTER, kind_of
from rlmerge.geometry.observation import Observation
from rlmerge.geometry.observe import EPSILON
from rlmerge.geometry.survival import Survival
from rlmerge.merging import Job
from rlmerge.merging.execute import Executor, Lane, Task
from rlmerge.merging.sinks import StatsSink
from rlmerge.merging.sizing import Sizing
from rlmerge.merging.statistics import SCOPE, Statistics
from rlmerge.merging.stream import Workers
from rlmerge.merging.tiles import cut
from rlmerge.methods import Statistic
from rlmerge.methods.parts import magnitude
from rlmerge.options import Options
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe, layer_count, recipe_from_flags

from .pairing import Paired
from .results import Forecast

TILE = 1 << 20


def default_recipes(experts: int) -> tuple[tuple[str, str, dict[str, float]], ...]:
    """Label, method and parameters of every recipe whose outcome is foretold."""
    share = 1 / experts
    return (
        ("linear (average)", "linear", {}),
        (f"task arithmetic, weight 1/{experts}", "task_arithmetic", {"weight": share}),
        ("task arithmetic, weight 1", "task_arithmetic", {}),
        ("TIES, density 0.2", "ties", {"density": 0.2}),
        ("TIES, density 1", "ties", {}),
        ("DARE, density 0.5", "dare_linear", {"density": 0.5}),
        ("RAM", "ram", {}),
        ("RAM+", "ram_plus", {}),
    )


@dataclass
class _Candidate:
    """One recipe being foretold; ``known`` are its statistics by tensor."""

    label: str
    recipe: Recipe
    parameters: Mapping[str, float]
    statistics: Sequence[Statistic]
    known: dict[str, dict[str, np.ndarray]] = field(default_factory=dict[str, dict[str, np.ndarray]])
    found: Survival | None = None
    routers: Survival | None = None

    def take(self, job: Job, stats: Mapping[str, Any]) -> None:
        """Add what one tensor's merge accounted for."""
        survival = Survival.of(np.asarray(stats["counts"], np.int64), np.asarray(stats["sums"]))
        self.found = survival if self.found is None else self.found + survival
        if kind_of(job.name) == ROUTER:
            self.routers = survival if self.routers is None else self.routers + survival


class Forecaster:
    """``learn`` each tensor's observation, then ``run``."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], tensors: Sequence[Paired], sample: int, seed: int, own: Recipe | None
    ) -> None:
        count = len(checkpoints) - 1
        self.seed = seed
        self.layers = layer_count(checkpoints[0].tensors)
        self.tensors = [paired for paired in tensors if len(paired.present) == count]
        self.total = sum(paired.job.output.numel for paired in self.tensors)
        self.sample = min(sample or self.total, self.total)
        # Recipes need names; an expert that is the base itself must still count as an expert.
        stand_ins = [f"expert {k}" for k in range(count)]
        self.candidates = [
            _candidate(label, recipe_from_flags(method, "base", stand_ins, parameters), parameters)
            for label, method, parameters in default_recipes(count)
        ]
        if own is not None and _is_known(own, count):
            self.candidates.append(_candidate("as requested", own, {}))

    def learn(self, paired: Paired, seen: Observation) -> None:
        """Keep the thresholds of one tensor; its magnitudes are not needed again."""
        name, numel = paired.job.name, paired.job.output.numel
        for candidate in self.candidates:
            for statistic in candidate.statistics:
                if statistic.reduce == "kth" and statistic.rank is not None and seen.magnitudes:
                    values = candidate.recipe.values(name, self.layers, kind_of(name) == ROUTER)
                    ranks = statistic.rank(numel, np.array([m.count for m in seen.magnitudes]), values)
                    tables = [m.table for m in seen.magnitudes]
                    found = [t.kth_largest(int(rank)).value for t, rank in zip(tables, ranks, strict=True)]
                    candidate.known.setdefault(name, {})[statistic.name] = np.array(found)

    def run(
        self, workers: Workers, whole: Observation, names: Sequence[str], progress: Progress
    ) -> tuple[Forecast, ...]:
        """What every recipe leaves; () when no tensor is held by all experts."""
        if not self.tensors:
            return ()
        tasks = list(self._tasks())
        progress.start("forecast", sum(task.nbytes for task in tasks))
        # What is not finite counts as 0, and an overflow is a finding of its own.
        keep = Options(seed=self.seed, on_nonfinite="keep")
        options = replace(keep, on_nonfinite="zero") if whole.nonfinite.any() else keep
        sizing = Sizing(workers.threads, TILE, TILE, workers.threads + 1, 8 * TILE, 0)
        overlap = {"overlap": np.concatenate([whole.active - whole.active_alone, whole.active_alone])}
        lanes: list[Lane] = []
        for number, candidate in enumerate(self.candidates):
            jobs = [task.jobs[number] for task in tasks]
            known = {**candidate.known, SCOPE: overlap}
            lanes.append(Lane(Statistics(jobs, workers, options, sizing, progress, known), StatsSink(candidate.take)))
        Executor(lanes, workers, sizing, keep, progress, checked=False).run(tasks)
        progress.done()
        looked = sum(stop - start for task in tasks for start, stop in task.tiles or ()) / self.total
        dtypes = {paired.job.output.dtype.name for paired in self.tensors}
        dtype = dtypes.pop() if len(dtypes) == 1 else "mixed"
        return tuple(_forecast(candidate, names, dtype, looked) for candidate in self.candidates)

    def _tasks(self) -> Iterator[Task]:
        """Tiles spread evenly over the model that hold about ``sample`` coordinates, or all of them."""
        share, owed = self.sample / self.total, 0.0
        for paired in self.tensors:
            chosen: list[tuple[int, int]] = []
            for tile in cut(paired.job, TILE):
                owed += share * tile.count
                if share == 1.0 or owed >= tile.count / 2:
                    owed -= tile.count
                    chosen.append((tile.start, tile.stop))
            if chosen:
                yield Task(tuple(self._job(candidate, paired.job) for candidate in self.candidates), tuple(chosen))

    def _job(self, candidate: _Candidate, job: Job) -> Job:
        recipe = candidate.recipe
        known = {"experts": float(len(job.experts)), "numel": job.output.numel, "wide": job.operands.real == np.float64}
        values = {**recipe.values(job.name, self.layers, kind_of(job.name) == ROUTER), **known}
        return replace(job, method=recipe.method, values=values, stages=(candidate.statistics,))


def _candidate(label: str, recipe: Recipe, parameters: Mapping[str, float]) -> _Candidate:
    stages = recipe.method.statistics(len(recipe.experts), **recipe.static())
    return _Candidate(label, recipe, parameters, [statistic for stage in stages for statistic in stage])


def _is_known(recipe: Recipe, experts: int) -> bool:
    """Whether a user's recipe needs nothing that the measuring pass does not see."""
    method, static = recipe.method, recipe.static()
    if method.is_whole(static) or method.inputs or method.rows_field is not None or len(recipe.experts) != experts:
        return False
    candidate = _candidate("", recipe, {})
    epsilon = recipe.values("", 0).get("epsilon", EPSILON)
    return all(
        (s.reduce == "kth" and s.over == "tensor" and s.formula is magnitude)
        or (s.name == "overlap" and s.over == "model" and static.get("active") == "epsilon" and epsilon == EPSILON)
        for s in candidate.statistics
    )


def _forecast(candidate: _Candidate, names: Sequence[str], dtype: str, looked: float) -> Forecast:
    found: Any = candidate.found
    method = candidate.recipe.method
    return Forecast(
        candidate.label,
        method.name,
        candidate.parameters,
        method.status,
        dtype,
        found.share,
        looked,
        found.outcomes(names),
        math.nan if candidate.routers is None else candidate.routers.share,
    )

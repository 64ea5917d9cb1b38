"""Foretells what the default recipes of the main methods would leave after rounding, without writing anything.

The same fused kernels as a merge run over tiles and throw their output away. Thresholds and overlaps they need were
seen in the measuring pass. Models beyond the sample size are looked at in evenly spread tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlmerge.checkpoint import Checkpoint
from rlmerge.geometry.observation import Observation
from rlmerge.geometry.observe import EPSILON
from rlmerge.geometry.survival import Survival
from rlmerge.inspection import Forecast
from rlmerge.kernels.program import Operands
from rlmerge.methods import Statistic
from rlmerge.methods.parts import magnitude
from rlmerge.progress import Progress
from rlmerge.recipe import Recipe, layer_count, recipe_from_flags

from .compute import Merger
from .pairing import Paired
from .stream import Workers
from .tiles import Tile, cut
from .values import Values, base_values, final_values, for_formula, random_keys

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
    """One recipe being foretold; ``thresholds`` [K] by tensor."""

    label: str
    recipe: Recipe
    parameters: Mapping[str, float]
    statistics: Sequence[Statistic]
    thresholds: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    found: Survival | None = None


class Forecaster:
    """``learn`` each tensor's observation, then ``run``."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], tensors: Sequence[Paired], sample: int, seed: int, own: Recipe | None
    ) -> None:
        count = len(checkpoints) - 1
        self.seed = seed
        self.layers = layer_count(checkpoints[0].tensors)
        self.tensors = [paired for paired in tensors if len(paired.present) == count]
        self.total = sum(paired.tensor.output.numel for paired in self.tensors)
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
        name, numel = paired.tensor.output.name, paired.tensor.output.numel
        for candidate in self.candidates:
            for statistic in candidate.statistics:
                if statistic.reduce == "kth" and statistic.rank is not None and seen.magnitudes:
                    values = candidate.recipe.values(name, self.layers)
                    ranks = statistic.rank(numel, np.array([m.count for m in seen.magnitudes]), values)
                    tables = [m.table for m in seen.magnitudes]
                    candidate.thresholds[name] = np.array(
                        [t.kth_largest(int(rank)).value for t, rank in zip(tables, ranks, strict=True)]
                    )

    def run(
        self, workers: Workers, whole: Observation, names: Sequence[str], progress: Progress
    ) -> tuple[Forecast, ...]:
        """What every recipe leaves; () when no tensor is held by all experts."""
        if not self.tensors:
            return ()
        tiles = list(self._tiles())
        progress.start("forecast", sum(tile.nbytes for tile in tiles))
        mergers = {
            paired.tensor.output.name: [self._merger(c, paired, whole) for c in self.candidates]
            for paired in self.tensors
        }

        def work(tile: Tile, inputs: Sequence[np.ndarray]) -> list[Survival]:
            buffer = np.empty(tile.count, tile.tensor.output.dtype.storage)
            found = [merger(tile, inputs, buffer) for merger in mergers[tile.tensor.output.name]]
            return [Survival.of(f.counts, f.sums.sum(axis=0)) for f in found]

        for tile, results in workers.map(tiles, work):
            for candidate, survival in zip(self.candidates, results, strict=True):
                candidate.found = survival if candidate.found is None else candidate.found + survival
            progress.advance(tile.nbytes)
        progress.done()
        looked = sum(tile.count for tile in tiles) / self.total
        dtypes = {paired.tensor.output.dtype.name for paired in self.tensors}
        dtype = dtypes.pop() if len(dtypes) == 1 else "mixed"
        return tuple(_forecast(candidate, names, dtype, looked) for candidate in self.candidates)

    def _tiles(self) -> Iterator[Tile]:
        """Tiles spread evenly over the model that hold about ``sample`` coordinates, or all of them."""
        share, owed = self.sample / self.total, 0.0
        for paired in self.tensors:
            for tile in cut(paired.tensor, TILE):
                owed += share * tile.count
                if share == 1.0 or owed >= tile.count / 2:
                    owed -= tile.count
                    yield tile

    def _merger(self, candidate: _Candidate, paired: Paired, whole: Observation) -> Merger:
        recipe, tensor = candidate.recipe, paired.tensor
        method, name = recipe.method, tensor.output.name
        values: Values = base_values(method, {**recipe.values(name, self.layers), **tensor.values}, {})
        for statistic in candidate.statistics:
            skipped = statistic.skip(values) if statistic.skip else None
            if skipped is not None:
                values[statistic.name] = skipped
            elif statistic.reduce == "kth":
                values[statistic.name] = candidate.thresholds[name]
            else:
                values[statistic.name] = np.concatenate([whole.active - whole.active_alone, whole.active_alone])
        values = final_values(method, values)
        return Merger(
            method.formula,
            Operands(tensor.layout.base, tensor.layout.experts, method.space == "delta"),
            for_formula(method.formula, values),
            random_keys(self.seed, name, len(tensor.experts)),
            zero=bool(whole.nonfinite.any()),
            columns=tensor.columns,
            out=tensor.output.dtype,
            rounding="nearest",
            keeps_base=method.keeps_base(values),
        )


def _candidate(label: str, recipe: Recipe, parameters: Mapping[str, float]) -> _Candidate:
    stages = recipe.method.statistics(len(recipe.experts), **recipe.static())
    return _Candidate(label, recipe, parameters, [statistic for stage in stages for statistic in stage])


def _is_known(recipe: Recipe, experts: int) -> bool:
    """Whether a user's recipe needs nothing that the measuring pass does not see."""
    method, static = recipe.method, recipe.static()
    if method.whole or method.inputs or method.rows_field is not None or len(recipe.experts) != experts:
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
    )

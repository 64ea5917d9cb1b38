"""The statistics a method needs, gathered before its formula runs.

Stages up to the last one with a statistic over the whole model are scanned model-wide, one pass after the other. The
stages behind it need only their own tensor; they are scanned tensor by tensor, right before the tensor is merged, so
that its weights are read from disk once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlmerge.methods import Statistic
from rlmerge.planning import Plan, TensorPlan
from rlmerge.progress import Progress

from .compute import Reducer
from .gather import Gather, gather
from .nonfinite import refuse_nonfinite
from .stream import Workers
from .tiles import Tile, cut
from .values import Values, base_values, final_values, for_formula, random_keys

Found = dict[str, np.ndarray]

SCAN_TILE = 1 << 22
"""Elements per tile of a scan: inputs are mapped, not copied, and every tile brings histograms to clear and add up."""


class Scan:
    """Scans one plan; ``known`` holds statistics by tensor name (model-wide ones under ``""``)."""

    def __init__(self, plan: Plan, workers: Workers, tile: int, progress: Progress, known: dict[str, Found]) -> None:
        self.plan = plan
        self.workers = workers
        self.tile = tile
        self.progress = progress
        self.known = known
        self.merged = [t for t in plan.tensors.values() if t.action == "merge" and t.output.numel]
        last = max((i for i, stage in enumerate(plan.stages) if any(s.over == "model" for s in stage)), default=-1)
        self.model_stages = plan.stages[: last + 1]
        self.tensor_stages = plan.stages[last + 1 :]

    def scan_model(self) -> None:
        """Gather the stages that need the whole model, if any."""
        for number, stage in enumerate(self.model_stages, 1):
            for statistic in stage:
                if statistic.over == "tensor":
                    for tensor in self.merged:
                        self._scan([tensor], (statistic,), self._store(tensor))
            wide = [s for s in stage if s.over == "model" and s.name not in self.known.get("", {})]
            if wide and not self._skipped(wide):
                total = sum(info.nbytes for tensor in self.merged for info in tensor.inputs)
                self.progress.start(f"scan {number}/{len(self.model_stages)}", total)
                self._scan(self.merged, wide, self.known.setdefault("", {}))
                self.progress.done()

    def _skipped(self, stage: Sequence[Statistic]) -> bool:
        """Whether every statistic over the model is known without reading; their values are stored."""
        for statistic in stage:
            found = [statistic.skip(self._so_far(t)) if statistic.skip else None for t in self.merged]
            if any(value is None for value in found):
                return False
            self.known.setdefault("", {})[statistic.name] = np.asarray(found[0] if found else 0.0)
        return True

    def scan_tensor(self, tensor: TensorPlan) -> None:
        """Gather the remaining stages for one tensor."""
        for stage in self.tensor_stages:
            self._scan([tensor], stage, self._store(tensor))

    def values(self, tensor: TensorPlan) -> Values:
        """All values of a tensor's formula; its stages must have been gathered."""
        return final_values(self.plan.method, self._so_far(tensor))

    def _store(self, tensor: TensorPlan) -> Found:
        return self.known.setdefault(tensor.output.name, {})

    def _so_far(self, tensor: TensorPlan) -> Values:
        found = {**self.known.get("", {}), **self.known.get(tensor.output.name, {})}
        return {**base_values(self.plan.method, tensor.values, tensor.extras), **found}

    def _scan(self, tensors: Sequence[TensorPlan], stage: Sequence[Statistic], store: Found) -> None:
        """Gather ``stage`` over all tiles of ``tensors``, in as many passes as it takes."""
        if not tensors:
            return
        first = self._so_far(tensors[0])
        open_: dict[str, tuple[Statistic, Gather]] = {}
        for statistic in stage:
            if statistic.name in store:
                continue
            skipped = [statistic.skip(self._so_far(t)) if statistic.skip else None for t in tensors]
            if all(value is not None for value in skipped):
                store[statistic.name] = np.asarray(skipped[0])
            else:
                open_[statistic.name] = (statistic, gather(statistic))
        numel = sum(t.output.numel for t in tensors)
        while open_:
            self._pass(tensors, open_)
            for name, (_, gathered) in list(open_.items()):
                value = gathered.advance(numel, first)
                if value is not None:
                    store[name] = value
                    del open_[name]

    def _pass(self, tensors: Sequence[TensorPlan], open_: Mapping[str, tuple[Statistic, Gather]]) -> None:
        by_rows = self.plan.method.rows_field is not None
        by_rows = by_rows or any(statistic.reduce == "rows" for statistic, _ in open_.values())
        reducers: dict[str, dict[str, Reducer]] = {}
        for tensor in tensors:
            reducers[tensor.output.name] = {
                name: self._reducer(statistic, tensor, gathered) for name, (statistic, gathered) in open_.items()
            }

        def work(tile: Tile, inputs: Sequence[np.ndarray]) -> dict[str, tuple[Any, bool]]:
            mine = reducers[tile.tensor.output.name]
            return {name: open_[name][1].partial(mine[name], tile, inputs) for name in open_}

        size = self.tile if by_rows else max(self.tile, SCAN_TILE)
        tiles = (tile for tensor in tensors for tile in cut(tensor, size, by_rows=by_rows))
        for tile, partials in self.workers.map(tiles, work):
            if self.plan.options.on_nonfinite == "error" and any(bad for _, bad in partials.values()):
                refuse_nonfinite(tile)
            for name, (partial, _) in partials.items():
                open_[name][1].add(tile, partial)
            if len(tensors) > 1:
                self.progress.advance(tile.nbytes)

    def _reducer(self, statistic: Statistic, tensor: TensorPlan, gathered: Gather) -> Reducer:
        reducer = Reducer(
            statistic.formula,
            tensor.layout,
            for_formula(statistic.formula, self._so_far(tensor)),
            random_keys(self.plan.options.seed, tensor.output.name, len(tensor.experts)),
            zero=self.plan.options.on_nonfinite == "zero",
            columns=tensor.columns,
            reduce=statistic.reduce,
        )
        gathered.prepare(reducer)
        return reducer

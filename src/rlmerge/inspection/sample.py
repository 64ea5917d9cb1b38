"""A look at a part of the weights: which blocks are read, and how far figures of them may be from those of all.

Every s-th block of 65536 coordinates is read, counted over all tensors from the first to the last, so that each tensor
is there in proportion to its size and a small one may not be there at all. The same models give the same blocks. What
was read is dealt into groups in turn; how much a figure varies between these tells its standard error.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from rlmerge.geometry.definitions import Measure
from rlmerge.geometry.observation import Observation
from rlmerge.kernels.jit import BLOCK
from rlmerge.merging.tiles import Tile

from .collect import Collector
from .pairing import Paired
from .results import Model, Sampling

GROUPS = 8
"""Groups between which figures are compared."""


def sampled(tensors: Sequence[Paired], coordinates: int) -> Iterator[Tile]:
    """The blocks to read, about ``coordinates`` in all and at least one; every block of models that have fewer."""
    counts = [-(-paired.job.output.numel // BLOCK) for paired in tensors]
    step = max(1, -(-sum(counts) * BLOCK // max(BLOCK, coordinates)))
    number = 0
    for paired, count in zip(tensors, counts, strict=True):
        first = -(number - step // 2) % step
        for block in range(first, count, step):
            start = block * BLOCK
            yield Tile(paired.job, start, min(paired.job.output.numel, start + BLOCK))
        number += count


class Errors:
    """Takes each block's observation, and gives the standard errors of the figures of all."""

    def __init__(self, models: Sequence[Model], dtype: str) -> None:
        self.groups = [Collector(models, dtype) for _ in range(GROUPS)]
        self.taken = 0
        self.read = 0

    def add(self, tile: Tile, seen: Observation) -> None:
        """One block, observed for all experts."""
        self.groups[self.taken % GROUPS].whole.add(seen)
        self.taken += 1
        self.read += tile.count

    def sampling(self, parameters: int) -> Sampling:
        """What was read of ``parameters`` coordinates; errors are NaN where fewer than two groups give a figure."""
        share = self.read / parameters if parameters else 1.0
        used = [group for group in self.groups if group.whole.tensors]
        experts = [group.experts() for group in used]
        pairs = [group.pairs() for group in used]
        count = range(len(self.groups[0].models))
        return Sampling(
            coordinates=self.read,
            share=share,
            blocks=self.taken,
            experts=tuple(_errors([found[k].figures for found in experts], share) for k in count),
            pairs=tuple(_errors([x.figures for x in each], share) for each in zip(*pairs, strict=True)),
        )


def _errors(groups: Sequence[Mapping[str, Measure]], share: float) -> dict[str, float]:
    """The standard error of each figure's mean over groups, less what a finite model leaves to chance."""
    names = {name: None for figures in groups for name in figures}
    found: dict[str, float] = {}
    for name in names:
        values = [figures[name].value for figures in groups if name in figures]
        values = [value for value in values if math.isfinite(value)]
        spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        found[name] = spread * math.sqrt(max(0.0, 1 - share))
    return found

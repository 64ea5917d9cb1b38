"""Accumulators of statistics: partial results of tiles come in any order and add up to the same value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rlmerge.errors import RequestError
from rlmerge.kernels.select import SAMPLE, Selector, Tally
from rlmerge.methods import Statistic

from .backend import Binding, Reducer
from .tiles import Tile


class Accumulator(Protocol):
    """One statistic being gathered: ``partial`` on worker threads, ``add`` and ``advance`` on one thread."""

    def prepare(self, binding: Binding, reducer: Reducer) -> None:
        """Told of every reducer before the pass."""
        ...

    def expect(self, reducer: Reducer, tile: Tile, values: Mapping[str, Any], twins: Sequence[Accumulator]) -> None:
        """Told of the one tile that will be cut into those of a first pass, which ``twins`` will resume."""
        ...

    def partial(self, reducer: Reducer, tile: Tile, inputs: Sequence[Any]) -> tuple[Any, bool]:
        """The result of one tile, and whether its inputs held NaN or infinity."""
        ...

    def add(self, tile: Tile, result: Any) -> None:
        """Merge the result of one tile."""
        ...

    def advance(self, numel: int, values: Mapping[str, Any]) -> np.ndarray | None:
        """After a pass over all tiles: the value, or None when another pass is needed."""
        ...

    @property
    def first_tally(self) -> Tally | None:
        """Of a selection after its first pass and before it advances: what was counted."""
        ...

    def resume(self, real: np.dtype, tally: Tally) -> bool:
        """Take another selection's first pass over the same values for one's own; False where that means nothing."""
        ...


def accumulator(statistic: Statistic) -> Accumulator:
    """A fresh accumulator for ``statistic``."""
    return {"sum": _Sum, "count": _Count, "rows": _Rows, "matrix": _Matrix, "kth": _Kth}[statistic.reduce](statistic)


class _Unprepared:
    def prepare(self, binding: Binding, reducer: Reducer) -> None:
        """Sums, counts and rows need to know nothing beforehand."""

    def expect(self, reducer: Reducer, tile: Tile, values: Mapping[str, Any], twins: Sequence[Accumulator]) -> None:
        """They look at everything."""

    @property
    def first_tally(self) -> Tally | None:
        """No selection."""
        return None

    def resume(self, real: np.dtype, tally: Tally) -> bool:
        """No selection."""
        return False


class _Sum(_Unprepared):
    """Float64 sums: block sums are added exactly (fsum), hence in any order."""

    def __init__(self, statistic: Statistic) -> None:
        self.parts: list[np.ndarray] = []

    def partial(self, reducer: Reducer, tile: Tile, inputs: Sequence[Any]) -> tuple[Any, bool]:
        return reducer.sums(tile, inputs)

    def add(self, tile: Tile, result: Any) -> None:
        self.parts.append(result)

    def advance(self, numel: int, values: Mapping[str, Any]) -> np.ndarray | None:
        return np.array([math.fsum(column) for column in np.concatenate(self.parts).T])


class _Count(_Unprepared):
    """Integer counts."""

    def __init__(self, statistic: Statistic) -> None:
        self.total: Any = 0

    def partial(self, reducer: Reducer, tile: Tile, inputs: Sequence[Any]) -> tuple[Any, bool]:
        return reducer.counts(tile, inputs)

    def add(self, tile: Tile, result: Any) -> None:
        self.total = self.total + result

    def advance(self, numel: int, values: Mapping[str, Any]) -> np.ndarray | None:
        return np.asarray(self.total)


class _Rows(_Unprepared):
    """Row-wise values, put together in row order."""

    def __init__(self, statistic: Statistic) -> None:
        self.parts: dict[int, np.ndarray] = {}

    def partial(self, reducer: Reducer, tile: Tile, inputs: Sequence[Any]) -> tuple[Any, bool]:
        return reducer.rows(tile, inputs)

    def add(self, tile: Tile, result: Any) -> None:
        self.parts[tile.start] = result

    def advance(self, numel: int, values: Mapping[str, Any]) -> np.ndarray | None:
        return np.concatenate([self.parts[start] for start in sorted(self.parts)], axis=1)


class _Matrix(_Unprepared):
    """Arrays of groups of rows, added up in the order of the groups, in which a pass hands them out."""

    def __init__(self, statistic: Statistic) -> None:
        self.finish = statistic.finish
        self.total: np.ndarray | None = None

    def partial(self, reducer: Reducer, tile: Tile, inputs: Sequence[Any]) -> tuple[Any, bool]:
        return reducer.matrix(tile, inputs)

    def add(self, tile: Tile, result: Any) -> None:
        if self.total is None:
            self.total = result
        else:
            self.total += result

    def advance(self, numel: int, values: Mapping[str, Any]) -> np.ndarray | None:
        return np.asarray(self.finish(self.total, values))


class _Kth:
    """Exact order statistics in one or more passes."""

    def __init__(self, statistic: Statistic) -> None:
        assert statistic.rank is not None
        self.rank = statistic.rank
        self.selector: Selector | None = None
        self.begun = False

    @property
    def first_tally(self) -> Tally | None:
        """What the first pass counted; nobody adds to it any more."""
        return None if self.begun or self.selector is None else self.selector.tally

    def resume(self, real: np.dtype, tally: Tally) -> bool:
        """Go on where a selection of other ranks over the same values was after its first pass."""
        self.selector = Selector(real, len(tally.histograms))
        self.selector.tally = tally
        return True

    def prepare(self, binding: Binding, reducer: Reducer) -> None:
        """Make the selector once the arithmetic and the number of values are known."""
        if self.selector is None:
            self.selector = Selector(binding.real, reducer.selected)
        if self.selector.dtype != binding.real:
            raise RequestError(
                "a threshold over the whole model needs one arithmetic precision, but some tensors are float64",
                hint="Set dtype: float64.",
            )

    def expect(self, reducer: Reducer, tile: Tile, values: Mapping[str, Any], twins: Sequence[Accumulator]) -> None:
        """Look closely only at magnitudes around those that a sample has at the ranks of all."""
        if self.begun or self.selector is None:
            return
        found = reducer.sample(self.selector, tile)
        if found is not None:
            sample, counted = found
            nonzero = np.rint(counted * (tile.count / SAMPLE)).astype(np.int64)
            asked = [self, *(twin for twin in twins if isinstance(twin, _Kth))]
            ranks = [np.asarray(each.rank(tile.count, nonzero, values)) for each in asked]
            self.selector.expect(sample, ranks, tile.count)

    def partial(self, reducer: Reducer, tile: Tile, inputs: Sequence[Any]) -> tuple[Any, bool]:
        assert self.selector is not None
        return reducer.tally(self.selector, tile, inputs)

    def add(self, tile: Tile, result: Any) -> None:
        assert self.selector is not None
        self.selector.add(result)

    def advance(self, numel: int, values: Mapping[str, Any]) -> np.ndarray | None:
        assert self.selector is not None
        self.begun = True
        ranks = np.asarray(self.rank(numel, self.selector.count_nonzero(), values))
        return self.selector.result if self.selector.advance(ranks) else None

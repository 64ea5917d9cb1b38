"""The one protocol by which formulas run: bound to a job's values once, then called tile by tile from any thread.

NumPy is the reference, LLVM the fast path on the CPU, torch the path to other devices. All give the same numbers: equal
bits for what is written, counted and selected, and sums equal up to the order of float64 additions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from rlmerge.checkpoint import Source
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import DType
from rlmerge.kernels.jit import Selection
from rlmerge.kernels.program import Operands
from rlmerge.kernels.random import stream_key
from rlmerge.kernels.rounding import Rounding
from rlmerge.kernels.select import Selector, Tally
from rlmerge.kernels.values import Extra, RowField, Uniform, typed
from rlmerge.methods import Method, Share, arguments
from rlmerge.options import Options

from .job import Job
from .tiles import Tile

Keys = Sequence[tuple[int, int]]


@frozen
class Numbers:
    """What a tile adds up to: ``sums`` [blocks, S], ``counts`` [C], whether inputs or output were not finite, and what
    the formula of a whole tensor measured."""

    sums: np.ndarray
    counts: np.ndarray
    nonfinite_in: bool = False
    nonfinite_out: bool = False
    report: Mapping[str, Share] = field(default_factory=dict[str, Share])


def together(parts: Sequence[Numbers]) -> Numbers:
    """What the parts of a tile add up to."""
    return Numbers(
        np.concatenate([part.sums for part in parts]),
        np.sum([part.counts for part in parts], axis=0),
        any(part.nonfinite_in for part in parts),
        any(part.nonfinite_out for part in parts),
    )


@frozen
class Binding:
    """A formula with everything that is the same for all tiles of a job.

    ``values`` are typed. ``zero`` makes NaN and infinity count as 0. ``extras`` are the further inputs by name. A
    ``whole`` formula gets the tensor in one piece and in its own shape. Random numbers follow from ``seed`` and the
    tensor's ``name``.
    """

    formula: Callable[..., Any]
    operands: Operands
    values: Mapping[str, Any]
    seed: int
    name: str
    zero: bool
    shape: tuple[int, ...]
    extras: Mapping[str, tuple[Source, ...]]
    whole: bool = False

    @property
    def keys(self) -> Keys:
        """One random key an expert and, last, the one of stochastic rounding."""
        return _random_keys(self.seed, self.name, len(self.operands.experts))

    @property
    def real(self) -> np.dtype:
        """Arithmetic type."""
        return self.operands.real

    @property
    def columns(self) -> int:
        """Length of a row, at least 1."""
        return max(1, self.shape[-1]) if self.shape else 1

    @property
    def streams(self) -> int:
        """Streams of uniform numbers that the formula draws."""
        return sum(v.count for v in self.values.values() if isinstance(v, Uniform))


@frozen
class Storing:
    """How merged numbers are stored: the element type, the rounding, and whether untouched entries keep their bits.

    Without ``accounts`` nobody looks at sums and counts of the merge, and a backend may leave them out.
    """

    dtype: DType
    rounding: Rounding
    keeps_base: bool
    accounts: bool = True


class Merger(Protocol):
    """Merges tiles of one job."""

    def __call__(self, tile: Tile, inputs: Sequence[Any], out: Any) -> Numbers:
        """Merge one tile into ``out`` [tile.count], in storage values of the output type, and account for it."""
        ...


class Reducer(Protocol):
    """Reduces what a statistic's formula returns on tiles of one job.

    Each function gives its result and whether the tile held NaN or infinity. One that ``reads`` takes sums, counts and
    tallies of tiles without inputs, which it reads by itself.
    """

    @property
    def reads(self) -> bool:
        """Whether inputs may be left out."""
        ...

    @property
    def selected(self) -> int:
        """How many values a selection finds."""
        ...

    def sums(self, tile: Tile, inputs: Sequence[Any]) -> tuple[np.ndarray, bool]:
        """Block sums float64 [blocks, M]."""
        ...

    def counts(self, tile: Tile, inputs: Sequence[Any]) -> tuple[np.ndarray, bool]:
        """Counts int64 [M]."""
        ...

    def rows(self, tile: Tile, inputs: Sequence[Any]) -> tuple[np.ndarray, bool]:
        """Row-wise values float64 [M, rows of the tile]; the tile must hold whole rows."""
        ...

    def matrix(self, tile: Tile, inputs: Sequence[Any]) -> tuple[np.ndarray, bool]:
        """What the formula makes of one group of rows: a float64 array."""
        ...

    def tally(self, selector: Selector, tile: Tile, inputs: Sequence[Any]) -> tuple[Tally, bool]:
        """Histograms for the selector's current pass."""
        ...

    def sample(self, selector: Selector, tile: Tile) -> tuple[Selection, np.ndarray] | None:
        """For ``Selector.expect``: what counted a sample of a tile that is read, and entries [M] of it that are not 0.

        None where that is of no use.
        """
        ...


class Backend(Protocol):
    """A way to run formulas."""

    name: str

    def load(self, source: Source, start: int, stop: int) -> Any:
        """Elements [start, stop) of a source as the backend's arrays, in storage values."""
        ...

    def merger(self, binding: Binding, storing: Storing) -> Merger:
        """What merges tiles, or a whole tensor where the formula needs that."""
        ...

    def reducer(self, binding: Binding, reduce: str) -> Reducer:
        """A reducer for ``sum``, ``count``, ``rows``, ``matrix`` or ``kth``."""
        ...


def bind(method: Method, formula: Callable[..., Any], job: Job, values: Mapping[str, Any], options: Options) -> Binding:
    """``formula`` of ``method`` with the values it names: the one place where a job's values become typed."""
    count = int(job.values["experts"])
    known: dict[str, Any] = {"row": 0.0, "field": None, **values, "uniform": Uniform(count)}
    for name in method.inputs:
        sources = job.extras.get(name)
        known[name] = None if sources is None else Extra(tuple(source.dtype for source in sources))
    if method.rows_field is not None and not job.whole and "field" in arguments(formula, known):
        chosen = {name: typed(x) for name, x in arguments(method.rows_field, known).items()}
        fields = 1 if method.row_wise else count
        spreads = method.spreads(**arguments(method.spreads, known)) if method.spreads else None
        known["field"] = RowField(method.rows_field, chosen, fields, method.row_wise, spreads)
    chosen = {name: typed(value) for name, value in arguments(formula, known).items()}
    policy = options.on_nonfinite
    operands = replace(job.operands, same_is_zero=policy == "keep")
    shape = job.output.shape
    return Binding(formula, operands, chosen, options.seed, job.name, policy == "zero", shape, job.extras, job.whole)


@lru_cache(maxsize=256)
def _random_keys(seed: int, name: str, experts: int) -> Keys:
    """From seed, purpose, expert and tensor name; kept for the recipes that merge the tensor side by side."""
    streams = [stream_key(seed, "uniform", k, name) for k in range(experts)]
    return [*streams, stream_key(seed, "rounding", name)]

"""Formulas as fused machine code; what cannot be traced runs on NumPy, with the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmerge.kernels.deltas import Kind, decode_deltas
from rlmerge.kernels.dtypes import FLOAT32, DType
from rlmerge.kernels.jit import ACCOUNT_BLOCK, BLOCK, Call, Counts, Kernel, Selection
from rlmerge.kernels.program import Operands, merge_kernel, reduce_kernel
from rlmerge.kernels.select import SAMPLE, SAMPLED_FROM, Selector, Tally
from rlmerge.kernels.trace import UntraceableError
from rlmerge.kernels.values import Extra, Uniform, parameters

from .backend import Binding, Keys, Merger, Numbers, Reducer, Storing, together
from .on_numpy import Decoded, NumpyBackend, NumpyFormula, NumpyMerger, NumpyReducer
from .reading import read_sample, read_through
from .tiles import Tile

if TYPE_CHECKING:
    from rlmerge.kernels.ranks import Ranking

PIECES = 32
"""Pieces of a sample."""


class _Compiled:
    """A kernel with the numbers of one binding."""

    def __init__(self, kernel: Kernel, formula: NumpyFormula) -> None:
        self.kernel = kernel
        params, rows = parameters(formula.values)
        keys: Keys = ()
        if kernel.streams:
            keys = formula.binding.keys
            keys = [*keys[: formula.binding.streams], keys[-1]][: kernel.streams]
        self.bound = kernel.bind(params, rows, keys, formula.columns)
        self.inputs = len(formula.operands.inputs) + sum(formula.extra_names.values())

    def __call__(self, tile: Tile, inputs: Sequence[np.ndarray], block: int, **more: Any) -> Counts:
        return self.kernel.run(self.bound, inputs[: self.inputs], tile.start, block=block, **more)


def _kind(formula: NumpyFormula) -> Kind | None:
    """What task vectors are made from; None where a field wants weights."""
    operands = formula.operands
    if operands.base is None or not operands.deltas:
        return None
    return Kind(operands.base, operands.experts, formula.real, formula.binding.zero, operands.same_is_zero)


def _decoded(formula: NumpyFormula, inputs: Sequence[np.ndarray]) -> Decoded | None:
    """Base and task vectors by machine code; None where a field wants weights. Whether they are finite is not told."""
    kind = _kind(formula)
    found = None if kind is None else decode_deltas(kind, inputs[: len(formula.operands.inputs)])
    return None if found is None else Decoded(found[0], found[1], found[1], {}, True)


def _ranking(formula: NumpyFormula) -> Ranking | None:
    """What makes a formula's field by machine code, where that is a spread by rank of each task vector."""
    spreads = None if formula.field is None else formula.field.spreads
    kind = _kind(formula)
    # A row that is longer than a block is read in pieces.
    if spreads is None or kind is None or formula.columns > BLOCK:
        return None
    from rlmerge.kernels.ranks import Ranking

    return Ranking(kind, formula.columns, spreads) if Ranking.takes(kind, formula.columns) else None


class LlvmMerger(NumpyMerger):
    """Merges tiles with one fused kernel: decode, formula, rounding, account, write."""

    def __init__(self, binding: Binding, storing: Storing) -> None:
        super().__init__(binding, storing)
        self.storing = storing
        kernel = merge_kernel(
            binding.formula,
            self.operands,
            self.values,
            storing.dtype,
            rounding=storing.rounding,
            keeps_base=storing.keeps_base,
            zero_nonfinite=binding.zero,
            accounts=storing.accounts,
        )
        self.run = _Compiled(kernel, self)
        self.ranking = _ranking(self)

    def decoded(self, inputs: Sequence[np.ndarray]) -> Decoded:
        """Base and experts for the field of a group."""
        return _decoded(self, inputs) or super().decoded(inputs)

    def merge(self, tile: Tile, inputs: Sequence[np.ndarray], out: np.ndarray) -> Numbers:
        """Merge a tile whose field is among its inputs."""
        return _numbers(self.run(tile, inputs, ACCOUNT_BLOCK, out=out))

    @property
    def reads_blocks(self) -> bool:
        """Whether tiles can be merged by ``call``: unless NumPy makes a field of whole rows before."""
        return self.field is None or self.ranking is not None

    @property
    def draws(self) -> Keys:
        """The keys of the random numbers that the formula draws, where ``drawn`` can take them instead."""
        streams = self.binding.streams
        return tuple(self.binding.keys[:streams]) if streams and self.real == np.float32 else ()

    def drawn(self) -> LlvmMerger:
        """The same formula, with its random numbers as further inputs."""
        values = {
            name: Extra((FLOAT32,) * value.count) if isinstance(value, Uniform) else value
            for name, value in self.binding.values.items()
        }
        return LlvmMerger(replace(self.binding, values=values), self.storing)

    def call(self, tile: Tile, out: np.ndarray, step: int) -> Call:
        """The kernel on a tile, ``step`` elements at a time, for ``rlmerge.kernels.blocks``."""
        return self.run.bound.call(tile.count, tile.start, out, ACCOUNT_BLOCK, step)

    def numbers(self, call: Call, inputs: Callable[[], Sequence[np.ndarray]]) -> Numbers:
        """What a call added up; ``inputs`` as for ``Call.found``."""
        return _numbers(call.found(inputs))


def _numbers(found: Counts) -> Numbers:
    return Numbers(found.sums, found.counts, found.nonfinite_in, found.nonfinite_out)


class Drawing:
    """Draws the random numbers of several formulas once: a stream of numbers in [0, 1) a key."""

    def __init__(self, keys: Keys, first: DType) -> None:
        # A kernel reads at least one input; what it holds does not matter.
        kernel = merge_kernel(
            _draw,
            Operands(None, (first,), False),
            {"uniform": Uniform(1)},
            FLOAT32,
            accounts=False,
            zero_nonfinite=True,
        )
        self._bound = [kernel.bind(keys=[key]) for key in keys]

    @property
    def count(self) -> int:
        """How many streams."""
        return len(self._bound)

    def calls(self, tile: Tile, memory: np.ndarray) -> list[Call]:
        """The kernels that fill ``memory``, float32 [keys, step], at every step of a tile."""
        step = memory.shape[1]
        return [
            bound.call(tile.count, tile.start, row, ACCOUNT_BLOCK, step, again=True)
            for bound, row in zip(self._bound, memory, strict=True)
        ]


def _draw(xp: Any, base: Any, weights: Any, *, uniform: Any) -> Any:
    return uniform[0]


class LlvmReducer(NumpyReducer):
    """Sums, counts or histograms in one fused pass."""

    def __init__(self, binding: Binding, reduce: str) -> None:
        super().__init__(binding)
        kernel = reduce_kernel(binding.formula, self.operands, self.values, reduce, zero_nonfinite=binding.zero)
        self.run = _Compiled(kernel, self)

    def decoded(self, inputs: Sequence[np.ndarray]) -> Decoded:
        """Base and experts for the field of a group."""
        return _decoded(self, inputs) or super().decoded(inputs)

    @property
    def reads(self) -> bool:
        """Where no field is made of whole rows before, and there are no inputs of another size."""
        return self.field is None and not self.extra_names

    @property
    def selected(self) -> int:
        """How many values the statistic selects from."""
        return self.run.kernel.selected

    def sums(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Block sums float64 [blocks, M]."""
        found = self._numbers(tile, inputs)
        return found.sums, found.nonfinite_in

    def counts(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Counts int64 [M]."""
        found = self._numbers(tile, inputs)
        return found.counts, found.nonfinite_in

    def _numbers(self, tile: Tile, inputs: Sequence[np.ndarray]) -> Numbers:
        return together([_numbers(found) for found, _ in self._found(tile, inputs)])

    def tally(self, selector: Selector, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[Tally, bool]:
        """Histograms for the selector's current pass."""
        total: Tally | None = None
        bad = False
        for found, selection in self._found(tile, inputs, selector):
            assert selection is not None, "it was asked for"
            tally = selector.collect(selection, found.counts)
            bad |= found.nonfinite_in
            if total is None:
                total = tally
            else:
                total.add(tally)
        assert total is not None
        return total, bad

    def sample(self, selector: Selector, tile: Tile) -> tuple[Selection, np.ndarray] | None:
        """What counts a sample of a tile that is read, and the entries that are not 0; None where it is of no use."""
        if tile.count < SAMPLED_FROM:
            return None
        sample = selector.sampling()
        call = self.run.bound.call(SAMPLE, tile.start, None, SAMPLE // PIECES, SAMPLE // PIECES, sample)
        return (sample, call.counts.sum(axis=0)[::2]) if read_sample(tile, [call], PIECES, SAMPLE // PIECES) else None

    def _found(
        self, tile: Tile, inputs: Sequence[np.ndarray], selector: Selector | None = None
    ) -> Iterator[tuple[Counts, Selection | None]]:
        """What is accumulated on the tile, or with a field on each group of rows, and the selection it was given."""
        if not inputs:
            selection = None if selector is None else selector.selection(tile.count)
            call = self.run.bound.call(tile.count, tile.start, None, tile.block, tile.block, selection)
            read_through(tile, [call], tile.block)
            yield call.found(partial(_arrays, tile)), selection
            return
        for group, arrays in self.groups(tile, inputs):
            selection = None if selector is None else selector.selection(group.count)
            yield self.run(group, arrays, group.block, selection=selection), selection


def _arrays(tile: Tile) -> list[np.ndarray]:
    """A tile's inputs."""
    return [source.read(tile.start, tile.stop) for source in tile.inputs]


class LlvmBackend(NumpyBackend):
    """Compiled formulas, and NumPy for those beyond the tracer."""

    name = "llvm"

    def merger(self, binding: Binding, storing: Storing) -> Merger:
        """What merges tiles; matrices are NumPy's."""
        if binding.whole:
            return super().merger(binding, storing)
        try:
            return LlvmMerger(binding, storing)
        except UntraceableError:
            return super().merger(binding, storing)

    def reducer(self, binding: Binding, reduce: str) -> Reducer:
        """A reducer; functions of whole rows are NumPy's."""
        if reduce in ("rows", "matrix"):
            return NumpyReducer(binding)
        try:
            return LlvmReducer(binding, reduce)
        except UntraceableError:
            return NumpyReducer(binding)

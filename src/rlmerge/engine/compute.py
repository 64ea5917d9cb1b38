"""One tile through a formula: by a fused kernel, or on NumPy where the formula cannot be traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlmerge.kernels import random
from rlmerge.kernels.dtypes import DType
from rlmerge.kernels.jit import ACCOUNT_BLOCK, BLOCK, Kernel
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.program import (
    Extra,
    Layout,
    Uniform,
    bind,
    merge_kernel,
    numpy_values,
    reduce_kernel,
    rows_of,
)
from rlmerge.kernels.rounding import Rounding
from rlmerge.kernels.select import Selector, Tally
from rlmerge.kernels.trace import UntraceableError

from .pieces import Decoded, Numbers, Rounder, decode_tile, together
from .rows import Field, on_rows
from .tiles import Tile
from .values import Values

Keys = Sequence[tuple[int, int]]


class Formula:
    """A formula bound to the values of one tensor, ready to run on its tiles from any thread."""

    def __init__(
        self, formula: Callable[..., Any], layout: Layout, values: Values, keys: Keys, *, zero: bool, columns: int
    ) -> None:
        self.formula = formula
        self.layout = layout
        self.field = next((value for value in values.values() if isinstance(value, Field)), None)
        self.values = {n: v.extra(layout.real) if isinstance(v, Field) else v for n, v in values.items()}
        self.keys = keys
        self.zero = zero
        self.columns = max(1, columns)
        self.params, self.rows = bind(self.values)
        self.uniforms = sum(v.count for v in self.values.values() if isinstance(v, Uniform))
        self.extra_names = {name: len(v.dtypes) for name, v in sorted(self.values.items()) if isinstance(v, Extra)}

    def parts(self, tile: Tile, inputs: Sequence[np.ndarray]) -> Iterator[tuple[Tile, Sequence[np.ndarray]]]:
        """The tile, or with a field its groups of rows one by one, the field among their inputs."""
        if self.field is None:
            yield tile, inputs
            return
        place = len(self.layout.inputs) + sum(n for name, n in self.extra_names.items() if name < "field")
        for start in range(tile.start, tile.stop, tile.block):
            group = replace(tile, start=start, stop=min(tile.stop, start + tile.block))
            arrays = [x[start - tile.start : group.stop - tile.start] for x in inputs]
            found = decode_tile(arrays, self.layout, {}, self.zero, self.real)
            field = on_rows(
                self.field.function,
                found.base,
                found.stack,
                self.field.values,
                extras={},
                keys=self.keys,
                start=start,
                columns=self.columns,
            )
            rows = np.ascontiguousarray(field, self.real).reshape(self.field.experts, -1)
            yield group, [*arrays[:place], *rows, *arrays[place:]]

    def run(self, kernel: Kernel, tile: Tile, inputs: Sequence[np.ndarray], block: int, **more: Any) -> Any:
        """Call a kernel of this formula."""
        used = [*self.keys[: self.uniforms], self.keys[-1]][: kernel.streams]
        return kernel(
            self.ordered(inputs),
            start=tile.start,
            block=block,
            columns=self.columns,
            params=self.params,
            rows=self.rows,
            keys=used,
            **more,
        )

    def ordered(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Inputs the formula uses: weights, then its own further inputs."""
        return inputs[: len(self.layout.inputs) + sum(self.extra_names.values())]

    def on_numpy(self, decoded: Decoded, start: int) -> Any:
        """The formula on a decoded range that starts at flat index ``start``."""
        real = decoded.stack.dtype
        count = decoded.stack.shape[-1]
        extra: dict[str, np.ndarray] = dict(decoded.extras)
        for name, value in self.values.items():
            if isinstance(value, Uniform):
                draws = [random.uniform(key, start, count, real) for key in self.keys[: value.count]]
                extra[name] = np.stack(draws)
        values = numpy_values(self.values, real, start, count, self.columns, extra)
        with np.errstate(all="ignore"):
            return self.formula(NumpyNamespace(real), decoded.base, decoded.stack, **values)

    def pieces(self, tile: Tile, inputs: Sequence[np.ndarray]) -> list[tuple[int, Decoded]]:
        """The tile decoded in short ranges, so that NumPy's intermediates stay small: (offset, range)."""
        return [
            (i, decode_tile([x[i : i + BLOCK] for x in inputs], self.layout, self.extra_names, self.zero, self.real))
            for i in range(0, tile.count, BLOCK)
        ]

    @property
    def real(self) -> np.dtype:
        """Arithmetic type."""
        return self.layout.real


class Merger(Formula):
    """Merges tiles of one tensor into output buffers and accounts for them."""

    def __init__(self, *args: Any, out: DType, rounding: Rounding, keeps_base: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rounder = Rounder(out, rounding, keeps_base, self.keys[-1])
        try:
            self.kernel: Kernel | None = merge_kernel(
                self.formula,
                self.layout,
                self.values,
                out,
                rounding=rounding,
                keeps_base=keeps_base,
                zero_nonfinite=self.zero,
            )
        except UntraceableError:
            self.kernel = None

    def __call__(self, tile: Tile, inputs: Sequence[np.ndarray], buffer: np.ndarray) -> Numbers:
        """Merge one tile into ``buffer`` [tile.count], in storage values of the output type."""
        return together(
            [
                self._merge(part, arrays, buffer[part.start - tile.start : part.stop - tile.start])
                for part, arrays in self.parts(tile, inputs)
            ]
        )

    def _merge(self, tile: Tile, inputs: Sequence[np.ndarray], buffer: np.ndarray) -> Numbers:
        if self.kernel is not None:
            found = self.run(self.kernel, tile, inputs, ACCOUNT_BLOCK, out=buffer)
            return Numbers(found.sums, found.counts, found.nonfinite_in, found.nonfinite_out)
        return together([self._piece(tile, offset, piece, buffer) for offset, piece in self.pieces(tile, inputs)])

    def _piece(self, tile: Tile, offset: int, piece: Decoded, buffer: np.ndarray) -> Numbers:
        start, count = tile.start + offset, piece.stack.shape[-1]
        merged = np.broadcast_to(np.asarray(self.on_numpy(piece, start), self.real), (1, count))[0]
        return self.rounder(merged, piece, start, buffer[offset : offset + count])


class Reducer(Formula):
    """Sums, counts or histograms what a statistic's formula returns on tiles of one tensor."""

    def __init__(self, *args: Any, reduce: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reduce = reduce
        try:
            self.kernel: Kernel | None = reduce_kernel(
                self.formula, self.layout, self.values, reduce, zero_nonfinite=self.zero
            )
        except UntraceableError:
            self.kernel = None

    def numbers(self, tile: Tile, inputs: Sequence[np.ndarray]) -> Numbers:
        """Block sums [blocks, M] or counts [M] of one tile."""
        return together([self._numbers(part, arrays) for part, arrays in self.parts(tile, inputs)])

    def _numbers(self, tile: Tile, inputs: Sequence[np.ndarray]) -> Numbers:
        if self.kernel is not None:
            found = self.run(self.kernel, tile, inputs, tile.block)
            return Numbers(found.sums, found.counts, found.nonfinite_in)
        pieces = self.pieces(tile, inputs)
        results = [rows_of(self.on_numpy(piece, tile.start + offset)) for offset, piece in pieces]
        bad = any(not piece.finite for _, piece in pieces)
        if self.reduce == "count":
            return Numbers(np.zeros((1, 0)), np.sum([[np.count_nonzero(r) for r in rows] for rows in results], 0), bad)
        sums = np.array([[np.sum(r, dtype=np.float64) for r in rows] for rows in results])
        return Numbers(sums, np.zeros(0, np.int64), bad)

    def tally(self, selector: Selector, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[Tally, bool]:
        """Histogram of one tile for the selector's current pass."""
        parts = self.parts(tile, inputs)
        tally, bad = self._tally(selector, *next(parts))
        for part, arrays in parts:
            more, worse = self._tally(selector, part, arrays)
            tally.add(more)
            bad |= worse
        return tally, bad

    def _tally(self, selector: Selector, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[Tally, bool]:
        if self.kernel is None:
            tally, bad = selector.tally_of([]), False
            for offset, piece in self.pieces(tile, inputs):
                tally.add(selector.tally_of(rows_of(self.on_numpy(piece, tile.start + offset))))
                bad |= not piece.finite
            return tally, bad
        selection = selector.selection()
        found = self.run(self.kernel, tile, inputs, tile.block, selection=selection)
        return selector.collect(selection), found.nonfinite_in

    @property
    def selected(self) -> int:
        """How many values the statistic selects from."""
        if self.kernel is not None:
            return self.kernel.selected
        empty = [np.zeros(0, dtype.storage) for dtype in self.layout.inputs]
        further = [np.zeros(0)] * sum(self.extra_names.values())
        nothing = decode_tile([*empty, *further], self.layout, self.extra_names, False, self.real)
        return len(rows_of(self.on_numpy(nothing, 0)))

    def by_rows(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Row-wise values [M, rows of the tile] in float64; the tile must hold whole rows."""
        found = [self._by_rows(part, arrays) for part, arrays in self.parts(tile, inputs)]
        return np.concatenate([values for values, _ in found], axis=1), any(bad for _, bad in found)

    def _by_rows(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        found = decode_tile(inputs, self.layout, self.extra_names, self.zero, np.dtype(np.float64))
        values = on_rows(
            self.formula,
            found.base,
            found.stack,
            self.values,
            extras={name: x.reshape(len(x), -1, self.columns) for name, x in found.extras.items()},
            keys=self.keys,
            start=tile.start,
            columns=self.columns,
        )
        return values, not found.finite

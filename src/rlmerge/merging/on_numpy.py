"""Formulas on NumPy: the reference, and the path of whatever cannot be compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rlmerge.checkpoint import Source
from rlmerge.frozen import frozen
from rlmerge.kernels import random
from rlmerge.kernels.account import account
from rlmerge.kernels.dtypes import DType, decode
from rlmerge.kernels.jit import BLOCK, Selection
from rlmerge.kernels.namespace import NumpyNamespace
from rlmerge.kernels.program import Operands, rows_of
from rlmerge.kernels.rounding import encode
from rlmerge.kernels.select import Selector, Tally
from rlmerge.kernels.values import Extra, RowField, Uniform, on_shape, on_tile
from rlmerge.methods.method import Reported

from .backend import Binding, Merger, Numbers, Reducer, Storing, together
from .tiles import Tile


@frozen
class Decoded:
    """A range on NumPy: ``base`` [n] or None, ``stack`` [K, n] as the formula wants it, ``deltas`` [K, n] if any."""

    base: np.ndarray | None
    stack: np.ndarray
    deltas: np.ndarray | None
    extras: Mapping[str, np.ndarray]
    finite: bool


def decode_tile(
    inputs: Sequence[np.ndarray], operands: Operands, extra_names: Mapping[str, int], zero: bool, real: np.dtype
) -> Decoded:
    """Decode storage arrays; ``zero`` replaces NaN and infinity by 0; ``extra_names`` maps names to how many inputs."""

    def numbers(array: np.ndarray, dtype: DType) -> np.ndarray:
        return decode(array, dtype).astype(real, copy=False)

    weights = [numbers(x, dtype) for x, dtype in zip(inputs, operands.inputs, strict=False)]
    finite = all(bool(np.isfinite(w).all()) for w in weights)
    if zero and not finite:
        weights = [np.where(np.isfinite(w), w, real.type(0)) for w in weights]
    base = weights.pop(0) if operands.base is not None else None
    theta = np.stack(weights)
    deltas = None if base is None else task_vectors(theta, base, operands)
    rest = list(inputs[len(operands.inputs) :])
    extras: dict[str, np.ndarray] = {}
    for name, count in extra_names.items():
        extras[name] = np.stack([np.asarray(x, real) for x in rest[:count]])
        rest = rest[count:]
    stack = deltas if operands.deltas and deltas is not None else theta
    return Decoded(base, stack, deltas, extras, finite)


def task_vectors(theta: np.ndarray, base: np.ndarray, operands: Operands) -> np.ndarray:
    """theta - base, 0 where both are equal infinities and ``operands`` ask for that."""
    with np.errstate(invalid="ignore"):
        deltas = theta - base
    return np.where(theta == base, deltas.dtype.type(0), deltas) if operands.same_is_zero else deltas


@frozen
class Rounder:
    """Stores merged numbers and accounts for them, on NumPy."""

    storing: Storing
    binding: Binding

    def __call__(self, merged: np.ndarray, piece: Decoded, start: int, buffer: np.ndarray) -> Numbers:
        """Round ``merged`` [n], which begins at flat index ``start``, into ``buffer`` [n]."""
        out, rounding = self.storing.dtype, self.storing.rounding
        if piece.base is not None and piece.deltas is not None and self.storing.keeps_base:
            merged = np.where((piece.deltas != 0).any(0), merged, piece.base)
        bits = random.bits(self.binding.keys[-1], start, len(merged)) if rounding == "stochastic" else None
        buffer[:] = stored = encode(merged, out, rounding, bits)
        overflow = not bool(np.isfinite(decode(stored, out)).all())
        if piece.base is None or piece.deltas is None:
            return Numbers(np.zeros((1, 0)), np.zeros(0, np.int64), not piece.finite, overflow)
        counts, sums = account(piece.base, list(piece.deltas), merged, stored, out)
        return Numbers(sums[None], counts, not piece.finite, overflow)


class NumpyFormula:
    """A bound formula on NumPy arrays."""

    def __init__(self, binding: Binding) -> None:
        self.binding = binding
        self.operands, self.real, self.columns = binding.operands, binding.real, binding.columns
        self.field = next((value for value in binding.values.values() if isinstance(value, RowField)), None)
        self.values = {n: v.extra(self.real) if isinstance(v, RowField) else v for n, v in binding.values.items()}
        self.extra_names = {name: len(v.dtypes) for name, v in sorted(self.values.items()) if isinstance(v, Extra)}

    def groups(self, tile: Tile, inputs: Sequence[np.ndarray]) -> Iterator[tuple[Tile, Sequence[np.ndarray]]]:
        """The tile, or with a field its groups of rows one by one, the field among their inputs."""
        if self.field is None:
            yield tile, inputs
            return
        place = len(self.operands.inputs) + sum(n for name, n in self.extra_names.items() if name < "field")

        def with_field(group: Tile, arrays: Sequence[np.ndarray], field: RowField) -> Sequence[np.ndarray]:
            found = self.decoded(arrays)
            shape = (group.count // self.columns, self.columns)
            made = self.on_shape(field.function, field.values, found, shape, {}, group.start)
            rows = np.ascontiguousarray(made, self.real).reshape(field.experts, -1)
            return [*arrays[:place], *rows, *arrays[place:]]

        if self.field.row_wise:
            yield from split(tile, with_field(tile, inputs, self.field))
            return
        for group, arrays in split(tile, inputs):
            yield group, with_field(group, arrays, self.field)

    def decoded(self, inputs: Sequence[np.ndarray]) -> Decoded:
        """Base and experts for the field of a group; it may be void once the next group is asked for."""
        return decode_tile(inputs, self.operands, {}, self.binding.zero, self.real)

    def flat(self, decoded: Decoded, start: int) -> Any:
        """The formula on a decoded range that starts at flat index ``start``."""
        real = decoded.stack.dtype
        count = decoded.stack.shape[-1]
        values = {**on_tile(self.values, real, start, count, self.columns), **decoded.extras}
        for name, value in self.values.items():
            if isinstance(value, Uniform):
                draws = [random.uniform(key, start, count, real) for key in self.binding.keys[: value.count]]
                values[name] = np.stack(draws)
        with np.errstate(all="ignore"):
            return self.binding.formula(NumpyNamespace(real), decoded.base, decoded.stack, **values)

    def on_shape(
        self,
        function: Any,
        values: Mapping[str, Any],
        decoded: Decoded,
        shape: tuple[int, ...],
        extras: Mapping[str, Any],
        start: int,
    ) -> Any:
        """``function`` on base [*shape] and stack [K, *shape], which begin at flat index ``start``.

        Numbers arrive as they are, those per expert as [M, 1, …], those per row as [M, rows, 1], random numbers as
        [K, *shape], and ``extras`` as given.
        """
        stack = decoded.stack
        ready = {**on_shape(values, shape, start), **{name: extras[name] for name in extras if name in values}}
        for name, value in values.items():
            if isinstance(value, Uniform):
                draws = [
                    random.uniform(key, start, stack.shape[1], stack.dtype) for key in self.binding.keys[: value.count]
                ]
                ready[name] = np.stack(draws).reshape(-1, *shape)
        with np.errstate(all="ignore"):
            base = None if decoded.base is None else decoded.base.reshape(shape)
            return function(NumpyNamespace(stack.dtype), base, stack.reshape(-1, *shape), **ready)

    def pieces(self, tile: Tile, inputs: Sequence[np.ndarray]) -> Iterator[tuple[int, Decoded]]:
        """The tile decoded in short ranges, so that NumPy's intermediates stay small: (offset, range)."""
        for i in range(0, tile.count, BLOCK):
            part = [x[i : i + BLOCK] for x in inputs]
            yield i, decode_tile(part, self.operands, self.extra_names, self.binding.zero, self.real)


class NumpyMerger(NumpyFormula):
    """Merges tiles of elementwise formulas."""

    def __init__(self, binding: Binding, storing: Storing) -> None:
        super().__init__(binding)
        self.rounder = Rounder(storing, binding)

    def __call__(self, tile: Tile, inputs: Sequence[np.ndarray], out: np.ndarray) -> Numbers:
        """Merge one tile into ``out`` [tile.count]."""
        return together(
            [
                self.merge(group, arrays, out[group.start - tile.start : group.stop - tile.start])
                for group, arrays in self.groups(tile, inputs)
            ]
        )

    def merge(self, tile: Tile, inputs: Sequence[np.ndarray], out: np.ndarray) -> Numbers:
        """The same of a tile whose field is among its inputs."""
        return together([self._piece(tile, offset, piece, out) for offset, piece in self.pieces(tile, inputs)])

    def _piece(self, tile: Tile, offset: int, piece: Decoded, out: np.ndarray) -> Numbers:
        start, count = tile.start + offset, piece.stack.shape[-1]
        merged = np.broadcast_to(np.asarray(self.flat(piece, start), self.real), (1, count))[0]
        return self.rounder(merged, piece, start, out[offset : offset + count])


class NumpyReducer(NumpyFormula):
    """Reduces what a statistic's formula returns."""

    reads = False

    @property
    def selected(self) -> int:
        """How many values the statistic selects from."""
        empty = [np.zeros(0, dtype.storage) for dtype in self.operands.inputs]
        further = [np.zeros(0)] * sum(self.extra_names.values())
        nothing = decode_tile([*empty, *further], self.operands, self.extra_names, False, self.real)
        return len(rows_of(self.flat(nothing, 0)))

    def sums(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Block sums float64 [blocks, M]."""
        found, bad = self._each(tile, inputs, lambda row: np.sum(row, dtype=np.float64))
        return np.array(found), bad

    def counts(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Counts int64 [M]."""
        found, bad = self._each(tile, inputs, np.count_nonzero)
        return np.sum(found, axis=0), bad

    def _each(self, tile: Tile, inputs: Sequence[np.ndarray], reduce: Any) -> tuple[list[list[Any]], bool]:
        found: list[list[Any]] = []
        bad = False
        for group, arrays in self.groups(tile, inputs):
            for offset, piece in self.pieces(group, arrays):
                found.append([reduce(row) for row in rows_of(self.flat(piece, group.start + offset))])
                bad |= not piece.finite
        return found, bad

    def tally(self, selector: Selector, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[Tally, bool]:
        """Histograms for the selector's current pass."""
        tally, bad = selector.tally_of([]), False
        for group, arrays in self.groups(tile, inputs):
            for offset, piece in self.pieces(group, arrays):
                tally.add(selector.tally_of(rows_of(self.flat(piece, group.start + offset))))
                bad |= not piece.finite
        return tally, bad

    def sample(self, selector: Selector, tile: Tile) -> tuple[Selection, np.ndarray] | None:
        """None: what reads whole tiles takes no samples."""
        return None

    def rows(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """Row-wise values float64 [M, rows of the tile], computed in groups of rows that depend on the tensor alone."""
        found = [self._rows(*part) for group in self.groups(tile, inputs) for part in split(*group)]
        return np.concatenate([values for values, _ in found], axis=1), any(bad for _, bad in found)

    def matrix(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        """What the formula makes of one group of rows: a float64 array."""
        found = decode_tile(inputs, self.operands, self.extra_names, self.binding.zero, self.real)
        shape = (tile.count // self.columns, self.columns)
        extras: dict[str, Any] = {name: x.reshape(len(x), *shape) for name, x in found.extras.items()}
        extras["row"] = tile.start // self.columns
        values = self.on_shape(self.binding.formula, self.values, found, shape, extras, tile.start)
        return np.asarray(values, np.float64), not found.finite

    def _rows(self, tile: Tile, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, bool]:
        wide = np.dtype(np.float64)
        found = decode_tile(inputs, self.operands, self.extra_names, self.binding.zero, wide)
        shape = (tile.count // self.columns, self.columns)
        extras = {name: x.reshape(len(x), *shape) for name, x in found.extras.items()}
        values = self.on_shape(self.binding.formula, self.values, found, shape, extras, tile.start)
        return np.asarray(values), not found.finite


class WholeMerger(NumpyFormula):
    """Merges one tensor, given as a single tile: the formula sees ``base`` and ``tau`` as [*shape] and [K, *shape].

    Further inputs arrive as a list of arrays in their own shapes.
    """

    def __init__(self, binding: Binding, storing: Storing) -> None:
        super().__init__(binding)
        self.rounder = Rounder(storing, binding)

    def __call__(self, tile: Tile, inputs: Sequence[np.ndarray], out: np.ndarray) -> Numbers:
        """Merge the tensor into ``out`` [numel]."""
        found = decode_tile(inputs, self.operands, {}, self.binding.zero, self.real)
        extras = self._further(inputs[len(self.operands.inputs) :])
        merged = self.on_shape(self.binding.formula, self.values, found, self.binding.shape, extras, 0)
        report = merged.report if isinstance(merged, Reported) else {}
        merged = np.asarray(merged.merged if isinstance(merged, Reported) else merged)
        flat = np.broadcast_to(merged.astype(self.real, copy=False), self.binding.shape).reshape(-1)
        numbers = together(
            [
                self.rounder(flat[i : i + BLOCK], _range(found, i), i, out[i : i + BLOCK])
                for i in range(0, tile.count, BLOCK)
            ]
        )
        return replace(numbers, report=report)

    def _further(self, arrays: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
        left = iter(arrays)
        return {
            name: [decode(next(left), s.dtype).astype(self.real).reshape(s.shape) for s in sources]
            for name, sources in self.binding.extras.items()
        }


class NumpyBackend:
    """Every formula on NumPy."""

    name = "numpy"

    def load(self, source: Source, start: int, stop: int) -> np.ndarray:
        """A range of storage values."""
        return source.read(start, stop)

    def merger(self, binding: Binding, storing: Storing) -> Merger:
        """What merges tiles, or a whole tensor."""
        return (WholeMerger if binding.whole else NumpyMerger)(binding, storing)

    def reducer(self, binding: Binding, reduce: str) -> Reducer:
        """A reducer of any kind."""
        return NumpyReducer(binding)


def split(tile: Tile, inputs: Sequence[np.ndarray]) -> Iterator[tuple[Tile, Sequence[np.ndarray]]]:
    """The blocks of a tile one by one."""
    for start in range(tile.start, tile.stop, tile.block):
        group = replace(tile, start=start, stop=min(tile.stop, start + tile.block))
        yield group, [x[start - tile.start : group.stop - tile.start] for x in inputs]


def _range(found: Decoded, start: int) -> Decoded:
    """The range of ``BLOCK`` coordinates from ``start``, for accounting."""
    part = slice(start, start + BLOCK)
    return replace(
        found,
        base=None if found.base is None else found.base[part],
        stack=found.stack[:, part],
        deltas=None if found.deltas is None else found.deltas[:, part],
    )

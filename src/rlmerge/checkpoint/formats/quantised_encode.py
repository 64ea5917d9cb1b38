"""Values written back as their base stores them: codes with scales for the same blocks (``--out-dtype like-base``).

A block's scale is the largest magnitude in it over the largest code, rounded to the type scales are stored in. Where
that magnitude still rounds to the largest code that the base has in the block, the base's scale stays: what no expert
changed then keeps its bits. Codes are the nearest, ties to even.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import TypeGuard

import numpy as np

from rlmerge.checkpoint.formats.quantised_source import Grid, ScaledBlocks, TransposedBlocks
from rlmerge.checkpoint.layout import OutputTensor
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError, RunError
from rlmerge.frozen import frozen

_UNIT = 1 << 17
"""Elements encoded at a time where blocks allow it."""


@frozen
class Encoded:
    """``stored``: what to append to each output, flat, in storage types; ``values`` float32 [n]: what that means."""

    stored: tuple[np.ndarray, ...]
    values: np.ndarray


class Encoder(ABC):
    """Encodes the values of one tensor, unit by unit in order, into several tensors.

    ``outputs`` are these tensors: codes first, then scales, then what is copied from the base. The codes of a unit are
    appended at once; scales and copies are small and may be kept until the codes are complete.
    """

    outputs: tuple[OutputTensor, ...]
    stored: tuple[Source, ...]
    """What the base holds for ``outputs``."""

    @abstractmethod
    def units(self) -> Iterator[tuple[int, int]]:
        """Flat ranges [start, stop) of the tensor that are encoded one by one; together they are all of it."""

    @property
    def largest(self) -> int:
        """Elements of the largest unit. Encoding takes about 40 bytes an element."""
        return max((stop - start for start, stop in self.units()), default=0)

    @abstractmethod
    def encode(self, start: int, values: np.ndarray) -> Encoded:
        """The unit that begins at ``start``: ``values`` float32 [n].

        RunError if a value is not finite and no code stands for it.
        """


def is_quantised(source: Source) -> TypeGuard[ScaledBlocks | TransposedBlocks]:
    """Whether a model stores ``source`` as codes with scales."""
    return isinstance(source, ScaledBlocks | TransposedBlocks)


def encoder_of(source: Source) -> Encoder | None:
    """What writes values as ``source`` is stored; None if its values are stored as they are.

    CheckpointError for weights with zero points, which are only read.
    """
    if isinstance(source, TransposedBlocks):
        return _Transposed(source)
    if not isinstance(source, ScaledBlocks):
        return None
    if source.zeros is not None:
        hint = "Write bfloat16 (the default) and quantise the result."
        raise CheckpointError("has zero points, with which weights are not written back", where=source.where, hint=hint)
    return _Blocks(source)


class _Blocks(Encoder):
    def __init__(self, source: ScaledBlocks) -> None:
        self.source = source
        self.stored = (*source.parts, *source.beside)
        self.outputs = tuple(OutputTensor(x.name, x.dtype, x.shape) for x in self.stored)

    def units(self) -> Iterator[tuple[int, int]]:
        scales = self.source.scales
        (m, n), tall = scales.matrix, scales.block[0]
        if not m * n:
            return
        step = tall * max(1, _UNIT // (tall * n))
        for matrix in range(self.source.codes.rows // m):
            for row in range(0, m, step):
                yield (matrix * m + row) * n, (matrix * m + min(m, row + step)) * n

    def encode(self, start: int, values: np.ndarray) -> Encoded:
        codes, scales, n = self.source.codes, self.source.scales, self.source.columns
        numbers = values.reshape(-1, n)
        before = np.empty_like(numbers)
        codes.read(start // n, 0, before)
        blocks = _Cut(scales, start // n, len(numbers))
        wanted = self._scale(blocks, numbers, before)
        stored_scale = scales.store(wanted)
        if (np.isfinite(wanted) & ~np.isfinite(scales.numbers(stored_scale))).any():
            raise self._refused(f"values are too large for scales of {scales.part.dtype.name}")
        scale = blocks.spread(scales.numbers(stored_scale))
        with np.errstate(invalid="ignore", over="ignore"):
            np.divide(numbers, scale, out=before, where=scale > 0)
            before[scale == 0] = 0
            before[~np.isfinite(numbers)] = np.nan
            try:
                chosen = codes.nearest(before)
            except ValueError as error:
                raise self._refused(str(error)) from error
            decoded = codes.kind.values[chosen] * scale
        beside = (x.read() if start == 0 else x.read(0, 0) for x in self.source.beside)
        return Encoded((codes.pack(chosen).reshape(-1), stored_scale.reshape(-1), *beside), decoded.reshape(-1))

    def _scale(self, blocks: _Cut, numbers: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The scale of every block of ``numbers``, where the base has the codes ``before``."""
        kind, was = self.source.codes.kind, self.source.scales.values(*blocks.rows)
        known = np.where(np.isfinite(numbers), numbers, np.float32(0))
        high, low = blocks.reduce(np.maximum, known), blocks.reduce(np.minimum, known)
        peak = np.maximum(high, -low)
        usable = np.isfinite(was) & (was > 0)
        with np.errstate(over="ignore"):
            ends = [np.divide(end, was, out=np.zeros_like(end), where=usable) for end in (low, high)]
        inside = (ends[0] >= kind.ends[0]) & (ends[1] <= kind.ends[1])
        rounded = [np.abs(kind.values[kind.encode(np.clip(end, *kind.ends).astype(np.float32))]) for end in ends]
        largest = blocks.reduce(np.maximum, np.abs(np.nan_to_num(before, nan=0, posinf=0, neginf=0)))
        stays = usable & inside & (np.maximum(*rounded) == largest)
        fresh = (peak / np.float32(kind.limit)).astype(np.float32)
        if not self.source.scales.is_exponents and _are_powers_of_two(was):
            fraction, power = np.frexp(fresh)
            fresh = np.where(fraction > 0.5, np.ldexp(np.float32(1), power), fresh)
        fresh = np.where(peak > 0, fresh, np.where(np.isfinite(was), was, np.float32(1)))
        return np.where(stays, was, fresh)

    def _refused(self, what: str) -> RunError:
        hint = "Find the model that they come from, or write bfloat16 (the default)."
        return RunError(what, where=self.source.where, hint=hint)


def _are_powers_of_two(scales: np.ndarray) -> bool:
    return bool((np.frexp(scales)[0] == 0.5).all())


class _Cut:
    """The blocks of whole rows of a stack: [g, columns of the grid] numbers for [rows, n]."""

    def __init__(self, grid: Grid, top: int, count: int) -> None:
        (m, n), (tall, wide) = grid.matrix, grid.block
        first = top // m * grid.shape[0] + top % m // tall
        self.rows = first, first + -(-count // tall)
        self._row_starts = np.arange(0, count, tall)
        self._row = np.arange(count) // tall
        self._columns = np.arange(n) // wide if grid.groups is None else grid.groups
        self._groups, self._width = grid.groups, grid.shape[1]
        self._column_starts = np.arange(0, n, wide)

    def reduce(self, operation: np.ufunc, numbers: np.ndarray) -> np.ndarray:
        """``operation`` (maximum or minimum) over each block's numbers."""
        rows = operation.reduceat(numbers, self._row_starts, axis=0)
        if self._groups is None:
            return operation.reduceat(rows, self._column_starts, axis=1)
        found = np.zeros((len(rows), self._width), np.float32)
        operation.at(found.T, self._groups, rows.T)
        return found

    def spread(self, grid: np.ndarray) -> np.ndarray:
        """Each block's number at its elements, [rows, n]."""
        return grid[self._row][:, self._columns]


class _Transposed(Encoder):
    def __init__(self, source: TransposedBlocks) -> None:
        inner = encoder_of(source.stored)
        assert inner is not None
        self.source = source
        self.inner = inner
        self.stored = inner.stored
        self.outputs = inner.outputs

    def units(self) -> Iterator[tuple[int, int]]:
        n, m = self.source.shape[-2:]
        for start in range(0, self.source.numel, max(1, n * m)):
            yield start, start + n * m

    def encode(self, start: int, values: np.ndarray) -> Encoded:
        n, m = self.source.shape[-2:]
        across = np.ascontiguousarray(values.reshape(n, m).T).reshape(-1)
        back = np.empty(n * m, np.float32)
        parts: list[tuple[np.ndarray, ...]] = []
        for first, last in self._inside:
            found = self.inner.encode(start + first, across[first:last])
            back[first:last] = found.values
            parts.append(found.stored)
        stored = tuple(np.concatenate(each) for each in zip(*parts, strict=True))
        return Encoded(stored, np.ascontiguousarray(back.reshape(m, n).T).reshape(-1))

    @cached_property
    def _inside(self) -> list[tuple[int, int]]:
        """The units of one matrix."""
        size = self.source.shape[-2] * self.source.shape[-1]
        return [(start, stop) for start, stop in self.inner.units() if stop <= size]

"""Weights that are stored as small codes and coarser scales, read as float32: value = (number − zero point) · scale.

A tensor [..., m, n] is a stack of matrices, seen as one tall matrix of rows. Every value takes at most one subtraction
and one multiplication in float32, so it has the same bits whatever range is read.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.quantised_codes import PIECE, ByteCodes, Codes, Integers, unpack
from rlmerge.checkpoint.header import LaidOut
from rlmerge.checkpoint.source import Scratch, Source, combined
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BFLOAT16, FLOAT32, DType, decode
from rlmerge.kernels.float8 import E8M0_VALUES, encode_e8m0
from rlmerge.kernels.rounding import encode

EXPONENTS = ("uint8", "float8_e8m0fnu")
"""Types of scales that are stored as exponents of two."""


class Grid(ABC):
    """Numbers of which each belongs to a block of a matrix: a stack of [⌈m / rows⌉, ⌈n / columns⌉].

    ``block`` is (rows, columns) of a block; ``matrix`` (m, n) of one matrix of the stack. ``groups``, int64 [n], gives
    each column's column of the grid where blocks are not made of neighbours.
    """

    part: Source
    matrix: tuple[int, int]
    block: tuple[int, int]
    groups: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid of one matrix."""
        return grid_of(self.matrix, self.block)

    @abstractmethod
    def values(self, first: int, last: int) -> np.ndarray:
        """Rows [first, last) of the stacked grids, float32 [last − first, columns of the grid]."""

    def expand(self, top: int, bottom: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """What rows [top, bottom) and columns [first, last) of the stack need.

        Returns their grid rows, float32 [g, last − first] or [g, 1], and for each row its index among these.
        """
        (m, _), (tall, wide) = self.matrix, self.block
        rows = np.arange(top, bottom)
        row = rows // m * self.shape[0] + rows % m // tall
        grid = self.values(int(row[0]), int(row[-1]) + 1)
        if self.groups is not None:
            grid = grid[:, self.groups[first:last]]
        elif grid.shape[1] > 1:
            begin = first // wide
            grid = grid[:, begin : -(-last // wide)]
            if wide > 1:
                grid = np.repeat(grid, wide, axis=1)[:, first - begin * wide : last - begin * wide]
        return grid, row - row[0]


@dataclass(slots=True)
class StoredGrid(Grid):
    """Numbers stored as they are, or as exponents of two (E8M0, also as plain bytes)."""

    part: Source
    matrix: tuple[int, int]
    block: tuple[int, int]
    groups: np.ndarray | None = None

    def values(self, first: int, last: int) -> np.ndarray:
        columns = self.shape[1]
        return self.numbers(self.part.read(first * columns, last * columns)).reshape(-1, columns)

    @property
    def is_exponents(self) -> bool:
        """Whether powers of two are stored, by their exponents."""
        return self.part.dtype.name in EXPONENTS

    def numbers(self, stored: np.ndarray) -> np.ndarray:
        """Stored numbers as float32."""
        if self.is_exponents:
            return E8M0_VALUES[stored]
        return decode(stored, self.part.dtype).astype(np.float32, copy=False)

    def store(self, numbers: np.ndarray) -> np.ndarray:
        """float32 as they are stored: to nearest, or the next larger power of two where exponents are."""
        return encode_e8m0(numbers) if self.is_exponents else encode(numbers, self.part.dtype)


@frozen
class PackedGrid(Grid):
    """Integers packed along the columns of the grid: an int32 holds those of as many rows as fit."""

    part: Source
    matrix: tuple[int, int]
    block: tuple[int, int]
    kind: Integers
    groups: np.ndarray | None = None

    def values(self, first: int, last: int) -> np.ndarray:
        each, columns = 32 // self.kind.bits, self.shape[1]
        begin = first // each
        words = self.part.read(begin * columns, -(-last // each) * columns).reshape(-1, columns)
        rows = np.arange(first, last) - begin * each
        codes = unpack(np.ascontiguousarray(words.T), rows, self.kind.bits)
        return np.ascontiguousarray(self.kind.values[codes].T)


def grid_of(matrix: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a matrix's grid."""
    return -(-matrix[0] // block[0]), -(-matrix[1] // block[1])


def _combine(operation: np.ufunc, numbers: np.ndarray, grid: np.ndarray, row: np.ndarray) -> None:
    """Apply ``operation`` with the grid row of each row, in place."""
    if len(grid) == len(row):
        operation(numbers, grid, out=numbers)
        return
    for index in range(len(grid)):
        first, last = np.searchsorted(row, [index, index + 1])
        operation(numbers[first:last], grid[index], out=numbers[first:last])


_NARROW, _WIDE = (Scratch(fixed=PIECE * 32, per_element=size) for size in (4.0, 8.0))


class ScaledBlocks(Source):
    """A tensor of codes and scales, and zero points where ``zeros`` is given; computed in float32.

    ``beside`` lists stored tensors that decoding does not use but that a model in the same format needs.
    """

    dtype = FLOAT32

    def __init__(
        self, name: str, shape: tuple[int, ...], codes: Codes, scales: StoredGrid, zeros: Grid | None = None
    ) -> None:
        self.name = name
        self.shape = shape
        self.codes = codes
        self.scales = scales
        self.zeros = zeros
        self.beside: Sequence[Source] = ()

    @property
    def is_simple(self) -> bool:
        """Whether bytes and scales are all there is to the tensor."""
        beside = self.zeros is not None or self.beside or self.scales.groups is not None
        return not beside and type(self.codes) is ByteCodes

    @property
    def nominal(self) -> DType:
        return BFLOAT16

    @property
    def parts(self) -> tuple[Source, ...]:
        """The stored tensors: codes, scales, zero points."""
        return (self.codes.part, self.scales.part, *(() if self.zeros is None else (self.zeros.part,)))

    @property
    def nbytes(self) -> int:
        held = self.codes.part.nbytes + self.scales.part.nbytes
        return held if self.zeros is None else held + self.zeros.part.nbytes

    @property
    def where(self) -> str:
        return self.codes.part.where

    @property
    def scratch(self) -> Scratch:
        # The result, scales (or zero points) as large where each row has its own, and a piece's widened indices.
        wide = self.scales.block[0] == 1 and self.scales.shape[1] > 1
        return _WIDE if wide else _NARROW

    @property
    def files(self) -> tuple[InputFile, ...]:
        return tuple(dict.fromkeys(file for part in self.parts for file in part.files))

    @property
    def is_remote(self) -> bool:
        parts = self.codes.part.is_remote or self.scales.part.is_remote
        return parts or (self.zeros is not None and self.zeros.part.is_remote)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        out = np.empty(stop - start, np.float32)
        for top, bottom, first, last in segments(start, stop, self.columns):
            begin = top * self.columns + first - start
            part = out[begin : begin + (bottom - top) * (last - first)]
            self.fill(top, first, part.reshape(bottom - top, last - first))
        out.flags.writeable = False
        return out

    def fill(self, top: int, first: int, out: np.ndarray) -> None:
        """Fill ``out``, float32 [rows, columns], from row ``top`` of the stack and column ``first`` on."""
        self.codes.read(top, first, out)
        span = top, top + len(out), first, first + out.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):
            if self.zeros is not None:
                _combine(np.subtract, out, *self.zeros.expand(*span))
            _combine(np.multiply, out, *self.scales.expand(*span))

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        self.codes.part.prefetch(*self._stored(*self.span(start, stop)))

    def release(self, start: int = 0, stop: int | None = None) -> None:
        self.codes.part.release(*self._stored(*self.span(start, stop)))

    def fingerprint(self, whole: bool) -> bytes:
        groups = None if self.scales.groups is None else self.scales.groups.tobytes().hex()
        settings = [self.shape, self.scales.block, self.codes.columns, self.codes.width, groups]
        return combined("scaled blocks", self.parts, whole, settings=settings)

    def _stored(self, start: int, stop: int) -> tuple[int, int]:
        columns, width = max(1, self.columns), self.codes.width
        return start // columns * width, min(-(-stop // columns), self.codes.rows) * width


class LikeBlocks(ScaledBlocks):
    """The tensor of another model that is stored as the ``first``, of bytes and scales alone, is in its own.

    ``tensors`` are the other model's. Models have ten thousands of these: what is no different is asked of the first.
    """

    def __init__(self, first: ScaledBlocks, tensors: LaidOut) -> None:
        self.name = first.name
        self.shape = first.shape
        self.first = first
        self.tensors = tensors
        self.zeros = None
        self.beside = ()

    @cached_property
    def codes(self) -> Codes:  # pyright: ignore[reportIncompatibleVariableOverride]
        codes = self.first.codes
        assert isinstance(codes, ByteCodes)
        return ByteCodes(self.tensors[codes.part.name], codes.rows, codes.columns, codes.kind)

    @cached_property
    def scales(self) -> StoredGrid:  # pyright: ignore[reportIncompatibleVariableOverride]
        scales = self.first.scales
        return StoredGrid(self.tensors[scales.part.name], scales.matrix, scales.block)

    @property
    def nbytes(self) -> int:
        return self.first.nbytes

    @property
    def scratch(self) -> Scratch:
        return self.first.scratch

    @property
    def is_remote(self) -> bool:
        return self.tensors.is_remote


class TransposedBlocks(Source):
    """A stack [e, n, m] of matrices that are stored as [e, m, n]: the layout gpt-oss's experts have when unpacked."""

    dtype = FLOAT32

    def __init__(self, name: str, stored: ScaledBlocks) -> None:
        *stack, m, n = stored.shape
        self.name = name
        self.shape = (*stack, n, m)
        self.stored = stored

    @property
    def beside(self) -> Sequence[Source]:
        """Stored tensors that go with the weight."""
        return self.stored.beside

    @property
    def nominal(self) -> DType:
        return BFLOAT16

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes

    @property
    def where(self) -> str:
        return self.stored.where

    @property
    def scratch(self) -> Scratch:
        scratch = self.stored.scratch
        return Scratch(scratch.fixed, scratch.per_element + 4.0)

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self.stored.files

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        n, m = self.shape[-2:]
        out = np.empty(stop - start, np.float32)
        for top, bottom, first, last in segments(start, stop, m):
            row = top
            while row < bottom:
                # Rows of one matrix at a time: they are columns of a stored one.
                matrix, column = divmod(row, n)
                count = min(bottom - row, n - column)
                block = np.empty((last - first, count), np.float32)
                self.stored.fill(matrix * m + first, column, block)
                begin = row * m + first - start
                out[begin : begin + block.size].reshape(count, last - first)[...] = block.T
                row += count
        out.flags.writeable = False
        return out

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        self.stored.prefetch(*self._matrices(*self.span(start, stop)))

    def release(self, start: int = 0, stop: int | None = None) -> None:
        self.stored.release(*self._matrices(*self.span(start, stop)))

    def fingerprint(self, whole: bool) -> bytes:
        return combined("transposed", [self.stored], whole)

    def _matrices(self, start: int, stop: int) -> tuple[int, int]:
        size = max(1, math.prod(self.shape[-2:]))
        return start // size * size, min(-(-stop // size) * size, self.numel)


def segments(start: int, stop: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """The flat range [start, stop) as rectangles (top, bottom, first, last): a part of a row, rows, a part of a row."""
    if start >= stop:
        return
    top, first = divmod(start, columns)
    bottom, last = divmod(stop, columns)
    if top == bottom:
        yield top, top + 1, first, last
        return
    if first:
        yield top, top + 1, first, columns
        top += 1
    if top < bottom:
        yield top, bottom, 0, columns
    if last:
        yield bottom, bottom + 1, 0, last

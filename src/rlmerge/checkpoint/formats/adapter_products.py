"""Tensors of a base plus a scaled low-rank product, perhaps with trained lengths: computed range by range as well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from rlmerge.checkpoint.formats.adapter_sources import Changed, sealed
from rlmerge.checkpoint.formats.latest import Latest
from rlmerge.checkpoint.source import Scratch, Source, combined
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import decode
from rlmerge.kernels.lowrank import add_product

_CHUNK = 1 << 18
"""Entries of a matrix whose norms are computed at once."""

_SUM_ROWS = 256
"""Rows added up at once where columns are measured; fixes the order of the sum."""

_turned = Latest(4)
"""Factors that lie the other way round on disk, as they are needed."""

_gains = Latest(8)
"""What DoRA multiplies with, for the tensors that are being read."""


@dataclass(eq=False)
class Update:
    """The factors of one update ``scale·B·A`` of rank ``rank``, of a layer, of an embedding, or of all its experts.

    ``a`` and ``b`` are stored as PEFT does: ``a`` [rank, in] and ``b`` [out, rank], for an embedding of V rows of d
    ``a`` [rank, V] and ``b`` [d, rank], and for ``experts`` [experts·rank, in] and [out, rank·experts], where an
    expert's number runs slowly in ``a`` and fast in ``b``. ``parameter`` is the adapted parameter where it is no
    module's weight. ``magnitude`` [out] makes it DoRA.
    """

    module: str
    a: Source
    b: Source
    scale: float
    rank: int
    is_embedding: bool = False
    experts: int = 1
    parameter: str | None = None
    magnitude: Source | None = None
    _fingerprints: dict[bool, bytes] = field(default_factory=dict[bool, bytes])

    def fingerprint(self, whole: bool) -> bytes:
        """16 bytes that identify the factors, computed once for all tensors that they change."""
        if whole not in self._fingerprints:
            parts = (self.a, self.b, *((self.magnitude,) if self.magnitude else ()))
            self._fingerprints[whole] = combined("factors", parts, whole, scale=self.scale, rank=self.rank)
        return self._fingerprints[whole]


@frozen
class Factor:
    """Where a matrix lies in a flat source: element (e, i, k) at ``start + e·block + i·across + k·inner``."""

    source: Source
    start: int
    block: int
    across: int
    inner: int
    rank: int

    @property
    def is_gathered(self) -> bool:
        """Whether the elements along ``i`` are neighbours on disk, those along the rank far apart."""
        return self.across < self.inner

    def rows(self, block: int, first: int, last: int) -> np.ndarray:
        """[last - first, rank] of ``i`` and ``k`` in storage values, with any strides."""
        begin = self.start + block * self.block + first * self.across
        if self.is_gathered and self.across == 1:
            starts = range(begin, begin + self.rank * self.inner, self.inner)
            return np.stack([self.source.read(at, at + last - first) for at in starts]).T
        return self._window(begin, (last - first, self.across), (self.rank, self.inner))

    def columns(self, block: int, count: int) -> np.ndarray:
        """[rank, count] of ``k`` and ``i`` in storage values, with contiguous rows."""
        begin = self.start + block * self.block
        window = self._window(begin, (self.rank, self.inner), (count, self.across))
        return window if self.across == 1 else np.ascontiguousarray(window)

    def _window(self, begin: int, *axes: tuple[int, int]) -> np.ndarray:
        span = sum((length - 1) * step for length, step in axes) + 1
        flat = self.source.read(begin, begin + span)
        strides = [step * flat.itemsize for _, step in axes]
        return np.ndarray([length for length, _ in axes], flat.dtype, flat, strides=strides)


class LowRank(Changed):
    """A matrix, or a stack of ``blocks`` matrices [height, width], plus a scaled product of factors.

    ``left`` gives rows and ``right`` columns; see ``kernels.lowrank`` for the order in which they are summed.
    """

    def __init__(
        self,
        name: str,
        base: Source,
        ground: Source,
        update: Update,
        left: Factor,
        right: Factor,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(name, f"{update.module}.weight", base, ground)
        self.update = update
        self.left = left
        self.right = right
        self.blocks, self.height, self.width = shape

    @property
    def is_transposed(self) -> bool:
        """Whether the tensor lies as [in, out], so that its rows go with A."""
        return self.left.source is self.update.a

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.ground, self.update.a, self.update.b)

    @property
    def where(self) -> str:
        return f"{self.update.a.where}, applied to {self.ground.where}"

    @property
    def scratch(self) -> Scratch:
        below = super().scratch
        copy = self.update.rank * self.width * self.right.source.dtype.itemsize
        # One copy is kept, and one more may be made while others still read with it.
        fixed = 2 * copy if self.right.across != 1 else 0
        gathered = self.update.rank * self.left.source.dtype.itemsize / self.width if self.left.is_gathered else 0
        return Scratch(below.fixed + fixed, below.per_element + gathered)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return sealed(self._sum(*self.span(start, stop)))

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        super().prefetch(start, stop)
        if start == 0:
            self.update.a.prefetch()
            self.update.b.prefetch()

    def release(self, start: int = 0, stop: int | None = None) -> None:
        super().release(start, stop)
        if stop is None or stop == self.numel:
            self.update.a.release()
            self.update.b.release()

    def fingerprint(self, whole: bool) -> bytes:
        parts = (self.ground, self.update.fingerprint(whole))
        places = [(side.start, side.block, side.across, side.inner) for side in (self.left, self.right)]
        return combined("low rank", parts, whole, places=places)

    def _sum(self, start: int, stop: int) -> np.ndarray:
        """Elements [start, stop) of ground plus update."""
        out = np.empty(stop - start, self.dtype.storage)
        ground = self.ground.read(start, stop)
        types = (self.ground.dtype, self.left.source.dtype, self.right.source.dtype)
        at, current, across = 0, -1, np.empty(0)
        for block, row, rows, column, columns in self._rectangles(start, stop):
            if block != current:
                current, across = block, self._across(block)
            part = slice(at, at + rows * columns)
            left, right = self.left.rows(block, row, row + rows), across[:, column : column + columns]
            add_product(ground[part], left, right, self.update.scale, types, out[part])
            at = part.stop
        return out

    def _across(self, block: int) -> np.ndarray:
        """The right factor of a block, [rank, width] with contiguous rows."""
        if self.right.across == 1:
            return self.right.columns(block, self.width)
        return _turned.get((self, block), lambda: self.right.columns(block, self.width))

    def _rectangles(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(block, first row, rows, first column, columns) of whole rows, and of the parts of rows at both ends."""
        while start < stop:
            above, column = divmod(start, self.width)
            block, row = divmod(above, self.height)
            whole = min((stop - start) // self.width, self.height - row)
            if column or not whole:
                rows, columns = 1, min(self.width - column, stop - start)
            else:
                rows, columns = whole, self.width
            yield block, row, rows, column, columns
            start += rows * columns


class Dora(LowRank):
    """A low-rank sum whose vectors of inputs, one an output, are scaled to trained lengths (Liu et al. 2024).

    Lengths before scaling are measured in float64, by a pass over the tensor before its first values are given.
    """

    def __init__(
        self,
        name: str,
        base: Source,
        ground: Source,
        update: Update,
        left: Factor,
        right: Factor,
        shape: tuple[int, int, int],
        magnitude: Source,
    ) -> None:
        super().__init__(name, base, ground, update, left, right, shape)
        self.magnitude = magnitude

    @property
    def parts(self) -> tuple[Source, ...]:
        return (*super().parts, self.magnitude)

    @property
    def scratch(self) -> Scratch:
        below = super().scratch
        at_once = max(_CHUNK, _SUM_ROWS * self.width if self.is_transposed else self.width)
        return Scratch(below.fixed + 8 * self.magnitude.numel + round(at_once * (below.per_element + 16)))

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        values, gains = self._sum(start, stop), _gains.get(self, self._measure)
        at = 0
        with np.errstate(over="ignore", invalid="ignore"):
            for _, row, rows, column, columns in self._rectangles(start, stop):
                part = values[at : at + rows * columns].reshape(rows, columns)
                part *= gains[column : column + columns] if self.is_transposed else gains[row : row + rows, None]
                at += part.size
        return sealed(values)

    def fingerprint(self, whole: bool) -> bytes:
        return combined("dora", (super().fingerprint(whole),), whole)

    def _measure(self) -> np.ndarray:
        """What the vector of each output is multiplied with, in the type of the values."""
        squares = self._column_squares() if self.is_transposed else self._row_squares()
        lengths = np.sqrt(squares)
        trained = decode(self.magnitude.read(), self.magnitude.dtype).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (trained / lengths).astype(self.dtype.storage)

    def _row_squares(self) -> np.ndarray:
        step = max(1, _CHUNK // self.width)
        total = np.empty(self.height)
        for first in range(0, self.height, step):
            last = min(first + step, self.height)
            values = self._sum(first * self.width, last * self.width).reshape(-1, self.width)
            total[first:last] = _fold(np.square(values.T, dtype=np.float64))
            self.ground.release(first * self.width, last * self.width)
        return total

    def _column_squares(self) -> np.ndarray:
        total = np.zeros(self.width)
        for first in range(0, self.height, _SUM_ROWS):
            last = min(first + _SUM_ROWS, self.height)
            values = self._sum(first * self.width, last * self.width).reshape(-1, self.width)
            total += _fold(np.square(values, dtype=np.float64))
            self.ground.release(first * self.width, last * self.width)
        return total


def _fold(values: np.ndarray) -> np.ndarray:
    """The sum along the first axis by halves; unlike ``numpy.sum`` its order is the same everywhere."""
    while len(values) > 1:
        half = len(values) // 2
        folded = values[:half] + values[-half:]
        values = np.concatenate((folded, values[half : half + 1])) if len(values) % 2 else folded
    return values[0]

"""Tensors composed of others: blocks placed side by side, a part of a tensor, the same values under another name."""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, product
from pathlib import Path

import numpy as np

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.source import Extent, Scratch, Source, digest_values
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import DType

_MAX_CUT = 6
"""Dimensions along which a tensor may be cut; the check of its cover takes 2 ** _MAX_CUT steps a block."""


@frozen(slots=True)
class Block:
    """The box of ``shape`` that begins at ``start`` of ``source``; its first element is element ``at`` of the whole.

    All three have as many numbers as the source has dimensions. Without ``start`` and ``shape`` it is all of the
    source.
    """

    source: Source
    at: tuple[int, ...]
    start: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape:
            object.__setattr__(self, "start", (0,) * len(self.at))
            object.__setattr__(self, "shape", self.source.shape)


@frozen(slots=True)
class _Placed:
    """A block over dimensions folded together; ``within`` is the shape of its source over the same."""

    source: Source
    at: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    within: tuple[int, ...]


@frozen(slots=True)
class _Overlap:
    """What a block gives to a box: elements [first, last) of its source seen in the shape ``view``, of which the part
    ``picked`` becomes the part ``target`` of the box.
    """

    source: Source
    first: int
    last: int
    view: tuple[int, ...]
    picked: tuple[slice, ...]
    target: tuple[slice, ...]


@frozen(slots=True)
class _Box:
    """Elements [offset, offset + size) of a read: ``shape`` in row-major order, met by ``overlaps``."""

    offset: int
    shape: tuple[int, ...]
    overlaps: tuple[_Overlap, ...]


class Pieces(Source):
    """One tensor of ``shape`` whose elements lie in blocks of other sources, all of one type.

    A range that one block covers contiguously is read as that block gives it, a view where that is one; every other
    range is gathered. The values have the fingerprint that they would have in one piece.

    CheckpointError if the blocks leave a hole, overlap, reach beyond the tensor, or differ in type.
    """

    def __init__(self, name: str, shape: Sequence[int], blocks: Iterable[Block]) -> None:
        self.name = name
        self.shape = tuple(shape)
        blocks = tuple(blocks)
        sources = [block.source for block in blocks]
        if not blocks:
            raise CheckpointError("no part of the tensor was found", where=name, hint=_INCOMPLETE)
        self.dtype: DType = sources[0].dtype
        self._nominal = sources[0].nominal
        self._files = tuple(dict.fromkeys(file for source in sources for file in source.files))
        odd = next((source for source in sources if source.dtype is not self.dtype), None)
        if odd is not None:
            what = f"holds {odd.dtype.name} where {sources[0].where} holds {self.dtype.name}"
            raise CheckpointError(what, where=odd.where, hint=_INCOMPLETE)
        for block in blocks:
            self._check_inside(block)
        self._whole, self._blocks = _fold(self.shape, (block for block in blocks if math.prod(block.shape)))
        self._check_cover()
        self._begins = [block.at[0] for block in self._blocks]
        self._ends = list(accumulate((block.at[0] + block.shape[0] for block in self._blocks), max))

    @property
    def nominal(self) -> DType:
        return self._nominal

    @property
    def where(self) -> str:
        if len(self._files) == 1:
            return f"{self._files[0]}: {self.name}"
        return f"{_common_folder(self._files)}: {self.name}" if self._files else self.name

    @property
    def scratch(self) -> Scratch:
        gathers = len(self._blocks) > 1 or len(self._whole) > 1
        own = self.dtype.itemsize if gathers else 0
        inner = [(block.source.scratch, _stretch(block)) for block in self._blocks]
        return Scratch(
            max((scratch.fixed for scratch, _ in inner), default=0),
            own + max((scratch.per_element * stretch for scratch, stretch in inner), default=0.0),
        )

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self._files

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        start, stop = self.span(start, stop)
        found = list(self._boxes(start, stop))
        if len(found) == 1 and len(found[0].overlaps) == 1:
            [overlap] = found[0].overlaps
            if overlap.last - overlap.first == stop - start:
                return overlap.source.read(overlap.first, overlap.last)
        values = np.empty(stop - start, self.dtype.storage)
        for box in found:
            target = values[box.offset : box.offset + math.prod(box.shape)].reshape(box.shape)
            for overlap in box.overlaps:
                given = overlap.source.read(overlap.first, overlap.last)
                target[overlap.target] = given.reshape(overlap.view)[overlap.picked]
        values.flags.writeable = False
        return values

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        for box in self._boxes(*self.span(start, stop)):
            for overlap in box.overlaps:
                overlap.source.prefetch(overlap.first, overlap.last)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        for box in self._boxes(*self.span(start, stop)):
            for overlap in box.overlaps:
                overlap.source.release(overlap.first, overlap.last)

    def fingerprint(self, whole: bool) -> bytes:
        return digest_values(self, whole)

    def is_laid_out_as(self, other: Pieces) -> bool:
        """Whether ``other`` has the same blocks of the same bytes."""
        if self.shape != other.shape or len(self._blocks) != len(other._blocks):
            return False
        return all(
            (x.at, x.start, x.shape) == (y.at, y.start, y.shape) and same_place(x.source, y.source)
            for x, y in zip(self._blocks, other._blocks, strict=True)
        )

    def _check_inside(self, block: Block) -> None:
        """CheckpointError unless the block lies inside its source and inside the tensor."""
        of = (block.at, block.start, block.shape, block.source.shape, self.shape)
        same = len({len(numbers) for numbers in of}) == 1
        if not same or not all(
            0 <= at <= total - n and 0 <= start <= own - n for at, start, n, own, total in zip(*of, strict=True)
        ):
            what = f"{list(block.shape)} at {list(block.at)} is no part of {self.name} {list(self.shape)}"
            raise CheckpointError(what, where=block.source.where, hint=_INCOMPLETE)

    def _check_cover(self) -> None:
        """CheckpointError unless every element of the tensor lies in exactly one block."""
        covered = sum(math.prod(block.shape) for block in self._blocks)
        if covered < self.numel:
            what = f"only {covered} of its {self.numel} elements are there"
            raise CheckpointError(what, where=self.where, hint=_INCOMPLETE)
        if len(self._whole) > _MAX_CUT:
            what = f"is cut along {len(self._whole)} dimensions; at most {_MAX_CUT} are read"
            raise CheckpointError(what, where=self.where, hint=_INCOMPLETE)
        if self.numel and (covered > self.numel or not _is_tiled(self._whole, self._blocks)):
            raise CheckpointError("its parts overlap", where=self.where, hint=_INCOMPLETE)

    def _boxes(self, start: int, stop: int) -> Iterator[_Box]:
        """The elements [start, stop) as boxes, with the blocks that each of them meets."""
        for prefix, low, high, offset in cut(self._whole, start, stop) if start < stop else ():
            rest = self._whole[len(prefix) + 1 :]
            first, last = (prefix[0], prefix[0] + 1) if prefix else (low, high)
            candidates = range(bisect_right(self._ends, first), bisect_left(self._begins, last))
            overlaps = (_overlap(self._blocks[i], prefix, low, high) for i in candidates)
            yield _Box(offset, (high - low, *rest), tuple(found for found in overlaps if found is not None))


class Renamed(Source):
    """Another source's values in the same order, under a name and in a shape of its own."""

    def __init__(self, source: Source, name: str, shape: Sequence[int] | None = None) -> None:
        """ValueError if ``shape`` has another number of elements."""
        self.source = source
        self.name = name
        self.dtype = source.dtype
        self.shape = source.shape if shape is None else tuple(shape)
        if math.prod(self.shape) != source.numel:
            raise ValueError(f"{list(source.shape)} cannot be seen as {list(self.shape)}")

    @property
    def nominal(self) -> DType:
        return self.source.nominal

    @property
    def is_there(self) -> bool:
        return self.source.is_there

    @property
    def where(self) -> str:
        return self.source.where

    @property
    def scratch(self) -> Scratch:
        return self.source.scratch

    @property
    def files(self) -> tuple[InputFile, ...]:
        return self.source.files

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        return self.source.read(start, stop)

    def prefetch(self, start: int = 0, stop: int | None = None) -> None:
        self.source.prefetch(start, stop)

    def release(self, start: int = 0, stop: int | None = None) -> None:
        self.source.release(start, stop)

    def fingerprint(self, whole: bool) -> bytes:
        return self.source.fingerprint(whole)


def joined(name: str, sources: Sequence[Source], axis: int = 0) -> Source:
    """``sources`` one after the other along ``axis``, like numpy.concatenate.

    CheckpointError if they differ in type or in another dimension.
    """
    shape = list(sources[0].shape)
    shape[axis] = sum(source.shape[axis] if len(source.shape) > axis else 0 for source in sources)
    blocks: list[Block] = []
    begin = 0
    for source in sources:
        at = [0] * len(shape)
        at[axis] = begin
        blocks.append(Block(source, tuple(at)))
        begin += source.shape[axis] if len(source.shape) > axis else 0
    return Pieces(name, shape, blocks)


def stacked(name: str, sources: Sequence[Source]) -> Source:
    """``sources`` of one shape along a new first axis, like numpy.stack."""
    return joined(name, [Renamed(source, source.name, (1, *source.shape)) for source in sources])


def part(name: str, source: Source, start: int, stop: int, axis: int = 0) -> Source:
    """``source[start:stop]`` along ``axis``."""
    at = (0,) * len(source.shape)
    begin = [start if i == axis else 0 for i in range(len(at))]
    shape = [stop - start if i == axis else n for i, n in enumerate(source.shape)]
    return Pieces(name, shape, [Block(source, at, tuple(begin), tuple(shape))])


def row(name: str, source: Source, index: int) -> Source:
    """``source[index]``, of one dimension less."""
    return Renamed(part(name, source, index, index + 1), name, source.shape[1:])


def same_place(a: Source, b: Source) -> bool:
    """Whether two sources are known, without reading, to give the same bytes."""
    if isinstance(a, Renamed):
        return same_place(a.source, b)
    if isinstance(b, Renamed):
        return same_place(a, b.source)
    if isinstance(a, Extent) and isinstance(b, Extent):
        here, there = ((x.file.path, x.file.stamp, x.dtype, x.start, x.stop) for x in (a, b))
        return here == there
    if isinstance(a, Pieces) and isinstance(b, Pieces):
        return a.is_laid_out_as(b)
    return a is b


def _fold(shape: tuple[int, ...], blocks: Iterable[Block]) -> tuple[tuple[int, ...], list[_Placed]]:
    """The same layout over fewer dimensions: one that every block covers whole joins the one before it.

    A tensor cut along its first dimension alone becomes a vector cut into ranges. The blocks come in order of ``at``.
    """
    if not shape:
        shape, blocks = (1,), [Block(Renamed(b.source, b.source.name, (1,)), (0,)) for b in blocks]
    blocks = sorted(blocks, key=lambda block: block.at)
    begins = [0]
    for axis in range(1, len(shape)):
        if any({block.shape[axis], block.source.shape[axis]} != {shape[axis]} for block in blocks):
            begins.append(axis)
    ends = [*begins[1:], len(shape)]

    def sizes(of: Sequence[int]) -> tuple[int, ...]:
        return tuple(math.prod(of[a:b]) for a, b in zip(begins, ends, strict=True))

    inner = [math.prod(shape[a + 1 : b]) for a, b in zip(begins, ends, strict=True)]

    def offsets(of: Sequence[int]) -> tuple[int, ...]:
        return tuple(of[a] * n for a, n in zip(begins, inner, strict=True))

    return sizes(shape), [
        _Placed(block.source, offsets(block.at), offsets(block.start), sizes(block.shape), sizes(block.source.shape))
        for block in blocks
    ]


def _is_tiled(shape: tuple[int, ...], blocks: Sequence[_Placed]) -> bool:
    """Whether blocks inside ``shape`` cover every element exactly once.

    How often each element is covered is determined by its differences along all axes, and those of one box are signs
    at its corners: the blocks tile the whole if their signs add up to those of the whole, without a grid laid out.
    """
    signs: dict[tuple[int, ...], int] = {}
    ends = tuple(product(range(2), repeat=len(shape)))
    boxes: list[tuple[tuple[int, ...], tuple[int, ...], int]] = [((0,) * len(shape), shape, -1)]
    boxes += [(block.at, block.shape, 1) for block in blocks]
    for at, extent, weight in boxes:
        for end in ends:
            corner = tuple(a + n * e for a, n, e in zip(at, extent, end, strict=True))
            signs[corner] = signs.get(corner, 0) + (-weight if sum(end) % 2 else weight)
    return not any(signs.values())


def cut(
    shape: tuple[int, ...], start: int, stop: int, prefix: tuple[int, ...] = (), done: int = 0
) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """The flat range [start, stop) as boxes: leading coordinates, [low, high) of the next one, all of the others.

    With each the position of its first element within the range.
    """
    inner = math.prod(shape[1:])
    if len(shape) == 1:
        yield prefix, start, stop, done
        return
    (first, head), (last, tail) = divmod(start, inner), divmod(stop, inner)
    if first == last:
        yield from cut(shape[1:], head, tail, (*prefix, first), done)
        return
    if head:
        yield from cut(shape[1:], head, inner, (*prefix, first), done)
        done += inner - head
        first += 1
    if first < last:
        yield prefix, first, last, done
        done += (last - first) * inner
    if tail:
        yield from cut(shape[1:], 0, tail, (*prefix, last), done)


def _overlap(block: _Placed, prefix: tuple[int, ...], low: int, high: int) -> _Overlap | None:
    """What ``block`` gives to the box of ``_cut``, if anything."""
    axis = len(prefix)
    if not all(a <= i < a + n for i, a, n in zip(prefix, block.at, block.shape, strict=False)):
        return None
    low_met = max(low, block.at[axis])
    high_met = min(high, block.at[axis] + block.shape[axis])
    if low_met >= high_met:
        return None
    position = 0
    for i, a, begin, n in zip((*prefix, low_met), block.at, block.start, block.within, strict=False):
        position = position * n + i - a + begin
    inner = block.within[axis + 1 :]
    first, count = position * math.prod(inner), (high_met - low_met) * math.prod(inner)
    rest = range(axis + 1, len(block.shape))
    return _Overlap(
        block.source,
        first,
        first + count,
        (high_met - low_met, *inner),
        (slice(None), *(slice(block.start[i], block.start[i] + block.shape[i]) for i in rest)),
        (slice(low_met - low, high_met - low), *(slice(block.at[i], block.at[i] + block.shape[i]) for i in rest)),
    )


def _stretch(block: _Placed) -> float:
    """Elements of the source that are read for one that is used."""
    return math.prod(block.within[1:]) / math.prod(block.shape[1:])


def _common_folder(files: Sequence[InputFile]) -> Path:
    return Path(os.path.commonpath([file.path.parent for file in files]))


_INCOMPLETE = "Its files do not belong together or some are missing; copy the whole checkpoint again."

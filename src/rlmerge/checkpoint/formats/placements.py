"""Where the part of a tensor that one process holds lies in the whole: placements as torch saves them.

A tensor on a mesh of processes has a placement for every dimension of the mesh: replicated along it, or cut along a
dimension of the tensor as torch.chunk cuts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from rlmerge.checkpoint.formats.mesh import Mesh
from rlmerge.checkpoint.formats.records import Record, sizes
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

_MAX_PARTS = 1 << 10
"""Most sections that a strided shard may count, and parts that one process may hold of a tensor."""

Interval = tuple[int, int]
"""Indices [start, stop) along one dimension of a tensor."""


@frozen(slots=True)
class Box:
    """A box of ``shape`` that begins at ``at`` of the whole tensor and at ``start`` of what a process holds."""

    at: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]


def boxes(shape: tuple[int, ...], placements: Any, order: Any, mesh: Mesh, where: str) -> list[Box]:
    """What a process at ``mesh`` holds of a tensor of ``shape``.

    ``placements`` are records of one placement for each dimension of the mesh. ``order`` is a recorded order in which
    mesh dimensions cut a dimension of the tensor, where it is not from first to last. CheckpointError for placements
    that are malformed or do not keep values, such as partial sums.
    """
    if not isinstance(placements, tuple | list) or len(placements) != len(mesh.lengths):
        raise CheckpointError("its placements do not fit its device mesh", where=where, hint=_DAMAGED)
    cuts: list[list[_Cut]] = [[] for _ in shape]
    for placement, length, index in zip(placements, mesh.lengths, mesh.coordinate, strict=True):
        kind = placement.kind if isinstance(placement, Record) else None
        if kind == "Replicate":
            continue
        axis = placement.field("dim", 0) if isinstance(placement, Record) else None
        factor = placement.field("split_factor", 1) if kind == "_StridedShard" else 1
        if kind not in ("Shard", "_StridedShard") or type(axis) is not int or type(factor) is not int:
            raise CheckpointError(f"has the placement {kind}, which holds no values", where=where, hint=_DAMAGED)
        if not -len(shape) <= axis < len(shape) or not 1 <= factor <= _MAX_PARTS:
            raise CheckpointError("its placements do not fit its shape", where=where, hint=_DAMAGED)
        cuts[axis].append(_Cut(length, index, factor))
    for axis, mesh_order in _orders(order):
        if axis < len(cuts) and len(cuts[axis]) == len(mesh_order) and all(cut.factor == 1 for cut in cuts[axis]):
            cuts[axis] = [cut for _, cut in sorted(zip(_inverse(mesh_order), cuts[axis], strict=True), key=_first)]
    kept = [_kept([(0, n)], axis_cuts, where) for n, axis_cuts in zip(shape, cuts, strict=True)]
    _check_parts(math.prod(map(len, kept)), where)
    placed = [list(_placed(intervals)) for intervals in kept]
    return [
        Box(tuple(at for at, _, _ in box), tuple(start for _, start, _ in box), tuple(n for _, _, n in box))
        for box in product(*placed)
    ]


@frozen(slots=True)
class _Cut:
    """Part ``index`` of ``parts``; with a ``factor`` of each of so many sections, as strided shards are."""

    parts: int
    index: int
    factor: int


def _kept(intervals: list[Interval], cuts: Sequence[_Cut], where: str) -> list[Interval]:
    """What is left of ``intervals`` after the cuts.

    A strided shard stands for a cut that was made after those that follow it, which its factor counts: FSDP cuts what
    tensor parallelism has cut. Where it counts other sections it is made in place, of each of them.
    """
    if not cuts:
        return intervals
    first, rest = cuts[0], cuts[1:]
    if first.factor == math.prod(cut.parts for cut in rest):
        return _chunk(_kept(intervals, rest, where), first.parts, first.index)
    sections = [_chunk(intervals, first.factor, section) for section in range(first.factor)]
    found = _merged(interval for section in sections for interval in _chunk(section, first.parts, first.index))
    _check_parts(len(found), where)
    return _kept(found, rest, where)


def _check_parts(count: int, where: str) -> None:
    if count > _MAX_PARTS:
        raise CheckpointError("is cut into too many parts to be read", where=where, hint=_DAMAGED)


def _chunk(intervals: Sequence[Interval], parts: int, index: int) -> list[Interval]:
    """Part ``index`` of the indices in ``intervals``, cut into ``parts`` as torch.chunk does."""
    total = sum(stop - start for start, stop in intervals)
    size = -(-total // parts)
    first, last = min(size * index, total), min(size * (index + 1), total)
    found: list[Interval] = []
    passed = 0
    for start, stop in intervals:
        begin, end = max(first - passed, 0), min(last - passed, stop - start)
        if begin < end:
            found.append((start + begin, start + end))
        passed += stop - start
    return found


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The same indices in the same order, with intervals that continue the one before joined to it."""
    found: list[Interval] = []
    for start, stop in intervals:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def _placed(intervals: Iterable[Interval]) -> Iterable[tuple[int, int, int]]:
    """(index in the whole, index in the part, length) of each interval."""
    passed = 0
    for start, stop in intervals:
        yield start, passed, stop - start
        passed += stop - start


def _orders(order: Any) -> Iterable[tuple[int, tuple[int, ...]]]:
    """(dimension of the tensor, mesh dimensions in the order in which they cut it) where that is recorded."""
    for entry in order if isinstance(order, tuple | list) else ():
        if isinstance(entry, Record):
            axis, mesh_dims = entry.field("tensor_dim", 0), sizes(entry.field("mesh_dims", 1))
            if type(axis) is int and axis >= 0 and mesh_dims:
                yield axis, mesh_dims


def _inverse(order: Sequence[int]) -> list[int]:
    """For the mesh dimensions of ``order`` from lowest to highest, the position of each in it."""
    return [order.index(dim) for dim in sorted(order)]


def _first(pair: tuple[int, _Cut]) -> int:
    return pair[0]


_DAMAGED = "The file is damaged or was written by a faulty tool; save it again."

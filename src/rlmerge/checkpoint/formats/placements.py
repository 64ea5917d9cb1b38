"""Where the part of a tensor that one process holds lies in the whole: meshes and placements as torch saves them.

A tensor on a mesh of processes has a placement for every dimension of the mesh: replicated along it, or cut along a
dimension of the tensor as torch.chunk cuts. Meshes of torch before 2.9 are a tensor of ranks; since then they are a
layout over a list of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from rlmerge.checkpoint.formats.pickles import Record
from rlmerge.checkpoint.formats.torch_values import Dense, Saved, sizes
from rlmerge.errors import CheckpointError

_MAX_RANKS = 1 << 20
_MAX_BOXES = 1 << 16

Interval = tuple[int, int]
"""Indices [start, stop) along one dimension of a tensor."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """The lengths of a mesh's dimensions, and where in it a process is."""

    lengths: tuple[int, ...]
    coordinate: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A box of ``shape`` that begins at ``at`` of the whole tensor and at ``start`` of what a process holds."""

    at: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]


def read_mesh(mesh: Any, rank: int, world: int, saved: Saved) -> Mesh:
    """A recorded DeviceMesh as process ``rank`` of ``world`` sees it.

    CheckpointError if it is malformed, does not hold this process, or says that another one wrote the file.
    """
    where = str(saved.file)
    if not isinstance(mesh, Record) or mesh.kind != "DeviceMesh":
        raise CheckpointError("holds a tensor without a device mesh", where=where, hint=_DAMAGED)
    writer = mesh.field("_rank")
    root = mesh.field("_root_mesh")
    if writer is None and isinstance(root, Record):
        writer = root.field("_rank")
    if type(writer) is int and writer != rank:
        raise CheckpointError(f"was written by rank {writer}, not {rank}", where=where, hint=_MIXED)
    ranks = mesh.field("mesh")
    if isinstance(ranks, Dense):
        lengths, axes = ranks.shape, _row_major(ranks.shape)
    else:
        axes = _axes(mesh.field("_layout"))
        ranks = mesh.field("_flatten_rank_map") or mesh.field("_rank_map")
        if axes is None:
            raise CheckpointError("holds a device mesh of an unknown form", where=where, hint=_NEWER)
        lengths = tuple(math.prod(n for n, _ in axis) for axis in axes)
    found = _rank_list(ranks, saved)
    if math.prod(lengths) > len(found):
        raise CheckpointError("holds a device mesh of an unknown form", where=where, hint=_NEWER)
    if len(set(found)) < len(found) or not all(0 <= other < world for other in found) or rank not in found:
        what = f"was written on a mesh of the ranks {_shown(found)}; {world} rank files are here, and this is {rank}"
        raise CheckpointError(what, where=where, hint=_MIXED)
    coordinate = tuple(_along(axis, found.index(rank)) for axis in axes)
    recorded = mesh.field("_coordinate_on_dim")
    if isinstance(recorded, tuple | list) and sizes(recorded) != coordinate:
        what = f"was written at {sizes(recorded)} of its mesh, where rank {rank} is at {coordinate}"
        raise CheckpointError(what, where=where, hint=_MIXED)
    return Mesh(lengths, coordinate)


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
        if not -len(shape) <= axis < len(shape) or not 1 <= factor <= _MAX_BOXES:
            raise CheckpointError("its placements do not fit its shape", where=where, hint=_DAMAGED)
        cuts[axis].append(_Cut(length, index, factor))
    for axis, mesh_order in _orders(order):
        if axis < len(cuts) and len(cuts[axis]) == len(mesh_order) and all(cut.factor == 1 for cut in cuts[axis]):
            cuts[axis] = [cut for _, cut in sorted(zip(_inverse(mesh_order), cuts[axis], strict=True), key=_first)]
    kept = [_kept([(0, n)], axis_cuts) for n, axis_cuts in zip(shape, cuts, strict=True)]
    if math.prod(map(len, kept)) > _MAX_BOXES:
        raise CheckpointError("is cut into too many parts to be read", where=where, hint=_DAMAGED)
    placed = [list(_placed(intervals)) for intervals in kept]
    return [
        Box(tuple(at for at, _, _ in box), tuple(start for _, start, _ in box), tuple(n for _, _, n in box))
        for box in product(*placed)
    ]


@dataclass(frozen=True, slots=True)
class _Cut:
    """Part ``index`` of ``parts``; with a ``factor`` of each of so many sections, as strided shards are."""

    parts: int
    index: int
    factor: int


def _kept(intervals: list[Interval], cuts: Sequence[_Cut]) -> list[Interval]:
    """What is left of ``intervals`` after the cuts.

    A strided shard stands for a cut that was made after those that follow it, which its factor counts: FSDP cuts what
    tensor parallelism has cut. Where it counts other sections it is made in place, of each of them.
    """
    if not cuts:
        return intervals
    first, rest = cuts[0], cuts[1:]
    if first.factor == math.prod(cut.parts for cut in rest):
        return _chunk(_kept(intervals, rest), first.parts, first.index)
    sections = [_chunk(intervals, first.factor, section) for section in range(first.factor)]
    found = [interval for section in sections for interval in _chunk(section, first.parts, first.index)]
    return _kept(_merged(found), rest)


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


def _row_major(shape: tuple[int, ...]) -> list[list[tuple[int, int]]]:
    """(length, step) of each dimension of a contiguous array."""
    return [[(n, math.prod(shape[i + 1 :]))] for i, n in enumerate(shape)]


def _axes(layout: Any) -> list[list[tuple[int, int]]] | None:
    """(length, step) pairs for each dimension of a recorded mesh layout; None if it has no known form."""
    if not isinstance(layout, Record):
        return None
    axes = layout.field("axes", 0)
    if isinstance(axes, tuple | list) and all(isinstance(axis, Record) for axis in axes):
        found = [_pairs(axis.field("shape", 0), axis.field("stride", 1)) for axis in axes]
    else:
        lengths, steps = layout.field("shape", 0), layout.field("stride", 1)
        if type(lengths) is int:
            lengths, steps = (lengths,), (steps,)
        if not isinstance(lengths, tuple) or not isinstance(steps, tuple) or len(lengths) != len(steps):
            return None
        found = [_pairs(n, step) for n, step in zip(lengths, steps, strict=True)]
    known = [axis for axis in found if axis is not None]
    return known if len(known) == len(found) else None


def _pairs(lengths: Any, steps: Any) -> list[tuple[int, int]] | None:
    """One dimension of a layout, which may itself be of several; none at all is a dimension of length 1."""
    counts = sizes((lengths,) if type(lengths) is int else lengths)
    strides = sizes((steps,) if type(steps) is int else steps)
    if counts is None or strides is None or len(counts) != len(strides):
        return None
    pairs = list(zip(counts, strides, strict=True))
    return pairs if all(0 < n <= _MAX_RANKS and (step or n == 1) for n, step in pairs) else None


def _along(axis: Sequence[tuple[int, int]], position: int) -> int:
    """The index along a dimension of the mesh of the process at ``position`` of the list of ranks."""
    index = 0
    for length, step in axis:
        index = index * length + (position // step % length if step else 0)
    return index


def _rank_list(ranks: Any, saved: Saved) -> list[int]:
    if isinstance(ranks, Dense) and math.prod(ranks.shape) <= _MAX_RANKS and not ranks.dtype.is_float:
        return [int(rank) for rank in saved.source("a device mesh", ranks).read()]
    if isinstance(ranks, tuple | list) and len(ranks) <= _MAX_RANKS and all(type(rank) is int for rank in ranks):
        return list(ranks)
    raise CheckpointError("holds a device mesh of an unknown form", where=str(saved.file), hint=_NEWER)


def _shown(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (" …" if len(ranks) > 8 else "")


_DAMAGED = "The file is damaged or was written by a faulty tool; save it again."
_MIXED = "Files of several runs were mixed or renamed; copy the whole checkpoint again."
_NEWER = "It was written by a version of torch that is not known here; consolidate it with the training framework."

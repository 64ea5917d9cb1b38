"""The mesh of processes on which a tensor was distributed, as torch saves it with every shard.

Meshes of torch before 2.9 are a tensor of ranks; since then they are a layout over a list of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rlmerge.checkpoint.formats.records import Record, sizes
from rlmerge.checkpoint.formats.torch_values import Dense, Saved
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen

_MAX_RANKS = 1 << 20


@frozen(slots=True)
class Mesh:
    """The lengths of a mesh's dimensions, and where in it a process is."""

    lengths: tuple[int, ...]
    coordinate: tuple[int, ...]


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

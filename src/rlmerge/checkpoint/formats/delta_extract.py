"""Writes what an expert changed in its base as a sparse delta, tensor by tensor in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash

from rlmerge.checkpoint.formats.delta_file import BLOCK, DENSE, FILE, SPARSE, Contents, Entry, smallest
from rlmerge.checkpoint.hashing import unwatched
from rlmerge.checkpoint.layout import ShardPlan
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.checkpoint.shard_writer import ShardWriter
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.frozen import frozen
from rlmerge.kernels import bitmaps

PIECE = 16 * BLOCK
"""Elements read at a time."""


@frozen
class Extracted:
    """What was written: elements of the expert, how many of them changed, bytes of its weights and of the delta.

    ``dense`` names the tensors that are stored whole.
    """

    out: Path
    tensors: int
    elements: int
    changed: int
    expert_bytes: int
    delta_bytes: int
    dense: tuple[str, ...]


def extract(
    base: Checkpoint,
    expert: Checkpoint,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    force: bool = False,
    advance: Callable[[int], None] = unwatched,
) -> Extracted:
    """Write the delta from ``base`` to ``expert`` into the new directory ``out``, with the expert's other files.

    ``advance`` is told the bytes of the expert that were compared, and again those that are done. CheckpointError if
    values of a model are computed rather than stored, RequestError if ``out`` exists without ``force``; RunError if
    writing fails or an input changes meanwhile, after which ``resume`` goes on.
    """
    for model in (base, expert):
        _require_stored(model)
    compared = _compare_all(base, expert, advance)
    entries = {name: entry for name, (entry, _) in compared.items()}
    contents = Contents(base.fingerprint(), _hub_id(base), entries)
    shard = ShardPlan(FILE, tuple(contents.parts()), contents.metadata())
    digest = hashlib.sha256(json.dumps([contents.metadata(), expert.edition]).encode()).hexdigest()
    with PartialDirectory(Path(out), digest, resume=resume, force=force) as partial:
        try:
            writer = partial.shard_writer(shard)
            for name, (entry, counts) in compared.items():
                _write(writer, name, entry, counts, base.tensors.get(name), expert.tensors[name])
                advance(entry.numel * entry.dtype.itemsize)
            for path in expert.side_files:
                partial.copy_file(path, path.relative_to(expert.side_root).as_posix())
            for file in {file for model in (base, expert) for x in model.tensors.values() for file in x.files}:
                file.check()
        except RequestError:
            partial.abandon()
            raise
        partial.seal([shard])
    return Extracted(
        Path(out),
        len(entries),
        sum(entry.numel for entry in entries.values()),
        sum(entry.changed for entry in entries.values()),
        sum(entry.numel * entry.dtype.itemsize for entry in entries.values()),
        shard.size,
        tuple(name for name, entry in entries.items() if entry.kind == DENSE),
    )


def _require_stored(model: Checkpoint) -> None:
    computed = next((x for x in model.tensors.values() if x.nominal is not x.dtype), None)
    if computed is not None:
        what = f"holds {model.format}, of which values are computed; a delta is of stored bits"
        hint = "Write the model out with `rlmerge merge --method passthrough` first, then extract from that."
        raise CheckpointError(what, where=computed.where, hint=hint)


def _hub_id(model: Checkpoint) -> str | None:
    return f"{model.reference.split('@')[0]}@{model.revision}" if model.revision else None


def _compare_all(
    base: Checkpoint, expert: Checkpoint, advance: Callable[[int], None]
) -> dict[str, tuple[Entry, np.ndarray]]:
    """The entry of every tensor and how many elements of each of its blocks changed, uint32."""

    def compare(name: str) -> tuple[Entry, np.ndarray]:
        return _compare(base.tensors.get(name), expert.tensors[name], advance)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(expert.tensors, pool.map(compare, expert.tensors), strict=True))


def _compare(base: Source | None, expert: Source, advance: Callable[[int], None]) -> tuple[Entry, np.ndarray]:
    of_base, of_expert = xxhash.xxh3_64(), xxhash.xxh3_64()
    counts = np.zeros(-(-expert.numel // BLOCK), np.uint32)
    alike = base is not None and (base.dtype, base.shape) == (expert.dtype, expert.shape)
    for start, stop in _pieces(expert.numel):
        after = expert.read(start, stop)
        of_expert.update(after.view(np.uint8).data)
        if base is not None and alike:
            before = base.read(start, stop)
            of_base.update(before.view(np.uint8).data)
            mask = bitmaps.differing(before, after)
            found = np.add.reduceat(mask, range(0, stop - start, BLOCK), dtype=np.uint32)
            counts[start // BLOCK : -(-stop // BLOCK)] = found
            base.release(start, stop)
        advance((stop - start) * expert.dtype.itemsize)
        expert.release(start, stop)
    changed = int(counts.sum(dtype=np.int64)) if alike else expert.numel
    kind = smallest(expert.dtype, expert.shape, changed) if alike else DENSE
    digest = of_base.hexdigest() if alike else None
    return Entry(expert.dtype.code, expert.shape, kind, changed, digest, of_expert.hexdigest()), counts


def _write(
    writer: ShardWriter, name: str, entry: Entry, counts: np.ndarray, base: Source | None, expert: Source
) -> None:
    """Write the parts of one tensor in their order, without those that an interrupted run finished."""
    parts = [part.name for part in entry.parts(name)]
    pending = {part.name for part in writer.pending}
    pieces: list[Iterator[np.ndarray]] = [_whole(expert)] if entry.kind == DENSE else []
    if entry.kind == SPARSE:
        assert base is not None
        pieces = [_bitmap(base, expert), iter([counts.astype("<u4")]), _values(base, expert)]
    for part, arrays in zip(parts, pieces, strict=True):
        if part in pending:
            for array in arrays:
                writer.write(part, np.ascontiguousarray(array))
            writer.finish_tensor(part, {})


def _whole(expert: Source) -> Iterator[np.ndarray]:
    for start, stop in _pieces(expert.numel):
        yield expert.read(start, stop)
        expert.release(start, stop)


def _masks(base: Source, expert: Source) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each piece which elements changed, and its new values."""
    for start, stop in _pieces(expert.numel):
        after = expert.read(start, stop)
        yield bitmaps.differing(base.read(start, stop), after), after
        base.release(start, stop)
        expert.release(start, stop)


def _bitmap(base: Source, expert: Source) -> Iterator[np.ndarray]:
    for mask, _ in _masks(base, expert):
        octets = bitmaps.pack(mask)
        yield np.pad(octets, (0, -len(octets) % 8))


def _values(base: Source, expert: Source) -> Iterator[np.ndarray]:
    for mask, after in _masks(base, expert):
        yield after[np.flatnonzero(mask)]


def _pieces(numel: int) -> Iterator[tuple[int, int]]:
    for start in range(0, numel, PIECE):
        yield start, min(numel, start + PIECE)

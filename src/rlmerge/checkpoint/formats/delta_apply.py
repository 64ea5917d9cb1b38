"""Writes the model that a delta gives, every bit as the expert had it, and checks a delta against its checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import xxhash

from rlmerge.checkpoint.formats import delta_grail
from rlmerge.checkpoint.formats.delta import open_contents
from rlmerge.checkpoint.formats.delta_file import FILE, Entry
from rlmerge.checkpoint.hashing import unwatched
from rlmerge.checkpoint.layout import OutputTensor, plan_shards
from rlmerge.checkpoint.manifest import Manifest
from rlmerge.checkpoint.model import Checkpoint
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError, RequestError
from rlmerge.frozen import frozen

_PIECE = 1 << 20


@frozen
class Checked:
    """What ``check`` found: a sentence for each problem, and how many tensors and bytes were read."""

    problems: tuple[str, ...]
    tensors: int
    bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems


def apply(
    model: Checkpoint,
    out: str | os.PathLike[str],
    *,
    shard_size: int = 5 * 10**9,
    resume: bool = False,
    force: bool = False,
    advance: Callable[[int], None] = unwatched,
) -> Manifest:
    """Write the tensors of ``model``, a delta opened with its base, as they are stored, into the new directory ``out``.

    CheckpointError if a tensor does not have the checksum that the delta states (nothing is left then), RequestError if
    ``out`` exists without ``force``; RunError if writing fails or an input changes meanwhile, after which ``resume``
    goes on. ``advance`` is told the bytes written.
    """
    if model.format == delta_grail.NAME and (problems := _check_whole(model)):
        raise CheckpointError(problems[0], where=str(model.path), hint="Name the model that the training began with.")
    outputs = [OutputTensor(name, tensor.dtype, tensor.shape) for name, tensor in model.tensors.items()]
    shards = plan_shards(outputs, shard_size)
    due = expected(model)
    digest = hashlib.sha256(f"{model.edition} {shard_size}".encode()).hexdigest()
    with PartialDirectory(Path(out), digest, resume=resume, force=force) as partial:
        try:
            for shard in shards:
                writer = partial.shard_writer(shard)
                for output in writer.pending:
                    for piece in pieces(model.tensors[output.name]):
                        writer.write(output.name, piece)
                        advance(piece.nbytes)
                    found = writer.finish_tensor(output.name, {}).xxh3
                    if found != due.get(output.name, found):
                        raise _wrong(model, output.name)
            for path in model.side_files:
                partial.copy_file(path, path.relative_to(model.side_root).as_posix())
            for file in {file for tensor in model.tensors.values() for file in tensor.files}:
                file.check()
        except RequestError:
            partial.abandon()
            raise
        return partial.seal(shards)


def check(model: Checkpoint, base: Checkpoint, *, advance: Callable[[int], None] = unwatched) -> Checked:
    """Compare all of ``model``, a delta opened with ``base``, with the checksums that the delta states of both.

    ``advance`` is told the bytes read. What is damaged is a problem in the result, not an error.
    """
    problems: list[str] = []
    entries = _entries(model)
    total = 0
    for name, tensor in model.tensors.items():
        try:
            found, entry = _digest(tensor), entries.get(name)
            if entry is not None and found != entry.result:
                problems.append(_wrong(model, name).what)
            if entry is not None and entry.base is not None and _digest(base.tensors[name]) != entry.base:
                problems.append(f"{base.tensors[name].where} is not the tensor that was changed")
        except CheckpointError as error:
            problems.append(f"{error.where}: {error.what}")
        advance(tensor.nbytes)
        total += tensor.nbytes
    if model.format == delta_grail.NAME and not problems:
        problems += _check_whole(model)
    return Checked(tuple(problems), len(model.tensors), total)


def _check_whole(model: Checkpoint) -> list[str]:
    """The problem, if all weights in order of their names do not have the digest that is stated of them."""
    stated = delta_grail.weights_hash(model.path)
    if stated is None:
        return [f"{model.path} states no checksum of the weights, so that nothing can be compared"]
    found = stated.begin()
    for name in sorted(model.tensors):
        for piece in pieces(model.tensors[name]):
            found.update(piece.view(np.uint8).data)
    return [] if found.hexdigest() == stated.digest else ["the weights do not have the checksum that the delta states"]


def expected(model: Checkpoint) -> dict[str, str]:
    """The hex xxh3-64 that a delta of ours states of each tensor of its expert."""
    return {name: entry.result for name, entry in _entries(model).items()}


def _entries(model: Checkpoint) -> Mapping[str, Entry]:
    return open_contents(model.path)[1].tensors if (model.path / FILE).exists() else {}


def pieces(tensor: Source) -> Iterator[np.ndarray]:
    """A tensor's values in order, a piece at a time."""
    for start in range(0, tensor.numel, _PIECE):
        stop = min(tensor.numel, start + _PIECE)
        yield tensor.read(start, stop)
        tensor.release(start, stop)


def _digest(tensor: Source) -> str:
    digest = xxhash.xxh3_64()
    for piece in pieces(tensor):
        digest.update(piece.view(np.uint8).data)
    return digest.hexdigest()


def _wrong(model: Checkpoint, name: str) -> CheckpointError:
    hint = "The base differs from the delta's where its fingerprint does not look, or the delta is damaged."
    what = f"tensor {name!r} does not have the checksum that the delta states"
    return CheckpointError(what, where=str(model.path), hint=hint)

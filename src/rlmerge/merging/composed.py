"""Writes a model whose tensors are composed of others': tile by tile into a directory that appears whole or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlmerge.checkpoint import OutputTensor, PartialDirectory, Source, plan_shards
from rlmerge.checkpoint.files import InputFile
from rlmerge.errors import RunError
from rlmerge.kernels.dtypes import FLOAT16, DType, decode
from rlmerge.kernels.rounding import encode
from rlmerge.progress import Progress

from .place import check_space

_TILE = 1 << 20
"""Elements that are read and written at once."""


def write_composed(
    tensors: Mapping[str, Source],
    files: Mapping[str, InputFile | bytes],
    out: Path,
    job: str,
    *,
    dtypes: Mapping[str, DType] | None = None,
    shard_size: int,
    force: bool,
    progress: Progress,
) -> int:
    """Write weights and side files to ``out``, sealed with a manifest; bytes of the weights.

    ``dtypes`` are the types to store tensors in; others keep the one their model is stored in. ``job`` says in a
    partial directory what was being written. RequestError if it would not fit on the disk; RunError, with nothing left
    behind, for a finite value that float16 cannot hold.
    """
    wanted = dtypes or {}
    outputs = [OutputTensor(name, wanted.get(name, tensor.nominal), tensor.shape) for name, tensor in tensors.items()]
    shards = plan_shards(outputs, shard_size)
    beside = sum(len(content) if isinstance(content, bytes) else content.size for content in files.values())
    check_space(out, sum(shard.size for shard in shards) + beside, "this")
    progress.start("write", sum(output.nbytes for output in outputs))
    with PartialDirectory(out, job, force=force) as partial:
        try:
            for shard in shards:
                writer = partial.shard_writer(shard)
                for output in writer.pending:
                    source = tensors[output.name]
                    for start in range(0, source.numel, _TILE):
                        stop = min(source.numel, start + _TILE)
                        data = _stored(source.read(start, stop), source, output)
                        writer.write(output.name, np.ascontiguousarray(data))
                        source.release(start, stop)
                        progress.advance(data.nbytes)
                    writer.finish_tensor(output.name, {})
            for name, content in files.items():
                partial.write_file(name, content if isinstance(content, bytes) else content.copy(0, content.size))
            partial.seal(shards)
        except BaseException:
            partial.abandon()
            raise
    progress.done()
    return sum(shard.size for shard in shards)


def _stored(data: np.ndarray, source: Source, output: OutputTensor) -> np.ndarray:
    """Values of ``source`` in the type of ``output``."""
    if source.dtype is output.dtype:
        return data
    values = decode(data, source.dtype)
    stored = encode(values, output.dtype)
    if output.dtype is FLOAT16 and not np.array_equal(np.isfinite(stored), np.isfinite(values)):
        what = f"a value of {output.name} is too large for float16"
        raise RunError(what, where=source.where, hint="Write bfloat16 or float32.")
    return stored

"""A cheap identity of a model's weights, for caches of what was computed from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

import xxhash

from rlmerge.checkpoint.header import TensorInfo
from rlmerge.checkpoint.paths import unreadable

WHOLE = 64 * 2**20
BLOCK = 4096
SPACING = 16 * 2**20


def fingerprint(tensors: Mapping[str, TensorInfo]) -> str:
    """Hex xxh3-128 over each tensor's name, type, shape and sampled bytes, in order of names.

    Models of up to 64 MiB are hashed completely. Of larger ones each tensor gives at least four blocks of 4 KiB, evenly
    spaced from its first to its last byte and at most 16 MiB apart: two training runs of one base differ in far more
    places than that leaves out, but an edit confined to a few rows may go unseen. Independent of file names, sharding,
    paths and times.
    """
    whole = _is_whole(tensors)
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype.code, tensor.shape]).encode())
        try:
            with tensor.file.open("rb", buffering=0) as handle:
                for offset, length in _blocks(tensor, whole):
                    digest.update(os.pread(handle.fileno(), length, offset))
        except OSError as error:
            raise unreadable(tensor.file, error) from error
    return digest.hexdigest()


def edition(tensors: Mapping[str, TensorInfo], fingerprint: str) -> str:
    """The ``fingerprint``, and for models that it only samples the size and time of every file: no edit goes unseen.

    For what must never be wrong and may be lost when files are copied: caches, and the work of an interrupted run.
    """
    if _is_whole(tensors):
        return fingerprint
    stamps: list[tuple[int, int]] = []
    for file in sorted({tensor.file for tensor in tensors.values()}):
        try:
            status = file.stat()
        except OSError as error:
            raise unreadable(file, error) from error
        stamps.append((status.st_size, status.st_mtime_ns))
    return f"{fingerprint}-{xxhash.xxh3_64_hexdigest(json.dumps(stamps).encode())}"


def _is_whole(tensors: Mapping[str, TensorInfo]) -> bool:
    return sum(tensor.nbytes for tensor in tensors.values()) <= WHOLE


def _blocks(tensor: TensorInfo, whole: bool) -> Iterable[tuple[int, int]]:
    """(offset in the file, length) of the sampled blocks."""
    count = max(4, -(-tensor.nbytes // SPACING) + 1)
    if whole or tensor.nbytes <= count * BLOCK:
        return ((offset, min(SPACING, tensor.stop - offset)) for offset in range(tensor.start, tensor.stop, SPACING))
    last = tensor.nbytes - BLOCK
    return ((tensor.start + last * index // (count - 1), BLOCK) for index in range(count))

"""A cheap identity of a model's weights, for caches of what was computed from them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from typing import TYPE_CHECKING

import xxhash

from rlmerge.checkpoint.files import Stamp
from rlmerge.checkpoint.source import WHOLE, Source

if TYPE_CHECKING:
    from rlmerge.checkpoint.remote.store import ObjectStamp

_AT_A_TIME = 16
"""Remote tensors that are sampled side by side."""


def fingerprint(tensors: Mapping[str, Source]) -> str:
    """Hex xxh3-128 over each tensor's name, type, shape and fingerprint, in order of names.

    Models of up to 64 MiB are hashed completely. Of larger ones each tensor gives at least four blocks of 4 KiB, evenly
    spaced from its first to its last byte and at most 16 MiB apart: two training runs of one base differ in far more
    places than that leaves out, but an edit confined to a few rows may go unseen. Independent of file names, sharding,
    paths and times.
    """
    whole = _is_whole(tensors)
    digest = xxhash.xxh3_128()
    names = sorted(tensors)
    for name, found in zip(names, _fingerprints([tensors[name] for name in names], whole), strict=True):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype.code, tensor.shape]).encode())
        digest.update(found)
    return digest.hexdigest()


def same_weights(a: Mapping[str, Source], b: Mapping[str, Source]) -> bool:
    """Whether two models would have one ``fingerprint``; stops at the first tensor that differs."""
    if a.keys() != b.keys():
        return False
    whole = _is_whole(a)
    for name, tensor in a.items():
        other = b[name]
        if other.dtype is not tensor.dtype or other.shape != tensor.shape:
            return False
        if other.fingerprint(whole) != tensor.fingerprint(whole):
            return False
    return True


def _fingerprints(tensors: Sequence[Source], whole: bool) -> Iterator[bytes]:
    """Each tensor's own; remote ones side by side, because each takes several trips over the network."""
    if not any(file.is_remote for tensor in tensors for file in tensor.files):
        yield from (tensor.fingerprint(whole) for tensor in tensors)
        return
    with ThreadPoolExecutor(_AT_A_TIME, "rlmerge-fingerprint") as pool:
        yield from pool.map(lambda tensor: tensor.fingerprint(whole), tensors)


def edition(tensors: Mapping[str, Source], fingerprint: str) -> str:
    """The ``fingerprint``, and for models that it only samples the stamp of every file: no edit goes unseen.

    For what must never be wrong and may be lost when files are copied: caches, and the work of an interrupted run.
    """
    if _is_whole(tensors):
        return fingerprint
    files = sorted({file for tensor in tensors.values() for file in tensor.files}, key=str)
    stamps = json.dumps([_lasting(file.stamp) for file in files])
    return f"{fingerprint}-{xxhash.xxh3_64_hexdigest(stamps.encode())}"


def _lasting(stamp: Stamp | ObjectStamp) -> tuple[object, ...]:
    """A stamp without the number of its device, which one shared file system has another of on each machine."""
    return tuple(stamp._replace(device=0)) if isinstance(stamp, Stamp) else astuple(stamp)


def _is_whole(tensors: Mapping[str, Source]) -> bool:
    held = 0
    for tensor in tensors.values():
        held += tensor.nbytes
        if held > WHOLE:
            return False
    return True

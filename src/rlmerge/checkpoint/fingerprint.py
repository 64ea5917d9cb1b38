"""A cheap identity of a model's weights, for caches of what was computed from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple

import xxhash

from rlmerge.checkpoint.source import WHOLE, Source


def fingerprint(tensors: Mapping[str, Source]) -> str:
    """Hex xxh3-128 over each tensor's name, type, shape and fingerprint, in order of names.

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
        digest.update(tensor.fingerprint(whole))
    return digest.hexdigest()


def same_weights(a: Mapping[str, Source], b: Mapping[str, Source]) -> bool:
    """Whether two models would have one ``fingerprint``; stops to read at the first tensor that differs."""
    if a.keys() != b.keys() or any((x := b[name]).dtype is not t.dtype or x.shape != t.shape for name, t in a.items()):
        return False
    whole = _is_whole(a)
    return all(tensor.fingerprint(whole) == b[name].fingerprint(whole) for name, tensor in a.items())


def edition(tensors: Mapping[str, Source], fingerprint: str) -> str:
    """The ``fingerprint``, and for models that it only samples the stamp of every file: no edit goes unseen.

    For what must never be wrong and may be lost when files are copied: caches, and the work of an interrupted run.
    """
    if _is_whole(tensors):
        return fingerprint
    files = sorted({file for tensor in tensors.values() for file in tensor.files}, key=str)
    stamps = json.dumps([astuple(file.stamp) for file in files])
    return f"{fingerprint}-{xxhash.xxh3_64_hexdigest(stamps.encode())}"


def _is_whole(tensors: Mapping[str, Source]) -> bool:
    return sum(tensor.nbytes for tensor in tensors.values()) <= WHOLE

"""The header of a safetensors file, checked in full before any of it is believed.

Layout: 8 bytes little-endian header length n, n bytes of JSON, then the tensors' bytes back to back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.source import Extent
from rlmerge.errors import CheckpointError, did_you_mean
from rlmerge.kernels.dtypes import BY_CODE

MAX_HEADER = 100_000_000
"""Longest header read, in bytes; the format's own cap."""

_AGAIN = "The file is damaged or was written by a faulty tool; download or save it again."


@dataclass(frozen=True, slots=True)
class Header:
    """A file's tensors in the order in which their bytes lie, and the strings of its ``__metadata__``."""

    file: InputFile
    tensors: dict[str, Extent]
    metadata: dict[str, str]


def read_header(file: Path) -> Header:
    """The header of ``file``.

    CheckpointError if the file cannot be read, is truncated, or its header is longer than ``MAX_HEADER``, is not UTF-8
    JSON, has a key twice, names an unknown element type, or gives byte ranges that differ from the shapes, overlap,
    leave holes, or do not end where the file ends.
    """
    input = InputFile(file)
    raw, size = _read_raw(input), input.size
    where = str(file)
    if not raw.startswith(b"{"):
        raise CheckpointError("does not start with a safetensors header", where=where, hint=_AGAIN)
    content = strictjson.parse(raw, f"{where}: header")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("header: __metadata__ must map strings to strings", where=where, hint=_AGAIN)
    begin = 8 + len(raw)
    tensors = [_tensor(input, name, entry, begin) for name, entry in content.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _check_layout(tensors, where, begin, size)
    return Header(input, {tensor.name: tensor for tensor in tensors}, metadata)


def _read_raw(file: InputFile) -> bytes:
    """The JSON bytes of the header."""
    size = file.size
    head = file.copy(0, min(HEAD, size))
    refuse_disguise(head, str(file))
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > MAX_HEADER or 8 + length > size:
        raise CheckpointError(_wrong_length(size, length), where=str(file), hint=_AGAIN)
    return file.copy(8, 8 + length)


def _wrong_length(size: int, length: int) -> str:
    if size < 8:
        return f"is truncated: {size} bytes cannot hold a safetensors header"
    if length > MAX_HEADER:
        return f"claims a header of {length} bytes; at most {MAX_HEADER} are allowed"
    return f"is truncated: the header needs {8 + length} bytes, the file has {size}"


def _tensor(file: InputFile, name: str, entry: Any, begin: int) -> Extent:
    where = f"{file}: tensor {name!r}"
    if not name.isprintable():
        raise CheckpointError("the name holds control characters", where=where, hint=_AGAIN)
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError("must have exactly dtype, shape and data_offsets", where=where, hint=_AGAIN)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in BY_CODE:
        raise CheckpointError(f"unknown element type {code!r}", where=where, hint=did_you_mean(str(code), BY_CODE))
    if not _are_sizes(shape):
        raise CheckpointError("the shape must be a list of sizes of at least 0", where=where, hint=_AGAIN)
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError("data_offsets must be [start, stop] with 0 <= start <= stop", where=where, hint=_AGAIN)
    dtype = BY_CODE[code]
    needed = math.prod(shape) * dtype.itemsize
    if needed != offsets[1] - offsets[0]:
        what = f"{code} {shape} takes {needed} bytes, but its byte range holds {offsets[1] - offsets[0]}"
        raise CheckpointError(what, where=where, hint=_AGAIN)
    return Extent(name, dtype, tuple(shape), file, begin + offsets[0], begin + offsets[1])


def _are_sizes(values: Any) -> bool:
    # bool is a subclass of int, hence the exact type.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 63 for value in values)


def _check_layout(tensors: list[Extent], where: str, begin: int, size: int) -> None:
    """The tensors, sorted, must tile the bytes from ``begin`` to ``size``."""
    end, before = begin, "the header"
    for tensor in tensors:
        if tensor.start < end:
            what = f"tensor {tensor.name!r} overlaps {before} by {min(end, tensor.stop) - tensor.start} bytes"
            raise CheckpointError(what, where=where, hint=_AGAIN)
        if tensor.start > end:
            what = f"{tensor.start - end} bytes between {before} and tensor {tensor.name!r} belong to no tensor"
            raise CheckpointError(what, where=where, hint=_AGAIN)
        end, before = tensor.stop, f"tensor {tensor.name!r}"
    if end > size:
        what = f"is truncated: its tensors end at byte {end}, the file has {size}"
        raise CheckpointError(what, where=where, hint="Download or copy it again.")
    if end < size:
        raise CheckpointError(f"has {size - end} bytes after its last tensor", where=where, hint=_AGAIN)

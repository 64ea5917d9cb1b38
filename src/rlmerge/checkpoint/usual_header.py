"""Headers as all writers write them, read in one sweep; shards of models trained from one base often share theirs.

Nothing is refused here: of what is not plainly right comes None, and ``header`` finds out what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.alike import once
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_CODE, DType

Placed = tuple[str, DType, tuple[int, ...], int, int]
"""A tensor's name, type, shape, and its bytes [start, stop) in the file."""

LONGEST = 2**25
"""Bytes of the longest header that is read here."""

_BLANK = rb"[ \t\n\r]*+"
_SIZE = rb"(?:0|[1-9][0-9]{0,17}+)"
_SHAPE = rb"((?:%b(?:%b,%b%b){0,63}+)?+)" % (_SIZE, _BLANK, _BLANK, _SIZE)
_OFFSETS = (rb"\[", rb"(%b)" % _SIZE, b",", rb"(%b)" % _SIZE, rb"\]")
_ENTRY = re.compile(
    _BLANK
    + _BLANK.join(
        (
            *(rb'"([^"\\\x00-\x1f]{1,1024}+)"', b":", rb"\{"),
            *(b'"dtype"', b":", rb'"([A-Z0-9_]{1,16}+)"', b","),
            *(b'"shape"', b":", rb"\[", _SHAPE, rb"\]", b","),
            *(b'"data_offsets"', b":", *_OFFSETS),
            *(rb"\}", rb"([,}])"),
        )
    )
)
_METADATA = re.compile(_BLANK + _BLANK.join((b'"__metadata__"', b":", rb"(\{[^{}]{0,65536}\})", rb"([,}])")))
_END = re.compile(_BLANK + rb"\Z")


@frozen(slots=True, eq=False)
class Layout:
    """Tensors in the order in which their bytes lie, which tile the file from the header's end to ``size``."""

    tensors: tuple[Placed, ...]
    metadata: Mapping[str, str]
    size: int


def usual_layout(raw: bytes) -> Layout | None:
    """What the JSON bytes of a header say, where every entry is written as usual and nothing at all is wrong."""
    return once("header", raw, lambda: _read(raw)) if len(raw) <= LONGEST else None


def _read(raw: bytes) -> Layout | None:
    begin, position, more = 8 + len(raw), 1, True
    tensors: list[Placed] = []
    metadata: Mapping[str, str] | None = None
    types: dict[tuple[bytes, bytes], tuple[DType, tuple[int, ...], int]] = {}
    while more:
        entry = _ENTRY.match(raw, position)
        if entry is None:
            entry = _METADATA.match(raw, position)
            if entry is None or metadata is not None or (metadata := _strings(entry[1])) is None:
                return None
            position, more = entry.end(), entry[2] == b","
            continue
        name, code, shape, first, last, following = entry.groups()
        position, more = entry.end(), following == b","
        kind = types.get((code, shape))
        if kind is None:
            kind = types[code, shape] = _kind(code, shape)
        dtype, sizes, nbytes = kind
        start, stop = begin + int(first), begin + int(last)
        if nbytes != stop - start:
            return None
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        if not text.isprintable():
            return None
        tensors.append((text, dtype, sizes, start, stop))
    names = {tensor[0] for tensor in tensors}
    tensors.sort(key=lambda tensor: tensor[3:])
    end = begin
    for tensor in tensors:
        if tensor[3] != end:
            return None
        end = tensor[4]
    if not tensors or len(names) < len(tensors) or "__metadata__" in names or not _END.match(raw, position):
        return None
    return Layout(tuple(tensors), metadata or {}, end)


_NONE = next(iter(BY_CODE.values())), (), -1
"""Of no size that a byte range could have."""


def _kind(code: bytes, shape: bytes) -> tuple[DType, tuple[int, ...], int]:
    """Type, shape and bytes of tensors with this type and shape in JSON."""
    dtype = BY_CODE.get(code.decode())
    sizes = tuple(map(int, shape.split(b","))) if shape else ()
    if dtype is None or dtype.itemsize * prod(size or 1 for size in sizes) >= 1 << 63:
        return _NONE
    return dtype, sizes, dtype.itemsize * prod(sizes)


def _strings(value: bytes) -> Mapping[str, str] | None:
    """An object of strings, None of anything else."""
    try:
        found = strictjson.parse(value, "")
    except CheckpointError:
        return None
    return found if all(isinstance(text, str) for text in found.values()) else None

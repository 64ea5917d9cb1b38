"""The layout of ``delta.safetensors``: what an expert changed in its base, bit for bit.

Of a tensor of N elements that changed, the file holds ``bitmap/NAME`` (uint8, one bit an element in flat order, the
first in the lowest bit, padded with zeros to a multiple of 8 bytes), ``counts/NAME`` (uint32, how many changed in each
block of 65536 elements, which lets a reader begin anywhere) and ``values/NAME`` (the new values in flat order). Where
that would take more bytes than the tensor, or the base has none like it, ``dense/NAME`` holds all of it.

The metadata, all strings: ``rlmerge_delta`` (the version of this layout), ``base`` (the fingerprint of the base),
``base_model`` (its Hub id, where it has one) and ``tensors``: JSON of every tensor of the expert in order, by name
``[type code, shape, kind, changed elements, xxh3-64 of the base's bytes or null, xxh3-64 of the expert's bytes]``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.layout import OutputTensor
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_CODE, BY_NAME, DType

FILE = "delta.safetensors"
VERSION = "1"
BLOCK = 1 << 16
"""Elements of a block whose changes are counted."""

SAME, SPARSE, DENSE = "same", "sparse", "dense"

_UINT8, _UINT32 = BY_NAME["uint8"], BY_NAME["uint32"]
_AGAIN = "The delta is damaged; make or download it again."


@frozen
class Entry:
    """What a delta says of one tensor of the expert; ``base`` and ``result`` are hex xxh3-64 of all its bytes."""

    code: str
    shape: tuple[int, ...]
    kind: str
    changed: int
    base: str | None
    result: str

    @property
    def dtype(self) -> DType:
        return BY_CODE[self.code]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def parts(self, name: str) -> tuple[OutputTensor, ...]:
        """The tensors that hold it."""
        if self.kind == SAME:
            return ()
        if self.kind == DENSE:
            return (OutputTensor(f"{DENSE}/{name}", self.dtype, self.shape),)
        return (
            OutputTensor(f"bitmap/{name}", _UINT8, (-(-self.numel // 64) * 8,)),
            OutputTensor(f"counts/{name}", _UINT32, (-(-self.numel // BLOCK),)),
            OutputTensor(f"values/{name}", self.dtype, (self.changed,)),
        )


def smallest(dtype: DType, shape: tuple[int, ...], changed: int) -> str:
    """The kind that takes the fewest bytes."""
    if not changed:
        return SAME
    sparse = sum(part.nbytes for part in Entry(dtype.code, shape, SPARSE, changed, None, "").parts(""))
    return SPARSE if sparse < math.prod(shape) * dtype.itemsize else DENSE


@frozen
class Contents:
    """The metadata of a delta."""

    base: str
    base_model: str | None
    tensors: Mapping[str, Entry]

    def metadata(self) -> dict[str, str]:
        """As strings."""
        tensors = json.dumps({name: astuple(entry) for name, entry in self.tensors.items()}, separators=(",", ":"))
        named = {} if self.base_model is None else {"base_model": self.base_model}
        return {"rlmerge_delta": VERSION, "base": self.base, **named, "tensors": tensors}

    def parts(self) -> Iterator[OutputTensor]:
        """Every tensor of the file."""
        for name, entry in self.tensors.items():
            yield from entry.parts(name)


def read_contents(metadata: Mapping[str, str], where: str) -> Contents:
    """The metadata, checked; CheckpointError if it is not that of a delta, or of one in a later layout."""
    version = metadata.get("rlmerge_delta")
    if version != VERSION:
        what = f"has version {version!r} of the layout of deltas, not {VERSION!r}"
        raise CheckpointError(what, where=where, hint="Use the version of rlmerge that wrote it.")
    table = strictjson.parse(metadata.get("tensors", "").encode(), f"{where}: metadata")
    base = metadata.get("base", "")
    if not isinstance(table, dict) or not table or not base:
        raise CheckpointError("its metadata lacks the base or the tensors", where=where, hint=_AGAIN)
    entries = {name: _entry(found, f"{where}: {name}") for name, found in table.items()}
    return Contents(base, metadata.get("base_model"), entries)


def _entry(found: Any, where: str) -> Entry:
    try:
        code, shape, kind, changed, base, result = found
        entry = Entry(code, tuple(shape), kind, changed, base, result)
        sizes_hold = all(type(size) is int and 0 <= size < 1 << 48 for size in (*entry.shape, changed))
        kinds_hold = kind in (SAME, SPARSE, DENSE) and (kind == DENSE or base is not None)
        if sizes_hold and kinds_hold and changed <= entry.numel and code in BY_CODE and isinstance(result, str):
            return entry
    except (TypeError, ValueError):
        pass
    raise CheckpointError("its entry in the metadata is malformed", where=where, hint=_AGAIN)

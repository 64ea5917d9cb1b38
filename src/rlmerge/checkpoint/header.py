"""The header of a safetensors file, checked in full before any of it is believed.

Layout: 8 bytes little-endian header length n, n bytes of JSON, then the tensors' bytes back to back. The JSON is read
entry by entry: what a hostile file can make us hold is bounded by the constants here, not by what it nests.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.alike import keep, known_of
from rlmerge.checkpoint.disguise import HEAD, refuse_disguise
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.source import Extent
from rlmerge.checkpoint.usual_header import Layout, Placed, usual_layout
from rlmerge.errors import CheckpointError, did_you_mean
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_CODE
from rlmerge.text import quoted, shortened

MAX_HEADER = 100_000_000
"""Longest header read, in bytes; the format's own cap."""

MAX_TENSORS = 2**17
"""Most tensors in one file."""

MAX_RANK = 64
"""Most dimensions of a tensor; NumPy's own limit."""

MAX_NAME = 1024
"""Longest name of a tensor, in characters."""

_MAX_KEY = 12 * MAX_NAME
"""Bytes of a name in JSON; a pair of escaped surrogates takes twelve."""

_MAX_ENTRY = 2**16
_MAX_METADATA = 2**21
_MAX_SIZE = 1 << 63

_METADATA = "__metadata__"
_BLANK = rb"[ \t\n\r]*+"
_KEY = re.compile(_BLANK + rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"' + _BLANK + b":" + _BLANK, re.DOTALL)
_OBJECT = re.compile(rb'\{[^"{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}]*+)*+\}', re.DOTALL)
"""An object without objects in it, such as every value of a header is."""

_NULL = re.compile(b"null")
_NEXT = re.compile(_BLANK + rb"([,}])")
_END = re.compile(_BLANK + rb"\Z")

_FIELDS = {"dtype", "shape", "data_offsets"}
_NO_OBJECT = "must have exactly dtype, shape and data_offsets"
_AGAIN = "The file is damaged or was written by a faulty tool; download or save it again."


@frozen(eq=False)
class Header:
    """What a file says of its tensors, and the strings of its ``__metadata__``.

    Files opened together whose headers are the same bytes have the same ``layout``; without one they are ``listed``.
    """

    file: InputFile
    metadata: dict[str, str]
    layout: Layout | None = None
    listed: tuple[Extent, ...] = ()

    @cached_property
    def tensors(self) -> dict[str, Extent]:
        """The file's tensors in the order in which their bytes lie."""
        if self.layout is None:
            return {tensor.name: tensor for tensor in self.listed}
        return {name: Extent(name, dtype, shape, self.file, i, j) for name, dtype, shape, i, j in self.layout.tensors}


class LaidOut(Mapping[str, Extent]):
    """The tensors of files whose headers are known from another model; each is made when it is asked for."""

    def __init__(self, headers: Sequence[Header], layouts: tuple[Layout, ...]) -> None:
        self._files = [header.file for header in headers]
        self._made: dict[str, Extent] = {}
        places: dict[str, tuple[int, Placed]] | None = known_of("places", layouts)
        if places is None:
            places = {placed[0]: (k, placed) for k, layout in enumerate(layouts) for placed in layout.tensors}
            keep("places", layouts, places)
        self._places = places

    @cached_property
    def is_remote(self) -> bool:
        """Whether any of the files is."""
        return any(file.is_remote for file in self._files)

    def __getitem__(self, name: str) -> Extent:
        found = self._made.get(name)
        if found is None:
            file, (_, dtype, shape, start, stop) = self._places[name]
            found = self._made[name] = Extent(name, dtype, shape, self._files[file], start, stop)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_header(file: Path | InputFile) -> Header:
    """The header of ``file``, or of the remote one that a path stands for.

    CheckpointError if the file cannot be read, is truncated, or its header exceeds a limit above, is not UTF-8 JSON,
    has a key twice, names an unknown element type, has a shape of 2**63 bytes or more, or gives byte ranges that differ
    from the shapes, overlap, leave holes, or do not end where the file ends.
    """
    input = file if isinstance(file, InputFile) else open_input(file)
    raw = _read_raw(input)
    where = str(input)
    if not raw.startswith(b"{"):
        raise CheckpointError("does not start with a safetensors header", where=where, hint=_AGAIN)
    layout = usual_layout(raw)
    if layout is not None and layout.size == input.size and len(layout.tensors) <= MAX_TENSORS:
        return Header(input, dict(layout.metadata), layout)
    begin, metadata = 8 + len(raw), dict[str, str]()
    tensors: list[Extent] = []
    for name, value in _entries(raw, where):
        if name == _METADATA:
            metadata = _metadata(value, where)
        elif len(tensors) == MAX_TENSORS:
            raise CheckpointError(f"holds more than {MAX_TENSORS:,} tensors", where=where, hint="Save it in shards.")
        else:
            tensors.append(_tensor(input, name, value, begin))
    tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
    _check_layout(tensors, where, begin, input.size)
    return Header(input, metadata, listed=tuple(tensors))


def open_input(path: Path) -> InputFile:
    """The file at ``path``, or the remote one that it stands for; CheckpointError if there is none to be read."""
    return remote_file(path) or InputFile(path)


def remote_file(path: Path) -> InputFile | None:
    """The remote file that ``path`` stands for; None for one that is here."""
    remote = sys.modules.get("rlmerge.checkpoint.remote")
    return remote.opened_remotely(path) if remote else None


def check_name(name: str, where: str) -> None:
    """CheckpointError if ``name`` cannot be a tensor's: too long, or with characters that no terminal shows."""
    if len(name) > MAX_NAME:
        what = f"the name of tensor {quoted(name)} has {len(name):,} characters; at most {MAX_NAME:,} are allowed"
        raise CheckpointError(what, where=where, hint=_AGAIN)
    if not name.isprintable():
        what = f"the name of tensor {quoted(name)} holds control or other invisible characters"
        raise CheckpointError(what, where=where, hint=_AGAIN)


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


def _entries(raw: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    """Keys and JSON values of the header, which starts with a brace, in their order."""
    seen = set[str]()
    position = 1
    following = _NEXT.match(raw, position)
    more = not (following and following[1] == b"}")
    while more:
        key = _KEY.match(raw, position)
        if key is None:
            raise _malformed(where, position, "a key")
        if (length := key.end(1) - key.start(1)) > _MAX_KEY:
            raise CheckpointError(f"header: a name takes {length:,} bytes", where=where, hint=_AGAIN)
        name = _string(key[1], where)
        if name in seen:
            raise CheckpointError(f"header: the key {quoted(name)} appears twice", where=where, hint=_AGAIN)
        seen.add(name)
        value = _OBJECT.match(raw, key.end())
        limit = _MAX_METADATA if name == _METADATA else _MAX_ENTRY
        if value is None:
            value = _NULL.match(raw, key.end())
        if value is None:
            raise _no_object(name, where)
        stop = value.end()
        if stop - key.end() > limit:
            what = f"header: what it says of {quoted(name)} is {stop - key.end():,} bytes long; {limit:,} are allowed"
            raise CheckpointError(what, where=where, hint=_AGAIN)
        yield name, raw[key.end() : stop]
        following = _NEXT.match(raw, stop)
        if following is None:
            raise _malformed(where, stop, "a comma or a brace")
        position, more = following.end(), following[1] == b","
    if not _END.match(raw, following.end() if following else 1):
        raise _malformed(where, position, "nothing more")


def _malformed(where: str, position: int, expected: str) -> CheckpointError:
    what = f"header: is not valid JSON of tensors (byte {position}: expected {expected})"
    return CheckpointError(what, where=where, hint=_AGAIN)


def _string(octets: bytes, where: str) -> str:
    """The string whose JSON is ``octets`` between quotation marks."""
    if b"\\" in octets or len(octets) != len(octets.translate(None, _CONTROLS)):
        return strictjson.parse(b'"' + octets + b'"', f"{where}: header")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise CheckpointError("header: is not UTF-8 text", where=where, hint=_AGAIN) from None


_CONTROLS = bytes(range(32))


def _metadata(value: bytes, where: str) -> dict[str, str]:
    found = strictjson.parse(value, f"{where}: header")
    if found is not None and not all(isinstance(text, str) for text in found.values()):
        raise _no_object(_METADATA, where)
    return found or {}


def _no_object(name: str, where: str) -> CheckpointError:
    if name == _METADATA:
        return CheckpointError("header: __metadata__ must map strings to strings", where=where, hint=_AGAIN)
    return CheckpointError(_NO_OBJECT, where=f"{where}: tensor {quoted(name)}", hint=_AGAIN)


def _tensor(file: InputFile, name: str, value: bytes, begin: int) -> Extent:
    try:
        check_name(name, str(file))
        return _extent(file, name, strictjson.parse(value, ""), value, begin)
    except CheckpointError as error:
        # Made here alone, because a header may name a hundred thousand tensors.
        where = error.where or f"{file}: tensor {quoted(name)}"
        raise CheckpointError(error.what, where=where, hint=error.hint) from None


def _extent(file: InputFile, name: str, entry: Any, value: bytes, begin: int) -> Extent:
    """The tensor that ``entry`` describes, whose JSON is ``value``."""
    if entry is None or entry.keys() != _FIELDS:
        raise CheckpointError(_NO_OBJECT, hint=_AGAIN)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in BY_CODE:
        raise CheckpointError(f"unknown element type {quoted(code)}", hint=did_you_mean(str(code), BY_CODE))
    if not _are_sizes(shape):
        raise CheckpointError("the shape must be a list of sizes of at least 0", hint=_AGAIN)
    if len(shape) > MAX_RANK:
        raise CheckpointError(f"has {len(shape):,} dimensions; at most {MAX_RANK} are allowed", hint=_AGAIN)
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError("data_offsets must be [start, stop] with 0 <= start <= stop", hint=_AGAIN)
    if b"-" in value:
        raise CheckpointError("sizes and offsets must be written without a sign", hint=_AGAIN)
    dtype = BY_CODE[code]
    needed, held = _nbytes(shape, dtype.itemsize), offsets[1] - offsets[0]
    if needed != held:
        takes = "2**63 bytes or more" if needed is None else f"{needed} bytes"
        what = f"{code} {shortened(shape)} takes {takes}, but its byte range holds {held}"
        raise CheckpointError(what, hint=_AGAIN)
    return Extent(name, dtype, tuple(shape), file, begin + offsets[0], begin + offsets[1])


def _are_sizes(values: Any) -> bool:
    # bool is a subclass of int, hence the exact type.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _MAX_SIZE for value in values)


def _nbytes(shape: list[int], itemsize: int) -> int | None:
    """Bytes of a tensor; None where those of its non-empty dimensions do not fit into 63 bits, whatever the others."""
    total = itemsize
    for size in shape:
        total *= size or 1
        if total >= _MAX_SIZE:
            return None
    return 0 if 0 in shape else total


def _check_layout(tensors: list[Extent], where: str, begin: int, size: int) -> None:
    """The tensors, sorted, must tile the bytes from ``begin`` to ``size``."""
    end, before = begin, "the header"
    for tensor in tensors:
        if tensor.start != end:
            what = (
                f"tensor {quoted(tensor.name)} overlaps {before} by {min(end, tensor.stop) - tensor.start} bytes"
                if tensor.start < end
                else f"{tensor.start - end} bytes between {before} and tensor {quoted(tensor.name)} belong to no tensor"
            )
            raise CheckpointError(what, where=where, hint=_AGAIN)
        end, before = tensor.stop, f"tensor {quoted(tensor.name)}"
    if end > size:
        what = f"is truncated: its tensors end at byte {end}, the file has {size}"
        raise CheckpointError(what, where=where, hint="Download or copy it again.")
    if end < size:
        raise CheckpointError(f"has {size - end} bytes after its last tensor", where=where, hint=_AGAIN)

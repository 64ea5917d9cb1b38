"""Sparse weight deltas of grail (PULSE): ``checkpoint-30/DELTA/`` with one zstd frame for all tensors.

The frame holds a length, a JSON header, and for each changed tensor gaps of rows, gaps of columns and new values
(layouts 3 and 3.1), or gaps of flat positions and new values (layout 2). ``metadata.json`` names the window before and
an xxh3-128 of all weights in order of their names.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.delta_chain import Cursor, Patch, Patches, Places, Version, linked, patched
from rlmerge.checkpoint.formats.delta_zstd import Check, Spool, Stream, frame_window
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Extent, Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

NAME = "a sparse weight delta of grail"
_PAYLOAD, _METADATA = "delta_sparse.bin.zst", "metadata.json"
_FOLDER = re.compile(r"checkpoint-\d+")
_FLAT, _LAYOUTS = 2, (2, 3, 31)
_GAPS = {"uint8": "u1", "uint16": "<u2", "int32": "<i4"}
_VALUES = ("bfloat16", "float16", "float32")
_PIECE = 1 << 20
_AGAIN = "It is damaged; publish or download it again."


class _Payload:
    """The decompressed frame of one version, in a scratch file once something of it is needed."""

    def __init__(self, source: Source, size: int, digest: str | None) -> None:
        self.source = source
        self._size = size
        self._digest = digest
        self._lock = threading.Lock()
        self._content: np.ndarray | None = None

    def read(self, first: int, last: int) -> np.ndarray:
        """The bytes [first, last) after decompression; CheckpointError if the frame is damaged."""
        with self._lock:
            if self._content is None:
                self._check()
                self._content = self._decompress()
            return self._content[first:last]

    def _check(self) -> None:
        if self._digest is None:
            return
        found = hashlib.sha256()
        for start in range(0, self.source.numel, _PIECE):
            found.update(self.source.read(start, min(self.source.numel, start + _PIECE)).data)
        if found.hexdigest() != self._digest:
            what = f"does not have the SHA-256 that {_METADATA} states"
            raise CheckpointError(what, where=self.source.where, hint=_AGAIN)

    def _decompress(self) -> np.ndarray:
        stream, spool = Stream(self.source), Spool(self._size)
        for start in range(0, self._size, _PIECE):
            spool.write(stream.read(min(self._size - start, _PIECE)))
        stream.finish()
        return spool.array()


@frozen
class _Gaps(Patch):
    """Gaps between the places of changes, and new values, in a payload."""

    payload: _Payload
    dtype: str
    shape: tuple[int, ...]
    count: int
    rows: tuple[int, str] | None
    columns: tuple[int, str]
    values: int

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.payload.source,)

    @property
    def memory(self) -> int:
        return super().memory + _PIECE + frame_window(self.payload.source)

    @property
    def settings(self) -> tuple[object, ...]:
        return (self.dtype, self.shape, self.count, self.rows, self.columns, self.values)

    def begin(self, base: Source) -> Cursor:
        if (base.dtype.name, base.shape) != (self.dtype, self.shape):
            what = (
                f"changes a tensor {self.dtype} {list(self.shape)}; the base has {base.dtype.name} {list(base.shape)}"
            )
            raise CheckpointError(what, where=self.where, hint="Name the model that the training began with.")
        return _Reader(self, base).places()


class _Reader:
    """Adds gaps up, a piece at a time."""

    def __init__(self, gaps: _Gaps, base: Source) -> None:
        self._gaps = gaps
        self._base = base
        self._width = max(1, base.numel // base.shape[0]) if base.shape and base.shape[0] else 1
        self._taken = [0, 0, 0]
        self._row = self._column = 0
        self._begun = False

    def places(self) -> Places:
        size = self._base.dtype.itemsize
        return Places(self._gaps.count, size, self._base.numel, self._positions, self._values, self._gaps.where)

    def _positions(self, n: int) -> np.ndarray:
        columns = self._next(1, *self._gaps.columns, n)
        if self._gaps.rows is None:
            flat = self._column + np.cumsum(columns)
            self._column = int(flat[-1])
            return flat
        gaps = self._next(0, *self._gaps.rows, n)
        rows = self._row + np.cumsum(gaps)
        # A new row begins where the gap is not zero, and at the first change of all; there the column counts from 0.
        fresh = gaps != 0
        fresh[0] |= not self._begun
        total = self._column + np.cumsum(columns)
        before = total - columns
        begins = np.maximum.accumulate(np.where(fresh, np.arange(n), -1))
        column = total - np.where(begins >= 0, before[np.maximum(begins, 0)], 0)
        self._begun, self._row, self._column = True, int(rows[-1]), int(column[-1])
        if (column < 0).any() or (column >= self._width).any():
            raise CheckpointError("names a column outside of its tensor", where=self._gaps.where, hint=_AGAIN)
        return rows * self._width + column

    def _values(self, n: int) -> np.ndarray:
        size = self._base.dtype.itemsize
        first = self._gaps.values + self._taken[2]
        self._taken[2] += n * size
        return self._gaps.payload.read(first, first + n * size)

    def _next(self, kind: int, offset: int, dtype: str, n: int) -> np.ndarray:
        size = np.dtype(dtype).itemsize
        first = offset + self._taken[kind]
        self._taken[kind] += n * size
        return self._gaps.payload.read(first, first + n * size).copy().view(dtype).astype(np.int64)


def weights_hash(root: Path) -> Check | None:
    """What a digest of all weights in order of their names must be after the newest version in ``root``, if stated."""
    chain = _chain(root, entries(root))
    stated = _read(chain[-1].root, _METADATA).get("weights_hash")
    return Check("xxh3-128", stated) if isinstance(stated, str) else None


def recognises(root: Path, names: Sequence[str]) -> bool:
    """Whether a directory is a version, or holds some."""
    return _PAYLOAD in names or _is_version(root) or any(_is_version(root / x) for x in names if _FOLDER.fullmatch(x))


def _is_version(root: Path) -> bool:
    return (root / "DELTA" / _PAYLOAD).is_file()


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    assert base is not None
    changes = [(version.number, _patches(version.root)) for version in _chain(root, names)]
    warning = (
        f"{root}: its checksum is one of all weights, which only `rlmerge delta verify` compares; "
        f"until then nothing says that {base.reference} is the right base"
    )
    return Opened(NAME, patched(base, changes), (warning,), side_root=base.side_root, config=base.config)


def _chain(root: Path, names: Sequence[str]) -> list[Version]:
    """The versions from the base to the one that ``root`` is, or to the newest that it holds."""
    single = root if _PAYLOAD in names else root / "DELTA" if _is_version(root) else None
    folder = root if single is None else single.parent.parent
    inner = [name for name in entries(folder) if _FOLDER.fullmatch(name)]
    found = [_version(inside(folder, name).resolve() / "DELTA") for name in inner if _is_version(folder / name)]
    versions = {version.number: version for version in found}
    last = max(versions.values(), key=lambda version: version.number) if single is None else _version(single.resolve())
    full = {int(name.removeprefix("checkpoint-")) for name in inner if (folder / name / "FULL").is_dir()}
    return linked({**versions, last.number: last}, last.number, full)


def _version(root: Path) -> Version:
    content = _read(root, _METADATA)
    number, changes = content.get("window"), content.get("prev_window")
    if type(number) is not int or type(changes) is not int:
        raise CheckpointError("must name window and prev_window", where=str(root / _METADATA), hint=_AGAIN)
    return Version(number, changes, root)


def _read(root: Path, name: str) -> Mapping[str, Any]:
    path = inside(root, name)
    content = strictjson.parse(read_bytes(path, MAX_HEADER), str(path))
    if not isinstance(content, dict):
        raise CheckpointError("must hold a JSON object", where=str(path), hint=_AGAIN)
    return content


def _patches(root: Path) -> Patches:
    file = InputFile(inside(root, _PAYLOAD))
    source = Extent(_PAYLOAD, BY_NAME["uint8"], (file.size,), file, 0, file.size)
    stream = Stream(source)
    length = int(stream.read(4).view("<u4")[0])
    if length > MAX_HEADER:
        raise CheckpointError(f"claims a header of {length} bytes", where=str(file), hint=_AGAIN)
    header = strictjson.parse(stream.read(length).tobytes(), f"{file}: header")
    layout = header.get("version") if isinstance(header, dict) else None
    if layout not in _LAYOUTS or not isinstance(header.get("tensors"), list):
        hint = f"Read are layouts {', '.join(map(str, _LAYOUTS))}."
        raise CheckpointError(f"has layout {layout!r}", where=str(file), hint=hint)
    records = [_record(record, layout, f"{file}: header") for record in header["tensors"]]
    begin = 4 + length
    stated = _read(root, _METADATA).get("file_manifest")
    digest = stated.get(_PAYLOAD) if isinstance(stated, dict) else None
    size = begin + max((end for *_, end in records), default=0)
    payload = _Payload(source, size, digest if isinstance(digest, str) else None)
    found: dict[str, tuple[Patch, Check | None]] = {}
    for name, dtype, shape, count, rows, columns, values, _ in records:
        moved = None if rows is None else (begin + rows[0], rows[1])
        patch = _Gaps(payload, dtype, shape, count, moved, (begin + columns[0], columns[1]), begin + values)
        found[name] = patch, None
    return found


_Record = tuple[str, str, tuple[int, ...], int, tuple[int, str] | None, tuple[int, str], int, int]


def _record(record: Any, layout: int, where: str) -> _Record:
    """(name, type, shape, changes, place and type of row gaps, of column gaps, place of values, end), all checked."""
    fields = record if isinstance(record, dict) else {}
    name, dtype, shape = fields.get("name"), fields.get("value_dtype"), fields.get("shape")
    numbers = [fields.get(x) for x in ("num_nonzero", "indices_offset", "indices_size", "values_offset", "values_size")]
    sizes = [number for number in numbers if type(number) is int and 0 <= number < 1 << 48]
    row, column = (_GAPS.get(str(fields.get(x, "int32")), "") for x in ("row_dtype", "col_dtype"))
    if isinstance(name, str) and dtype in _VALUES and isinstance(shape, list) and len(sizes) == 5 and row and column:
        count, indices, indices_size, values, values_size = sizes
        row_size = 0 if layout == _FLAT else count * np.dtype(row).itemsize
        whole = row_size + count * np.dtype(column).itemsize
        if indices_size == whole and values_size == count * BY_NAME[dtype].itemsize and values >= indices + whole:
            rows = None if layout == _FLAT else (indices, row)
            columns = indices + row_size, column
            return name, dtype, tuple(shape), count, rows, columns, values, values + values_size
    raise CheckpointError(f"its record of tensor {name!r} is malformed", where=where, hint=_AGAIN)


FORMATS = (Format(NAME, recognises, _open, needs_base=True),)

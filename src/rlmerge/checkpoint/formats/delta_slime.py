"""Weight deltas that slime and miles publish: ``weight_v000001/`` with an index that says how to read it.

Each changed tensor is a zstd frame, either of its bytes exclusive-ored with the version before, or of (count, byte
positions, new bytes). The files' metadata give a digest of every tensor's new bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import INDEX, entries
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.delta_chain import (
    Cursor,
    Patch,
    Patches,
    Places,
    Version,
    XorPatch,
    linked,
    patched,
)
from rlmerge.checkpoint.formats.delta_zstd import Check, Stream, check_of, frame_window
from rlmerge.checkpoint.header import MAX_HEADER, Header, read_header
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

NAME = "a slime weight delta"
_FOLDER = re.compile(r"weight_v\d+")
_ZSTD = b"\x28\xb5\x2f\xfd"
_AGAIN = "It is damaged; publish or download it again."


@frozen
class OverwritePatch(Patch):
    """A count, byte positions (4 bytes each) and new bytes, compressed."""

    payload: Source

    @property
    def parts(self) -> tuple[Source, ...]:
        return (self.payload,)

    @property
    def memory(self) -> int:
        return super().memory + 2 * frame_window(self.payload)

    def begin(self, base: Source) -> Cursor:
        size = base.numel * base.dtype.itemsize
        if size > 1 << 32:
            what = f"overwrites bytes of a tensor of {size:,}, of which 4-byte positions reach the first 4 GiB alone"
            raise CheckpointError(what, where=self.where, hint="Publish with the xor encoding.")
        places, values = Stream(self.payload), Stream(self.payload)
        count = int(places.read(4).view("<u4")[0])
        if count > size:
            raise CheckpointError(f"overwrites {count} bytes of {size}", where=self.where, hint=_AGAIN)
        values.skip(4 + 4 * count)

        def positions(n: int) -> np.ndarray:
            return places.read(4 * n).view("<u4").astype(np.int64)

        return Places(count, 1, size, positions, values.read, self.where, values.finish)


def is_delta(root: Path, names: Sequence[str]) -> bool:
    """Whether a directory's index says that it holds a delta."""
    return INDEX in names and b'"delta_encoding"' in read_bytes(inside(root, INDEX), MAX_HEADER)


def refuse_payload(tensors: Mapping[str, Source], root: Path) -> None:
    """CheckpointError if all tensors are zstd frames: the payload of a delta without the index that would say so."""
    vectors = [x for x in tensors.values() if x.dtype is BY_NAME["uint8"] and len(x.shape) == 1 and x.numel > 4]
    if len(vectors) == len(tensors) and all(x.read(0, 4).tobytes() == _ZSTD for x in vectors):
        what = f"holds compressed bytes, not weights: the payload of a sparse delta without its {INDEX}"
        hint = "Bring the index back from where the delta was published; without it the encoding is unknown."
        raise CheckpointError(what, where=str(root), hint=hint)


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return is_delta(root, names) or any(_FOLDER.fullmatch(x) and (root / x / INDEX).is_file() for x in names)


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    assert base is not None
    single = is_delta(root, names)
    deltas, full = _versions(root.parent if single else root)
    last = _version(root) if single else max(deltas.values(), key=lambda version: version.number, default=None)
    if last is None:
        hint = f"Name one of them, such as '{root / max(full.values())}', as a model."
        raise CheckpointError("holds full versions only, no delta", where=str(root), hint=hint)
    chain = linked({**deltas, last.number: last}, last.number, full)
    changes = [(version.number, _patches(version.root)) for version in chain]
    return Opened(NAME, patched(base, changes), side_root=base.side_root, config=base.config)


def _versions(folder: Path) -> tuple[dict[int, Version], dict[int, str]]:
    """The deltas in a directory by number, and the names of full versions among them."""
    deltas: dict[int, Version] = {}
    full: dict[int, str] = {}
    for name in entries(folder):
        if _FOLDER.fullmatch(name) and (folder / name / INDEX).is_file():
            root = inside(folder, name).resolve()
            if is_delta(root, [INDEX]):
                version = _version(root)
                deltas[version.number] = version
            else:
                full[int(name.removeprefix("weight_v"))] = name
    return deltas, full


def _version(root: Path) -> Version:
    metadata, _ = _index(root)
    return Version(_number(metadata, "version", root), _number(metadata, "base_version", root), root)


def _index(root: Path) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    path = inside(root, INDEX)
    content = strictjson.parse(read_bytes(path, MAX_HEADER), str(path))
    metadata, placed = (content.get(x) if isinstance(content, dict) else None for x in ("metadata", "weight_map"))
    if (
        not isinstance(metadata, dict)
        or not isinstance(placed, dict)
        or any(type(x) is not str for x in placed.values())
    ):
        raise CheckpointError("must hold metadata, and a weight_map of file names", where=str(path), hint=_AGAIN)
    return metadata, placed


def _number(metadata: Mapping[str, Any], key: str, root: Path) -> int:
    found = metadata.get(key)
    if isinstance(found, str | int) and not isinstance(found, bool) and str(found).isdecimal():
        return int(found)
    raise CheckpointError(f"{key} must be a number, not {found!r}", where=str(root / INDEX), hint=_AGAIN)


def _patches(root: Path) -> Patches:
    metadata, placed = _index(root)
    where = str(root / INDEX)
    kinds: dict[Any, type[XorPatch | OverwritePatch]] = {"xor": XorPatch, "overwrite": OverwritePatch}
    encoding, compression = metadata.get("delta_encoding"), metadata.get("compression_format")
    if encoding not in kinds or compression != "zstd":
        what = f"is encoded as {encoding!r} and compressed as {compression!r}"
        raise CheckpointError(what, where=where, hint="Read are xor and overwrite, compressed with zstd.")
    headers: dict[str, Header] = {}
    found: dict[str, tuple[Patch, Check | None]] = {}
    for name, file in placed.items():
        if file not in headers:
            headers[file] = read_header(inside(root, file, named_by=where))
        payload = headers[file].tensors.get(name)
        if payload is None or payload.dtype is not BY_NAME["uint8"] or len(payload.shape) != 1:
            what = f"lacks the compressed bytes of tensor {name!r}, which {INDEX} places there"
            raise CheckpointError(what, where=str(root / file), hint=_AGAIN)
        check = check_of(metadata.get("checksum_format"), headers[file].metadata.get(name), payload.where)
        found[name] = kinds[encoding](payload), check
    return found


FORMATS = (Format(NAME, _recognises, _open, needs_base=True),)

"""Weight deltas that SkyRL publishes: ``delta-00000001/`` with a manifest and zstd frames of exclusive-ored bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.directory import entries
from rlmerge.checkpoint.formats import Format, Opened
from rlmerge.checkpoint.formats.delta_chain import Cursor, Patch, Patches, Version, XorPatch, linked, patched
from rlmerge.checkpoint.formats.delta_zstd import Check, check_of
from rlmerge.checkpoint.header import MAX_HEADER, Header, read_header
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.checkpoint.source import Source
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.kernels.dtypes import BY_NAME

if TYPE_CHECKING:
    from rlmerge.checkpoint.model import Checkpoint

NAME = "a SkyRL weight delta"
_MANIFEST = "manifest.json"
_FOLDER = re.compile(r"delta-\d+")
_PAYLOAD = re.compile(r"delta-rank\d+-.*\.safetensors")
_AGAIN = "It is damaged; publish or download it again."


@frozen
class _Record(XorPatch):
    """A frame with the type and shape of its tensor."""

    payload: Source
    dtype: str
    shape: tuple[int, ...]

    def begin(self, base: Source) -> Cursor:
        if (base.dtype.name, base.shape) != (self.dtype, self.shape):
            what = (
                f"changes a tensor {self.dtype} {list(self.shape)}; the base has {base.dtype.name} {list(base.shape)}"
            )
            raise CheckpointError(what, where=self.where, hint="Name the model that the training began with.")
        return super().begin(base)


def _folder(root: Path, names: Sequence[str]) -> Path | None:
    """The directory that holds versions, if ``root`` is one or has one in ``deltas``."""
    for place in (root, *([root / "deltas"] if "deltas" in names else [])):
        inner = names if place == root else _names(place)
        if any(_FOLDER.fullmatch(name) and (place / name / _MANIFEST).is_file() for name in inner):
            return place
    return None


def _names(folder: Path) -> list[str]:
    return entries(folder) if folder.is_dir() else []


def _is_version(names: Sequence[str]) -> bool:
    return _MANIFEST in names and any(_PAYLOAD.fullmatch(name) for name in names)


def _recognises(root: Path, names: Sequence[str]) -> bool:
    return _is_version(names) or _folder(root, names) is not None


def _open(root: Path, names: Sequence[str], base: Checkpoint | None) -> Opened:
    assert base is not None
    single = _is_version(names)
    found = {version.number: version for version in _versions(root.parent if single else _folder(root, names) or root)}
    last = _version(root) if single else max(found.values(), key=lambda version: version.number)
    chain = linked({**found, last.number: last}, last.number)
    changes = [(version.number, _patches(version.root)) for version in chain]
    return Opened(NAME, patched(base, changes), side_root=base.side_root, config=base.config)


def _versions(folder: Path) -> list[Version]:
    folder = folder.resolve()
    names = [name for name in entries(folder) if _FOLDER.fullmatch(name) and (folder / name / _MANIFEST).is_file()]
    return [_version(inside(folder, name).resolve()) for name in names]


def _version(root: Path) -> Version:
    content = _manifest(root)
    number, changes = content.get("version"), content.get("base_version")
    if type(number) is not int or type(changes) is not int:
        raise CheckpointError("must name version and base_version", where=str(root / _MANIFEST), hint=_AGAIN)
    return Version(number, changes, root)


def _manifest(root: Path) -> Mapping[str, Any]:
    path = inside(root, _MANIFEST)
    content = strictjson.parse(read_bytes(path, MAX_HEADER), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("tensors"), list):
        raise CheckpointError("must hold an object with a list of tensors", where=str(path), hint=_AGAIN)
    return content


def _patches(root: Path) -> Patches:
    where = str(root / _MANIFEST)
    headers: dict[str, Header] = {}
    found: dict[str, tuple[Patch, Check | None]] = {}
    for record in _manifest(root)["tensors"]:
        fields = record if isinstance(record, dict) else {}
        name, file, key, dtype, shape = (
            fields.get(x) for x in ("name", "payload_file", "payload_key", "dtype", "shape")
        )
        texts = [text for text in (name, file, key, dtype) if isinstance(text, str)]
        if len(texts) < 4 or not isinstance(shape, list) or name in found:
            raise CheckpointError(f"its record of tensor {name!r} is malformed", where=where, hint=_AGAIN)
        name, file, key, dtype = texts
        if file not in headers:
            headers[file] = read_header(inside(root, file, named_by=where))
        payload = headers[file].tensors.get(key)
        if payload is None or payload.dtype is not BY_NAME["uint8"] or len(payload.shape) != 1:
            what = f"lacks the compressed bytes {key!r}, which {_MANIFEST} places there"
            raise CheckpointError(what, where=str(root / file), hint=_AGAIN)
        # Earlier versions of SkyRL call it by its algorithm.
        digest = fields.get("checksum", fields.get("sha256"))
        algorithm = fields.get("checksum_algorithm", "xxh3-128" if "checksum" in fields else "sha256")
        found[name] = _Record(payload, dtype, tuple(shape)), check_of(algorithm, digest, payload.where)
    return found


FORMATS = (Format(NAME, _recognises, _open, needs_base=True),)

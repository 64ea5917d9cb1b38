"""MANIFEST.json: the SHA-256 of every file of an output directory and the xxh3-64 of every tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.paths import inside, read_bytes
from rlmerge.errors import CheckpointError

NAME = "MANIFEST.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file's hex SHA-256 and its length."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor's file, safetensors type code, shape, and the hex xxh3-64 of its bytes."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    xxh3: str


@dataclass(frozen=True)
class Manifest:
    """What an output directory holds, besides the manifest itself; ``rlmerge`` is the version that wrote it."""

    rlmerge: str
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, TensorRecord]

    def to_json(self) -> bytes:
        """The file's content: one line per file and tensor, sorted by name, the same bytes for the same manifest."""
        sections = ",\n".join(
            f"{json.dumps(section)}: {{\n" + ",\n".join(_line(name, records[name]) for name in sorted(records)) + "\n}"
            for section, records in (("files", self.files), ("tensors", self.tensors))
        )
        head = f'"format_version": {FORMAT_VERSION},\n"rlmerge": {json.dumps(self.rlmerge)}'
        return f"{{\n{head},\n{sections}\n}}\n".encode()


def _line(name: str, record: FileRecord | TensorRecord) -> str:
    return f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(asdict(record))}"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an output directory; CheckpointError if there is none or it is not one."""
    path = inside(directory.resolve(), NAME)
    if not path.exists():
        hint = "Only directories written by rlmerge have one; check the path."
        raise CheckpointError(f"has no {NAME}", where=str(directory), hint=hint)
    content = strictjson.parse(read_bytes(path, 4 * MAX_HEADER), str(path))
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        hint = "Use the version of rlmerge that wrote it."
        raise CheckpointError(f"has format version {version!r}, not {FORMAT_VERSION}", where=str(path), hint=hint)
    try:
        files = {name: _file_record(**record) for name, record in content["files"].items()}
        tensors = {name: _tensor_record(**record) for name, record in content["tensors"].items()}
        return Manifest(content["rlmerge"], files, tensors)
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"is not a manifest ({error})", where=str(path), hint="Restore the original.") from None


def _file_record(*, sha256: Any, bytes: Any) -> FileRecord:
    if not isinstance(sha256, str) or not isinstance(bytes, int):
        raise TypeError("a file needs sha256, a string, and bytes, a number")
    return FileRecord(sha256, bytes)


def _tensor_record(*, file: Any, dtype: Any, shape: Any, xxh3: Any) -> TensorRecord:
    if not all(isinstance(text, str) for text in (file, dtype, xxh3)):
        raise TypeError("a tensor needs file, dtype and xxh3, all strings")
    return TensorRecord(file, dtype, tuple(shape), xxh3)

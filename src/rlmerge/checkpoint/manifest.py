"""MANIFEST.json: a digest of every file of an output directory and the xxh3-64 of every tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlmerge.checkpoint import strictjson
from rlmerge.checkpoint.hashing import BLAKE3, SHA256
from rlmerge.checkpoint.header import MAX_HEADER
from rlmerge.checkpoint.paths import inside, read_bytes, unreadable
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.text import quoted

NAME = "MANIFEST.json"

VERSIONS = {1: SHA256, 2: BLAKE3}
"""Format versions, and the digest of files in each."""

_MAX_BYTES = 1 << 63


@frozen(slots=True)
class FileRecord:
    """A file's hex digest, by the manifest's algorithm, and its length."""

    digest: str
    bytes: int


@frozen(slots=True)
class TensorRecord:
    """A tensor's file, safetensors type code, shape, and the hex xxh3-64 of its bytes."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    xxh3: str


@frozen
class Manifest:
    """What an output directory holds, besides the manifest itself; ``rlmerge`` is the version that wrote it."""

    rlmerge: str
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, TensorRecord]
    algorithm: str = BLAKE3

    def to_json(self) -> bytes:
        """The file's content: one line per file and tensor, sorted by name, the same bytes for the same manifest."""
        version = next(version for version, algorithm in VERSIONS.items() if algorithm == self.algorithm)
        files = {name: {self.algorithm: file.digest, "bytes": file.bytes} for name, file in self.files.items()}
        tensors = {
            name: {"file": tensor.file, "dtype": tensor.dtype, "shape": tensor.shape, "xxh3": tensor.xxh3}
            for name, tensor in self.tensors.items()
        }
        sections = ",\n".join(
            f"{json.dumps(section)}: {{\n" + ",\n".join(_line(name, records[name]) for name in sorted(records)) + "\n}"
            for section, records in (("files", files), ("tensors", tensors))
        )
        head = f'"format_version": {version},\n"rlmerge": {json.dumps(self.rlmerge)}'
        return f"{{\n{head},\n{sections}\n}}\n".encode()


def _line(name: str, record: Mapping[str, Any]) -> str:
    return f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(record)}"


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an output directory, also of an older format; CheckpointError if there is none or it is not one.

    The names in it may be anything; whoever opens a file of that name asks ``paths.inside``.
    """
    try:
        path = inside(Path(os.path.realpath(directory)), NAME)
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        hint = "Only directories written by rlmerge have one; check the path."
        raise CheckpointError(f"has no {NAME}", where=str(directory), hint=hint) from None
    except OSError as error:
        raise unreadable(directory / NAME, error) from error
    return parse_manifest(read_bytes(path, MAX_HEADER), str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in ``data``, read from ``where``; CheckpointError if it is none."""
    content = strictjson.parse(data, where)
    version = content.get("format_version") if isinstance(content, dict) else None
    if type(version) is not int or version not in VERSIONS:
        hint = "Use the version of rlmerge that wrote it."
        known = " or ".join(map(str, VERSIONS))
        raise CheckpointError(f"has format version {quoted(version)}, not {known}", where=where, hint=hint)
    try:
        return _manifest(content, VERSIONS[version])
    except _Wrong as error:
        raise CheckpointError(f"is not a manifest ({error})", where=where, hint="Restore the original.") from None


class _Wrong(Exception):
    """What is wrong with the content of a manifest."""


def _manifest(content: dict[str, Any], algorithm: str) -> Manifest:
    writer, files, tensors = (content.get(key) for key in ("rlmerge", "files", "tensors"))
    if not isinstance(writer, str) or not isinstance(files, dict) or not isinstance(tensors, dict):
        raise _Wrong("it needs rlmerge, a string, and files and tensors, objects")
    return Manifest(
        writer,
        {name: _file_record(name, record, algorithm) for name, record in files.items()},
        {name: _tensor_record(name, record) for name, record in tensors.items()},
        algorithm,
    )


def _file_record(name: str, record: Any, algorithm: str) -> FileRecord:
    if not isinstance(record, dict) or record.keys() != {algorithm, "bytes"}:
        raise _Wrong(f"file {quoted(name)} needs {algorithm} and bytes")
    if not isinstance(record[algorithm], str) or not _is_size(record["bytes"]):
        raise _Wrong(f"file {quoted(name)} needs {algorithm}, a string, and bytes, a number")
    return FileRecord(record[algorithm], record["bytes"])


def _tensor_record(name: str, record: Any) -> TensorRecord:
    if not isinstance(record, dict) or record.keys() != {"file", "dtype", "shape", "xxh3"}:
        raise _Wrong(f"tensor {quoted(name)} needs file, dtype, shape and xxh3")
    if not all(isinstance(record[key], str) for key in ("file", "dtype", "xxh3")):
        raise _Wrong(f"tensor {quoted(name)} needs file, dtype and xxh3, all strings")
    if not isinstance(record["shape"], list) or not all(map(_is_size, record["shape"])):
        raise _Wrong(f"tensor {quoted(name)} needs a shape, a list of numbers")
    return TensorRecord(record["file"], record["dtype"], tuple(record["shape"]), record["xxh3"])


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_BYTES

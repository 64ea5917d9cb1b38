"""Whether an output directory still holds what its manifest says: every byte is read and hashed again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rlmerge.checkpoint.hashing import ShardHash, read_through, unwatched
from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.manifest import NAME, Manifest, TensorRecord, read_manifest
from rlmerge.checkpoint.paths import inside, unreadable
from rlmerge.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What ``verify`` found: a sentence for each problem, and the files, tensors and bytes the manifest names."""

    problems: tuple[str, ...]
    files: int
    tensors: int
    bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(directory: str | os.PathLike[str], *, advance: Callable[[int], None] = unwatched) -> VerifyResult:
    """Compare every file and tensor with the manifest, and look for files it does not know; hidden ones are ignored.

    CheckpointError if there is no readable manifest. ``advance`` is told the bytes read, from several threads.
    """
    root = Path(directory).resolve()
    manifest = read_manifest(root)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda name: _check(root, name, manifest, advance), sorted(manifest.files))
        problems = [problem for file_problems in found for problem in file_problems]
    known = {NAME, *manifest.files}
    unlisted = sorted({record.file for record in manifest.tensors.values()} - known)
    problems += [f"{name}: has tensors in {NAME} but is not listed there" for name in unlisted]
    problems += [f"{name}: is not in {NAME}" for name in sorted(set(_walk(root)) - known)]
    total = sum(record.bytes for record in manifest.files.values())
    return VerifyResult(tuple(problems), len(manifest.files), len(manifest.tensors), total)


def _check(root: Path, name: str, manifest: Manifest, advance: Callable[[int], None]) -> list[str]:
    """The problems of one file."""
    expected = {tensor: record for tensor, record in manifest.tensors.items() if record.file == name}
    try:
        path = inside(root, name, nested=True)
        if not path.exists():
            return [f"{name}: is missing"]
        size = path.stat().st_size
        if size != manifest.files[name].bytes:
            return [f"{name}: is {size} bytes long, not {manifest.files[name].bytes}"]
        problems, digest = _check_shard(path, expected, advance) if expected else ([], _sha256(path, advance))
    except OSError as error:
        return [str(unreadable(root / name, error))]
    except CheckpointError as error:
        return [f"{name}: {error.what}"]
    if digest != manifest.files[name].sha256 and not problems:
        problems.append(f"{name}: its {'header' if expected else 'content'} was altered (SHA-256 differs)")
    return problems


def _check_shard(
    path: Path, expected: dict[str, TensorRecord], advance: Callable[[int], None]
) -> tuple[list[str], str]:
    """The problems of a shard's tensors, and its SHA-256."""
    header = read_header(path)
    problems = [f"{path.name}: tensor {name!r} is missing" for name in expected if name not in header.tensors]
    problems += [f"{path.name}: tensor {name!r} was added" for name in header.tensors if name not in expected]
    with path.open("rb", buffering=0) as handle:
        leading = handle.read(8)
        running = ShardHash(leading + handle.read(int.from_bytes(leading, "little")))
        for tensor in header.tensors.values():
            read_through(handle.fileno(), tensor.start, tensor.nbytes, running.update)
            advance(tensor.nbytes)
            digest, record = running.finish_tensor(), expected.get(tensor.name)
            if record is None:
                continue
            if (tensor.dtype.code, tensor.shape) != (record.dtype, record.shape):
                problems.append(f"{path.name}: tensor {tensor.name!r} has another type or shape")
            elif digest != record.xxh3:
                problems.append(f"{path.name}: tensor {tensor.name!r} was altered (xxh3 differs)")
    return problems, running.sha256()


def _sha256(path: Path, advance: Callable[[int], None]) -> str:
    with path.open("rb", buffering=0) as handle:
        advance(path.stat().st_size)
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _walk(root: Path) -> Iterator[str]:
    """Relative names of all files that are not hidden, nor in hidden directories."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()

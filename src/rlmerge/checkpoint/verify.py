"""Whether an output directory still holds what its manifest says: every byte is read and hashed again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from rlmerge.checkpoint.hashing import SHA256, ShardHash, read_through, unwatched
from rlmerge.checkpoint.header import read_header
from rlmerge.checkpoint.manifest import NAME, FileRecord, Manifest, TensorRecord, read_manifest
from rlmerge.checkpoint.paths import inside, open_regular, unreadable
from rlmerge.errors import CheckpointError
from rlmerge.text import quoted, shortened


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What ``verify`` found: a sentence for each problem, and the files, tensors and bytes the manifest names.

    ``sha256`` is by file name the hex SHA-256 of each file that could be read, if that was asked for.
    """

    problems: tuple[str, ...]
    files: int
    tensors: int
    bytes: int
    sha256: Mapping[str, str] | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class _Found:
    """What is wrong with one file, and its digests by algorithm if all of it could be read."""

    problems: Sequence[str]
    digests: Mapping[str, str]


def verify(
    directory: str | os.PathLike[str], *, sha256: bool = False, advance: Callable[[int], None] = unwatched
) -> VerifyResult:
    """Compare every file and tensor with the manifest, and look for files it does not know; hidden ones are ignored.

    With ``sha256`` each file's SHA-256 is computed too, in the same pass. CheckpointError if there is no readable
    manifest. ``advance`` is told the bytes read, from several threads.
    """
    manifest = read_manifest(Path(directory))
    root = Path(os.path.realpath(directory))
    tensors: dict[str, dict[str, TensorRecord]] = {}
    for name, record in manifest.tensors.items():
        tensors.setdefault(record.file, {})[name] = record
    algorithms = tuple(dict.fromkeys((manifest.algorithm, *((SHA256,) if sha256 else ()))))

    def check(name: str) -> _Found:
        return _check(root, name, manifest.files[name], tensors.get(name, {}), algorithms, advance)

    names = sorted(manifest.files)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = dict(zip(names, pool.map(check, names), strict=True))
    problems = [problem for each in found.values() for problem in each.problems]
    problems += _strangers(root, manifest)
    digests = {name: each.digests[SHA256] for name, each in found.items() if SHA256 in each.digests}
    total = sum(record.bytes for record in manifest.files.values())
    return VerifyResult(tuple(problems), len(manifest.files), len(manifest.tensors), total, digests if sha256 else None)


def _strangers(root: Path, manifest: Manifest) -> Iterator[str]:
    """What the manifest does not list."""
    known = {NAME, *manifest.files}
    for name in sorted({record.file for record in manifest.tensors.values()} - known):
        yield f"{shortened(name, 200)}: has tensors in {NAME} but is not listed there"
    unread: list[OSError] = []
    for name in sorted(set(_walk(root, unread)) - known):
        yield f"{name}: is not in {NAME}"
    for error in unread:
        yield str(unreadable(Path(error.filename), error))


def _check(
    root: Path,
    name: str,
    record: FileRecord,
    tensors: Mapping[str, TensorRecord],
    algorithms: Sequence[str],
    advance: Callable[[int], None],
) -> _Found:
    """One file against its record and those of its tensors."""
    try:
        path = inside(root, name, nested=True)
        if not os.path.lexists(path):
            return _Found([f"{name}: is missing"], {})
        status = path.stat()
        if S_ISREG(status.st_mode) and status.st_size != record.bytes:
            return _Found([f"{name}: is {status.st_size} bytes long, not {record.bytes}"], {})
        problems, running = _read(path, name, tensors, algorithms, advance)
    except OSError as error:
        return _Found([str(unreadable(root / name, error))], {})
    except CheckpointError as error:
        return _Found([f"{shortened(name, 200)}: {error.what}"], {})
    digests = {algorithm: running.hexdigest(algorithm) for algorithm in algorithms}
    if digests[algorithms[0]] != record.digest and not problems:
        label = {"sha256": "SHA-256", "blake3": "BLAKE3"}[algorithms[0]]
        problems.append(f"{name}: its {'header' if tensors else 'content'} was altered ({label} differs)")
    return _Found(problems, digests)


def _read(
    path: Path,
    name: str,
    tensors: Mapping[str, TensorRecord],
    algorithms: Sequence[str],
    advance: Callable[[int], None],
) -> tuple[list[str], ShardHash]:
    """The problems of a file's tensors, and the digests of all its bytes."""
    fd = open_regular(path)
    try:
        if not tensors:
            running = ShardHash(b"", algorithms)
            _take(fd, 0, os.fstat(fd).st_size, running, advance)
            return [], running
        header = read_header(path)
        problems = [f"{name}: tensor {quoted(tensor)} is missing" for tensor in tensors if tensor not in header.tensors]
        problems += [f"{name}: tensor {quoted(tensor)} was added" for tensor in header.tensors if tensor not in tensors]
        leading = os.pread(fd, 8, 0)
        running = ShardHash(leading + os.pread(fd, int.from_bytes(leading, "little"), 8), algorithms)
        for tensor in header.tensors.values():
            _take(fd, tensor.start, tensor.nbytes, running, advance)
            digest, record = running.finish_tensor(), tensors.get(tensor.name)
            if record is None:
                continue
            if (tensor.dtype.code, tensor.shape) != (record.dtype, record.shape):
                problems.append(f"{name}: tensor {quoted(tensor.name)} has another type or shape")
            elif digest != record.xxh3:
                problems.append(f"{name}: tensor {quoted(tensor.name)} was altered (xxh3 differs)")
        return problems, running
    finally:
        os.close(fd)


def _take(fd: int, start: int, length: int, running: ShardHash, advance: Callable[[int], None]) -> None:
    """Hash a range of a file, and tell ``advance`` of each piece."""

    def take(piece: memoryview) -> None:
        running.update(piece)
        advance(len(piece))

    read_through(fd, start, length, take)


def _walk(root: Path, unread: list[OSError]) -> Iterator[str]:
    """Relative names of all files that are not hidden, nor in hidden directories; what could not be listed."""
    for folder, folders, names in os.walk(root, onerror=unread.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()

"""Whether an output directory still holds what its manifest says: every byte is read and hashed again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

from rlmerge.addresses import is_address
from rlmerge.checkpoint.hashing import SHA256, ShardHash, read_through, unwatched
from rlmerge.checkpoint.header import Header, read_header
from rlmerge.checkpoint.manifest import NAME, FileRecord, Manifest, TensorRecord, read_manifest
from rlmerge.checkpoint.paths import inside, open_regular, unreadable
from rlmerge.errors import CheckpointError
from rlmerge.frozen import frozen
from rlmerge.text import quoted, shortened


@frozen(slots=True)
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


@frozen(slots=True)
class _Found:
    """What is wrong with one file, and its digests by algorithm if all of it could be read."""

    problems: Sequence[str]
    digests: Mapping[str, str]


class Reading(Protocol):
    """A file that is read from front to back."""

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    def header(self) -> Header:
        """Its safetensors header; CheckpointError if it has none."""
        ...

    def through(self, start: int, length: int, take: Callable[[memoryview], None]) -> None:
        """Hand the bytes [start, start + length) to ``take`` in pieces, fewer where the file ends."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Contents(Protocol):
    """A directory here or elsewhere; CheckpointError where something cannot be read."""

    @property
    def manifest(self) -> Manifest:
        """What it says that it holds."""
        ...

    def open(self, name: str, expected: int) -> Reading | None:
        """The file of that name, for which the manifest gives a size; None if there is none."""
        ...

    def strangers(self, known: set[str]) -> Iterator[str]:
        """A sentence for each file that is not ``known``, hidden ones left aside, and for what cannot be listed."""
        ...


def contents_of(directory: str | os.PathLike[str]) -> Contents:
    """What is at a path or an address; CheckpointError if an address is none or cannot be read."""
    text = os.fspath(directory)
    if not is_address(text):
        return _Directory(Path(text))
    from rlmerge.checkpoint.remote.contents import RemoteContents

    return RemoteContents(text)


def verify(
    directory: str | os.PathLike[str] | Contents,
    *,
    sha256: bool = False,
    advance: Callable[[int], None] = unwatched,
) -> VerifyResult:
    """Compare every file and tensor with the manifest, and look for files it does not know; hidden ones are ignored.

    An address is read through and not kept. With ``sha256`` each file's SHA-256 is computed too, in the same pass.
    CheckpointError if there is no readable manifest. ``advance`` is told the bytes read, from several threads.
    """
    contents = contents_of(directory) if isinstance(directory, str | os.PathLike) else directory
    manifest = contents.manifest
    tensors: dict[str, dict[str, TensorRecord]] = {}
    for name, record in manifest.tensors.items():
        tensors.setdefault(record.file, {})[name] = record
    algorithms = tuple(dict.fromkeys((manifest.algorithm, *((SHA256,) if sha256 else ()))))

    def check(name: str) -> _Found:
        return _check(contents, name, manifest.files[name], tensors.get(name, {}), algorithms, advance)

    names = sorted(manifest.files)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = dict(zip(names, pool.map(check, names), strict=True))
    problems = [problem for each in found.values() for problem in each.problems]
    known = {NAME, *manifest.files}
    for name in sorted({record.file for record in manifest.tensors.values()} - known):
        problems.append(f"{shortened(name, 200)}: has tensors in {NAME} but is not listed there")
    problems += contents.strangers(known)
    digests = {name: each.digests[SHA256] for name, each in found.items() if SHA256 in each.digests}
    total = sum(record.bytes for record in manifest.files.values())
    return VerifyResult(tuple(problems), len(manifest.files), len(manifest.tensors), total, digests if sha256 else None)


def _check(
    contents: Contents,
    name: str,
    record: FileRecord,
    tensors: Mapping[str, TensorRecord],
    algorithms: Sequence[str],
    advance: Callable[[int], None],
) -> _Found:
    """One file against its record and those of its tensors."""
    try:
        file = contents.open(name, record.bytes)
        if file is None:
            return _Found([f"{name}: is missing"], {})
        try:
            if file.size != record.bytes:
                return _Found([f"{name}: is {file.size} bytes long, not {record.bytes}"], {})
            problems, running = _read(file, name, tensors, algorithms, advance)
        finally:
            file.close()
    except OSError as error:
        return _Found([str(unreadable(Path(error.filename or name), error))], {})
    except CheckpointError as error:
        return _Found([f"{shortened(name, 200)}: {error.what}"], {})
    digests = {algorithm: running.hexdigest(algorithm) for algorithm in algorithms}
    if digests[algorithms[0]] != record.digest and not problems:
        label = {"sha256": "SHA-256", "blake3": "BLAKE3"}[algorithms[0]]
        problems.append(f"{name}: its {'header' if tensors else 'content'} was altered ({label} differs)")
    return _Found(problems, digests)


def _read(
    file: Reading,
    name: str,
    tensors: Mapping[str, TensorRecord],
    algorithms: Sequence[str],
    advance: Callable[[int], None],
) -> tuple[list[str], ShardHash]:
    """The problems of a file's tensors, and the digests of all its bytes."""
    running = ShardHash(b"", algorithms)

    def take(piece: memoryview) -> None:
        running.update(piece)
        advance(len(piece))

    if not tensors:
        file.through(0, file.size, take)
        return [], running
    header = file.header()
    problems = [f"{name}: tensor {quoted(tensor)} is missing" for tensor in tensors if tensor not in header.tensors]
    problems += [f"{name}: tensor {quoted(tensor)} was added" for tensor in header.tensors if tensor not in tensors]
    file.through(0, min((tensor.start for tensor in header.tensors.values()), default=file.size), running.update)
    running.finish_tensor()
    for tensor in header.tensors.values():
        file.through(tensor.start, tensor.nbytes, take)
        digest, record = running.finish_tensor(), tensors.get(tensor.name)
        if record is None:
            continue
        if (tensor.dtype.code, tensor.shape) != (record.dtype, record.shape):
            problems.append(f"{name}: tensor {quoted(tensor.name)} has another type or shape")
        elif digest != record.xxh3:
            problems.append(f"{name}: tensor {quoted(tensor.name)} was altered (xxh3 differs)")
    return problems, running


class _Directory:
    """A directory on this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.path)

    @cached_property
    def root(self) -> Path:
        return Path(os.path.realpath(self.path))

    def open(self, name: str, expected: int) -> _File | None:
        path = inside(self.root, name, nested=True)
        if not os.path.lexists(path):
            return None
        status = path.stat()
        # A file of another size is not opened, whatever it is.
        is_other = S_ISREG(status.st_mode) and status.st_size != expected
        return _File(path, -1, status.st_size) if is_other else _File.opened(path)

    def strangers(self, known: set[str]) -> Iterator[str]:
        unread: list[OSError] = []
        for name in sorted(set(_walk(self.root, unread)) - known):
            yield f"{name}: is not in {NAME}"
        for error in unread:
            yield str(unreadable(Path(error.filename), error))


@frozen(slots=True)
class _File:
    path: Path
    fd: int
    size: int

    @classmethod
    def opened(cls, path: Path) -> _File:
        fd = open_regular(path)
        return cls(path, fd, os.fstat(fd).st_size)

    def header(self) -> Header:
        return read_header(self.path)

    def through(self, start: int, length: int, take: Callable[[memoryview], None]) -> None:
        read_through(self.fd, start, length, take)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def _walk(root: Path, unread: list[OSError]) -> Iterator[str]:
    """Relative names of all files that are not hidden, nor in hidden directories; what could not be listed."""
    for folder, folders, names in os.walk(root, onerror=unread.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(folder, name).relative_to(root).as_posix()

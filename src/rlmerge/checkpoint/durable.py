"""Files and directories that are on disk when a call returns."""

from __future__ import annotations

import os
from pathlib import Path

from rlmerge.checkpoint.failures import writing
from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.hashing import BLAKE3, new_digest
from rlmerge.checkpoint.paths import open_regular
from rlmerge.errors import CheckpointError, RunError

_PIECE = 2**20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_file(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data``; OSError if it exists or cannot be written."""
    fd = os.open(path, _CREATE, 0o666)
    try:
        _write_all(fd, memoryview(data))
        os.fsync(fd)
    finally:
        os.close(fd)


def copy_file(source: Path | InputFile, path: Path) -> tuple[str, int]:
    """Create ``path`` as a copy of a regular file, a piece at a time; its hex BLAKE3 and its length.

    RunError if the source cannot be read or is no longer what it was when an ``InputFile`` was made of it, or if the
    copy cannot be written: whoever copies has planned to, so it is no fault of the request.
    """
    digest, size, expected = new_digest(BLAKE3), 0, None
    if isinstance(source, InputFile):
        source, expected = source.path, source
    with writing(path):
        out = os.open(path, _CREATE, 0o666)
        try:
            try:
                with open(open_regular(source), "rb", buffering=0) as handle:  # noqa: PTH123 - of a descriptor
                    while piece := handle.read(_PIECE):
                        digest.update(piece)
                        size += len(piece)
                        with writing(path):
                            _write_all(out, memoryview(piece))
            except (CheckpointError, OSError) as error:
                raise _lost(source, error) from error
            if expected is not None:
                expected.check()
            os.fsync(out)
        finally:
            os.close(out)
    return digest.hexdigest(), size


def sync_directory(directory: Path) -> None:
    """Wait until the directory's entries are on disk; OSError if they cannot get there."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lost(source: Path, error: CheckpointError | OSError) -> RunError:
    what = error.what if isinstance(error, CheckpointError) else f"cannot be read ({error.strerror or error})"
    hint = "Make it readable again, then run again with --resume to continue."
    return RunError(what, where=str(source), hint=hint)


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]

"""Which files a model directory may lead to: plain names inside it, and links only into a Hub cache's blobs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rlmerge.errors import CheckpointError
from rlmerge.text import quoted


def is_plain_name(name: str) -> bool:
    """Whether ``name`` can only mean an entry of its own directory, on POSIX and on Windows."""
    return name not in ("", ".", "..") and name.isprintable() and not any(mark in name for mark in "/\\:")


def inside(root: Path, name: str, *, nested: bool = False, named_by: str | None = None) -> Path:
    """The path of ``name`` in ``root``, which must be resolved; CheckpointError if it leads anywhere else.

    ``nested`` allows subdirectories, separated by ``/``. ``named_by`` is the file in which the name was found. A
    symbolic link may point within ``root`` or, in a Hub cache, from ``snapshots/<revision>/`` to a file of that
    repository's ``blobs/``.
    """
    where = named_by or str(root)
    if not all(is_plain_name(part) for part in (name.split("/") if nested else [name])):
        hint = "File names there must be plain names of files in the model directory."
        raise CheckpointError(f"{quoted(name)} is not a plain file name", where=where, hint=hint)
    path = root / name
    real = Path(os.path.realpath(path))
    if real.is_relative_to(root) or (root.parent.name == "snapshots" and real.parent == root.parent.parent / "blobs"):
        return path
    hint = "Links may only point into a Hub cache's own blobs folder; copy the file into the directory instead."
    raise CheckpointError(f"is a link to {real}, outside the model directory", where=str(path), hint=hint)


def open_regular(path: Path, *, follow: bool = True) -> int:
    """A descriptor to read a regular file; CheckpointError for anything else, which is never waited for or acted on.

    Without ``follow`` a symbolic link is refused too.
    """
    try:
        # Opening a FIFO waits for its writer and opening a device may have effects, so the kind is looked at first; and
        # once more, because the path may mean something else by now.
        if stat.S_ISREG((path.stat() if follow else path.lstat()).st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
    except OSError as error:
        raise unreadable(path, error) from error
    raise CheckpointError("is not a regular file", where=str(path), hint="Remove it, or put the file there.")


def file_size(path: Path) -> int:
    """Bytes of a regular file; CheckpointError for anything else."""
    fd = open_regular(path)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def read_start(path: Path, limit: int) -> bytes:
    """The first ``limit`` bytes of a regular file, fewer where it ends; CheckpointError if it cannot be read."""
    return _read(path, limit)[0]


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; CheckpointError otherwise."""
    content, size = b"", file_size(path)
    if size <= limit:
        content, size = _read(path, limit + 1)  # It may have grown by now.
    if size > limit:
        raise CheckpointError(f"is {size} bytes long; at most {limit} are read", where=str(path))
    return content


def _read(path: Path, limit: int) -> tuple[bytes, int]:
    """Up to ``limit`` bytes of a file, and its size."""
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        parts, left = list[bytes](), limit
        while left > 0 and (part := os.read(fd, min(left, max(size, 1 << 16)))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts), max(size, limit - left)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(fd)


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for an input that the operating system would not let us read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError("does not exist", where=str(path), hint="Check the path; a download may be incomplete.")
    if isinstance(error, PermissionError):
        return CheckpointError("may not be read (permission denied)", where=str(path), hint="Make it readable to you.")
    hint = "Check the disk or network mount that holds it."
    return CheckpointError(f"cannot be read ({error.strerror or error})", where=str(path), hint=hint)

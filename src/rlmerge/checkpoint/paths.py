"""Which files a model directory may lead to: plain names inside it, and links only into a Hub cache's blobs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from rlmerge.errors import CheckpointError


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
        raise CheckpointError(f"{name!r} is not a plain file name", where=where, hint=hint)
    path = root / name
    real = Path(os.path.realpath(path))
    if real.is_relative_to(root) or (root.parent.name == "snapshots" and real.parent == root.parent.parent / "blobs"):
        return path
    hint = "Links may only point into a Hub cache's own blobs folder; copy the file into the directory instead."
    raise CheckpointError(f"is a link to {real}, outside the model directory", where=str(path), hint=hint)


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("is not a regular file", where=str(path))
        if status.st_size > limit:
            raise CheckpointError(f"is {status.st_size} bytes long; at most {limit} are read", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for an input that the operating system would not let us read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError("does not exist", where=str(path), hint="Check the path; a download may be incomplete.")
    if isinstance(error, PermissionError):
        return CheckpointError("may not be read (permission denied)", where=str(path), hint="Make it readable to you.")
    hint = "Check the disk or network mount that holds it."
    return CheckpointError(f"cannot be read ({error.strerror or error})", where=str(path), hint=hint)

"""The one moment at which an output directory comes into being."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from rlmerge.checkpoint import syscalls
from rlmerge.checkpoint.failures import preparing, writing
from rlmerge.errors import RequestError, RunError

_MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def check_target(target: Path, force: bool) -> None:
    """RequestError if ``target`` may not become the output: it exists without ``force``, or is no model directory."""
    where = str(target)
    if not target.name:
        raise RequestError("is not a name for an output directory", where=where, hint="Name a directory to create.")
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        hint = "Choose another output directory, or remove it yourself."
        raise RequestError("the output exists and is not a directory", where=where, hint=hint)
    if not force:
        hint = "Choose another output directory, or replace it with --force."
        raise RequestError("the output directory exists", where=where, hint=hint)
    names = [entry.name for entry in target.iterdir()]
    is_model = any(name in ("config.json", "MANIFEST.json") or name.endswith(_MODEL_SUFFIXES) for name in names)
    if (names and not is_model) or os.path.ismount(target):
        hint = "--force replaces model directories only; choose another output directory."
        raise RequestError("is not a model directory, and would be deleted", where=where, hint=hint)


def lock(directory: Path) -> int:
    """Create ``directory`` if needed and lock it for this process; the descriptor that holds the lock.

    RequestError if another process holds it. File systems without locks are used without.
    """
    while True:
        with preparing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            hint = "Wait for it to end, or choose another output directory."
            raise RequestError("another process is writing there", where=str(directory), hint=hint) from None
        except OSError:
            return fd
        # Its holder may have renamed or removed the directory between our open and our lock.
        if directory.exists() and os.path.samestat(os.fstat(fd), directory.stat()):
            return fd
        os.close(fd)


def publish(partial: Path, target: Path, force: bool) -> Path | None:
    """Give the complete directory ``partial`` its final name in one rename.

    With ``force`` an old target is swapped for it; returns where that now is. Only where the file system cannot swap do
    two renames take its place, between which there is no target.
    """
    with writing(target):
        if not os.path.lexists(target):
            partial.rename(target)
            return None
        _check_again(target, force)
        if syscalls.exchange(partial, target):
            return partial
        old = target.with_name(f".{target.name}.replaced")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        partial.rename(target)
        return old


def _check_again(target: Path, force: bool) -> None:
    """RunError if the target has become one that may not be replaced."""
    try:
        check_target(target, force)
    except RequestError as error:
        hint = "Move it away, then run again with --resume to continue."
        raise RunError(f"appeared while the merge ran ({error.what})", where=str(target), hint=hint) from error


def sync_directory(directory: Path) -> None:
    """Wait until the directory's entries are on disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

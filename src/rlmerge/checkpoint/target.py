"""The one moment at which an output directory comes into being, and the places that this takes."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path

import xxhash

from rlmerge.checkpoint import syscalls
from rlmerge.checkpoint.failures import preparing, writing
from rlmerge.errors import RequestError, RunError

_MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_LONGEST = 255
"""Bytes of a file name on all usual file systems."""


def partial_path(target: Path) -> Path:
    """The hidden directory beside ``target`` in which it is made: ``.<name>.partial``, or of a long name a digest."""
    name = os.fsencode(target.name)
    if len(name) + len(b"..partial") > _LONGEST:
        short = target.name
        while len(os.fsencode(short)) > 200:
            short = short[:-1]
        return target.with_name(f".{short}-{xxhash.xxh3_64_hexdigest(name)}.partial")
    return target.with_name(f".{target.name}.partial")


def check_target(target: Path, force: bool) -> None:
    """RequestError if ``target`` may not become the output.

    That is where it has no possible name, exists without ``force``, cannot be looked at, or is not a model directory.
    """
    where = str(target)
    if not target.name:
        raise RequestError("is not a name for an output directory", where=where, hint="Name a directory to create.")
    if len(os.fsencode(target.name)) > _LONGEST:
        what = f"the name has {len(os.fsencode(target.name))} bytes; a file name has at most {_LONGEST}"
        raise RequestError(what, where=where, hint="Choose a shorter name.")
    with preparing(target):
        _check_existing(target, force)


def _check_existing(target: Path, force: bool) -> None:
    where = str(target)
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
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


def lock(directory: Path, *, shared: bool = False) -> int:
    """Create ``directory`` if needed and lock it for this process; the descriptor that holds the lock.

    A ``shared`` lock is held together with other shared ones.

    RequestError if another process holds it. File systems without locks are used without.
    """
    while True:
        with preparing(directory), ExitStack() as undo:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                directory.mkdir()
                undo.callback(_remove_empty, directory)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            undo.callback(os.close, fd)
            # Its holder may have removed the directory between our open and our lock.
            if not _locked(fd, directory, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) or _is_same(fd, directory):
                undo.pop_all()
                return fd


def _remove_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _locked(fd: int, directory: Path, kind: int) -> bool:
    """Lock a directory; False where the file system has no locks."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        hint = "Wait for it to end, or choose another output directory."
        raise RequestError("another process is writing there", where=str(directory), hint=hint) from None
    except OSError:
        return False
    return True


def _is_same(fd: int, directory: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), directory.stat())
    except FileNotFoundError:
        return False


def publish(model: Path, target: Path, force: bool, aside: Path) -> None:
    """Give the complete directory ``model`` its final name in one rename.

    With ``force`` an old target is swapped for it, and is then what bears the name ``model``. Only where the file
    system cannot swap do two renames take its place, between which there is no target and the old one is at ``aside``.
    RunError if the target has become one that may not be replaced, or the rename fails; then nothing has changed.
    """
    with writing(target):
        if not os.path.lexists(target):
            return os.rename(model, target)  # noqa: PTH104 - as the two below
        _check_again(target, force)
        if syscalls.exchange(model, target):
            return None
        os.rename(target, aside)  # noqa: PTH104
        try:
            return os.rename(model, target)  # noqa: PTH104
        except BaseException:
            _undo(aside, target)
            raise


def _undo(aside: Path, target: Path) -> None:
    aside.rename(target)


def _check_again(target: Path, force: bool) -> None:
    """RunError if the target has become one that may not be replaced."""
    try:
        check_target(target, force)
    except RequestError as error:
        hint = "Move it away, then run again with --resume to continue."
        raise RunError(f"appeared while the merge ran ({error.what})", where=str(target), hint=hint) from error

"""System calls that fail: the n-th call which touches a directory raises an error of one's choice."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import mmap
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from rlmerge.checkpoint import syscalls

CODES = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.ENOMEM, errno.EROFS, errno.ESTALE)

_CALLS = (
    "open", "read", "write", "pread", "preadv", "pwrite", "fsync", "posix_fallocate", "ftruncate", "mkdir", "rename",
    "replace", "unlink", "rmdir", "listdir", "scandir", "stat", "lstat", "fstat", "close",
)  # fmt: skip


class Faults:
    """Counts the calls that touch ``root``; call number ``fail_at`` raises OSError ``code``.

    ``names`` lists the calls so far. Only calls made through Python are seen, which all of ours are but a few hints to
    the kernel and the reads of tiles (whose failures are those of ``run_blocks``).
    """

    def __init__(self, root: Path, fail_at: int | None = None, code: int = errno.EIO) -> None:
        self.root = os.fspath(root)
        self.fail_at = fail_at
        self.code = code
        self.names: list[str] = []
        self._lock = Lock()
        self._readlink = os.readlink

    def touches(self, arguments: tuple[Any, ...]) -> bool:
        """Whether a call is about the directory: by its first path, or by the file of its descriptor."""
        subject = arguments[0] if arguments else None
        if isinstance(subject, int) and not isinstance(subject, bool):
            try:
                subject = self._readlink(f"/proc/self/fd/{subject}")
            except OSError:
                return False
        if isinstance(subject, str | bytes | os.PathLike):
            path = os.fsdecode(subject)
            return Path(os.path.normpath(Path.cwd() / path)).is_relative_to(self.root)
        return False

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, counted."""

        def counted(*arguments: Any, **options: Any) -> Any:
            if self.touches(arguments):
                with self._lock:
                    number = len(self.names)
                    self.names.append(name)
                if number == self.fail_at:
                    if name == "close":
                        call(*arguments, **options)
                    raise OSError(self.code, os.strerror(self.code), *_named(arguments))
            return call(*arguments, **options)

        return counted


def _named(arguments: tuple[Any, ...]) -> list[Any]:
    return [arguments[0]] if isinstance(arguments[0], str | bytes | os.PathLike) else []


@contextmanager
def faults(root: Path, fail_at: int | None = None, code: int = errno.EIO) -> Generator[Faults]:
    """Count, and make one fail, the calls within the block that touch ``root``."""
    made = Faults(root, fail_at, code)
    places: list[tuple[Any, str]] = [(os, name) for name in _CALLS]
    places += [(io, "open"), (builtins, "open"), (mmap, "mmap"), (fcntl, "flock"), (syscalls, "exchange")]
    kept = [(module, name, getattr(module, name)) for module, name in places]
    for module, name, call in kept:
        setattr(module, name, made.wrapped(name, call))
    try:
        yield made
    finally:
        for module, name, call in kept:
            setattr(module, name, call)

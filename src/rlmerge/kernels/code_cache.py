"""Machine code of earlier runs, kept by a digest of all that it depends on.

One file a kernel under ``$XDG_CACHE_HOME/rlmerge/kernels`` (``~/.cache`` by default): a BLAKE3 of the file's name and
the object code, then the object code. It is run, so it is believed only where nobody else can have written it: a
regular file that belongs to this user and that no group and no other user may write to. Whatever is damaged, foreign or
under another name is compiled again, and a folder that cannot be written costs nothing but that.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

MAX_FILES = 256
"""Files kept, some 10 KB each; the oldest quarter goes when there are more."""

_LARGEST = 2**22
_DIGEST = 32


def folder() -> Path:
    """Where code is kept; RuntimeError where there is no home directory."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "rlmerge" / "kernels"


def key(*parts: str) -> str:
    """A file name for what depends on ``parts`` alone."""
    digest = blake3(max_threads=1)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def load(name: str) -> bytes | None:
    """The code kept under ``name``; None when there is none that can be believed."""
    if not hasattr(os, "geteuid"):
        return None
    with suppress(OSError, RuntimeError):
        fd = os.open(folder() / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as handle:  # noqa: PTH123 - of a descriptor
            status = os.fstat(fd)
            ours = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISREG(status.st_mode) or not ours or status.st_size > _LARGEST:
                return None
            content = handle.read(_LARGEST)
        code = content[_DIGEST:]
        if code and content[:_DIGEST] == _digest(name, code):
            return code
    return None


def save(name: str, code: bytes) -> None:
    """Keep ``code`` under ``name``; the file is there as a whole or not at all."""
    if not hasattr(os, "geteuid") or len(code) + _DIGEST > _LARGEST:
        return
    with suppress(OSError, RuntimeError):
        target = folder() / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(target.parent)
        handle, fresh = tempfile.mkstemp(prefix=".", dir=target.parent)
        try:
            with open(handle, "wb") as out:  # noqa: PTH123 - of a descriptor
                out.write(_digest(name, code) + code)
            Path(fresh).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(fresh).unlink()
            raise


def _digest(name: str, code: bytes) -> bytes:
    return blake3(name.encode() + code, max_threads=1).digest()


def _make_room(kept: Path) -> None:
    """Remove the oldest files, those of killed processes among them, before there are more than ``MAX_FILES``."""
    found = list(kept.iterdir())
    if len(found) < MAX_FILES:
        return
    found.sort(key=lambda file: file.lstat().st_mtime_ns)
    for file in found[: len(found) - MAX_FILES * 3 // 4]:
        with suppress(OSError):
            file.unlink()

"""Processes that share a directory: each holds a lock of its own while it runs, so that a killed one is told by it."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

FOLDER = ".workers"
"""Where the locks are, inside the directory that is shared."""

_LOCK = "lock"


class Workers:
    """This process among those at work in ``folder``, under a ``name`` of its own until it leaves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex
        self._held = _locked(self._folder / self.name)

    def leave(self) -> None:
        """Let others know that this process has ended."""
        if self._held is not None:
            (self._folder / self.name).unlink(missing_ok=True)
            os.close(self._held)
            self._held = None

    def is_alive(self, name: str) -> bool:
        """Whether the process of that name still runs, as this one does; what a killed one left of its lock goes."""
        if name == self.name:
            return True
        if not name:
            return False
        lock = _locked(self._folder / name)
        if lock is None:
            return True
        (self._folder / name).unlink(missing_ok=True)
        os.close(lock)
        return False

    @property
    def are_none_else(self) -> bool:
        """Whether no other process is at work, or was killed."""
        return {path.name for path in self._folder.iterdir()} <= {self.name, _LOCK}

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """One process at a time."""
        handle = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _locked(path: Path) -> int | None:
    """The open file of a lock that is now held, None while another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle

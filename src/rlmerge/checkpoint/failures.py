"""What the operating system refuses while we write, as errors that say how to go on."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rlmerge.errors import RequestError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class writing:
    """Turn an OSError while ``path`` is written into a RunError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        where = str(self.path)
        if error.errno in _FULL:
            hint = "Free some space there, then run again with --resume to continue."
            raise RunError("the disk is full", where=where, hint=hint) from error
        hint = "Check the disk and its permissions, then run again with --resume to continue."
        raise RunError(f"cannot be written ({error.strerror or error})", where=where, hint=hint) from error


@contextmanager
def preparing(path: Path) -> Generator[None, None, None]:
    """Turn what the system says of a path before anything was written below it into a RequestError.

    ValueError and RuntimeError are what Python raises for names with a null byte and for links that lead in a circle.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        hint = "Choose an output directory that you may write to."
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError(f"the output cannot be created there ({reason})", where=str(path), hint=hint) from error


@contextmanager
def finishing(path: Path) -> Generator[None, None, None]:
    """Turn an OSError after ``path`` is complete into a RunError that says so."""
    try:
        yield
    except OSError as error:
        what = f"is complete, but the disk did not confirm it ({error.strerror or error})"
        hint = f"It may be lost in a power cut; check the disk, then the output with: rlmerge verify '{path}'"
        raise RunError(what, where=str(path), hint=hint) from error

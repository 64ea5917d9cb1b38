"""What the operating system refuses while we write, as errors that say how to go on."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rlmerge.errors import RequestError, RunError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Turn an OSError while ``path`` is written into a RunError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = "Free some space there, then run again with --resume to continue."
            raise RunError("the disk is full", where=str(path), hint=hint) from error
        hint = "Check the disk and its permissions, then run again with --resume to continue."
        raise RunError(f"cannot be written ({error.strerror or error})", where=str(path), hint=hint) from error


@contextmanager
def preparing(path: Path) -> Generator[None, None, None]:
    """Turn an OSError before anything was written below ``path`` into a RequestError."""
    try:
        yield
    except OSError as error:
        hint = "Choose an output directory that you may write to."
        what = f"the output cannot be created there ({error.strerror or error})"
        raise RequestError(what, where=str(path), hint=hint) from error

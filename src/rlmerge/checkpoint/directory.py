"""The names in a model directory, and those under which transformers keeps weights."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from rlmerge.checkpoint.paths import unreadable

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def entries(root: Path) -> list[str]:
    """Names in the directory, sorted, without the ``._*`` files that macOS leaves beside others."""
    try:
        return sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("._"))
    except OSError as error:
        raise unreadable(root, error) from error


def has_file(path: Path) -> bool:
    """Whether there is a file that may be looked at."""
    try:
        return path.is_file()
    except OSError:
        return False


def has_folder(path: Path) -> bool:
    """Whether there is a directory that may be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def first_missing(found: Collection[int], first: int, last: int) -> int | None:
    """The lowest number of ``first`` to ``last`` that was not found; None if all were. Takes time for those found."""
    return next((number for number in range(first, last + 1) if number not in found), None)

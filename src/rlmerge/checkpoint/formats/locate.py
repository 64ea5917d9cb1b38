"""Where below a directory that a trainer wrote its weights lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rlmerge.checkpoint.directory import entries, has_folder

_PARTS = re.compile(r"actor|_actor|policy|weights|model|trainer|pytorch_model_fsdp_0")
"""Folders that hold one model's part of a checkpoint, under the names that trainers give them."""

_STEP = re.compile(r"global_step_?\d+")

_DEPTH = 3


def find_home(
    root: Path, names: Sequence[str], holds: Callable[[Path, Sequence[str]], bool]
) -> tuple[Path, Sequence[str]] | None:
    """The directory that ``holds`` says has the weights, with its names: ``root``, or the only one below it.

    Below are folders that trainers give a part of a checkpoint, a few levels deep. None where there is none, or where
    there are several and nothing says which is meant.
    """
    if holds(root, names):
        return root, names
    found = list(_below(root, names, holds, _DEPTH))
    return found[0] if len(found) == 1 else None


def with_parents(folder: Path, root: Path) -> list[Path]:
    """Where the configuration of weights in ``folder`` can lie: there, above it while it is a part, and in ``root``."""
    found = [folder]
    while _PARTS.fullmatch(found[-1].name) or _STEP.fullmatch(found[-1].name):
        found.append(found[-1].parent)
    return [*found, root]


def _below(
    root: Path, names: Sequence[str], holds: Callable[[Path, Sequence[str]], bool], depth: int
) -> Iterator[tuple[Path, Sequence[str]]]:
    for name in names:
        folder = root / name
        if not _PARTS.fullmatch(name) or folder.is_symlink() or not has_folder(folder):
            continue
        inner = entries(folder)
        if holds(folder, inner):
            yield folder, inner
        elif depth > 1:
            yield from _below(folder, inner, holds, depth - 1)

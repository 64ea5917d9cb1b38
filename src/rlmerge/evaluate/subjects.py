"""The models of a comparison: opened, named, and identified by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.checkpoint.paths import read_bytes
from rlmerge.errors import RequestError
from rlmerge.frozen import frozen
from rlmerge.report.names import model_names

MAX_SIDE_FILE = 2**30
"""Bytes of a tokenizer or configuration file beyond which it is not read."""


@frozen(eq=False)
class Subject:
    """One model to be scored; ``role`` is ``base``, ``expert`` or ``merge``."""

    name: str
    role: str
    checkpoint: Checkpoint

    @property
    def path(self) -> Path:
        """The model directory, also of a Hub model."""
        return self.checkpoint.path

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what decides its scores: the weights' edition, configuration, tokenizer and templates."""
        digest = hashlib.sha256(self.checkpoint.edition.encode())
        for file in self.checkpoint.side_files:
            digest.update(b"\0" + file.relative_to(self.path).as_posix().encode() + b"\0")
            digest.update(read_bytes(file, MAX_SIDE_FILE))
        return digest.hexdigest()


def open_subjects(
    base: str | os.PathLike[str], experts: Sequence[str | os.PathLike[str]], merges: Sequence[str | os.PathLike[str]]
) -> tuple[Subject, ...]:
    """Base, experts and merges, in this order, each named by the shortest end of its path that no other shares.

    CheckpointError when one cannot be read; RequestError when one is given twice.
    """
    given = [("base", base), *(("expert", model) for model in experts), *(("merge", model) for model in merges)]
    opened = [(role, open_checkpoint(model)) for role, model in given]
    seen: dict[Path, str] = {}
    for role, checkpoint in opened:
        if checkpoint.path in seen:
            what = f"is given twice, as {seen[checkpoint.path]} and as {role}"
            raise RequestError(what, where=checkpoint.reference, hint="Name every model once.")
        seen[checkpoint.path] = role
    names = model_names(checkpoint for _, checkpoint in opened)
    return tuple(Subject(name, role, checkpoint) for name, (role, checkpoint) in zip(names, opened, strict=True))

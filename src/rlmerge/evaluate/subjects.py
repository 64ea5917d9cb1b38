"""The models of a comparison: opened, named, and identified by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.errors import CheckpointError, RequestError


@dataclass(frozen=True, eq=False)
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
            digest.update(read_file(file))
        return digest.hexdigest()


def open_subjects(
    base: str | os.PathLike[str], experts: Sequence[str | os.PathLike[str]], merges: Sequence[str | os.PathLike[str]]
) -> tuple[Subject, ...]:
    """Base, experts and merges, in this order, each named by the shortest end of its path that no other shares.

    CheckpointError when one is no model; RequestError when one is given twice.
    """
    given = [("base", base), *(("expert", model) for model in experts), *(("merge", model) for model in merges)]
    opened = [(role, open_checkpoint(model)) for role, model in given]
    seen: dict[Path, str] = {}
    for role, checkpoint in opened:
        if checkpoint.path in seen:
            what = f"is given twice, as {seen[checkpoint.path]} and as {role}"
            raise RequestError(what, where=checkpoint.reference, hint="Name every model once.")
        seen[checkpoint.path] = role
    names = short_names([_name_parts(checkpoint) for _, checkpoint in opened])
    return tuple(Subject(name, role, checkpoint) for name, (role, checkpoint) in zip(names, opened, strict=True))


def short_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """For each path its last part, with as many parts before it as tell it from the others."""
    depth = 1
    while depth < max(map(len, paths)) and len({tuple(path[-depth:]) for path in paths}) < len(paths):
        depth += 1
    last = [path[-1] for path in paths]
    return ["/".join(path[-depth:]) if last.count(path[-1]) > 1 else path[-1] for path in paths]


def _name_parts(checkpoint: Checkpoint) -> Sequence[str]:
    """The parts of what the user wrote: a Hub model is known by its id and not by its place in the cache."""
    return checkpoint.reference.split("/") if checkpoint.revision else checkpoint.path.parts


def read_file(file: Path) -> bytes:
    """Content of a side file; CheckpointError when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error})", where=str(file), hint="Check its permissions.") from error

"""Files that stand where weights should: a pointer of Git LFS, a web page of a failed download."""

from __future__ import annotations

from pathlib import Path

from rlmerge.errors import CheckpointError

HEAD = 64
"""Bytes of a file that tell."""


def refuse_pointer(head: bytes, file: Path) -> None:
    """CheckpointError if the first bytes of ``file`` are those of a pointer or a web page."""
    if head.startswith(b"version https://git-lfs"):
        hint = "Fetch the files in that repository: git lfs pull"
        raise CheckpointError("is a Git LFS pointer, not the weights themselves", where=str(file), hint=hint)
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        hint = "The download failed; download it again."
        raise CheckpointError("is a web page, not weights", where=str(file), hint=hint)

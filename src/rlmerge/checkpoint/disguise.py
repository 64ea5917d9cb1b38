"""Files that are not what their names say: Git LFS pointers, and web pages that a download saved."""

from __future__ import annotations

import re

from rlmerge.errors import CheckpointError

HEAD = 512
"""Bytes from the start of a file that ``refuse_disguise`` needs."""

_POINTER = b"version https://git-lfs.github.com/spec/"
_SIZE = re.compile(rb"^size (\d+)\s*$", re.MULTILINE)
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def refuse_disguise(head: bytes, where: str) -> None:
    """CheckpointError if a file that begins with ``head`` is a Git LFS pointer or an HTML page."""
    if head.startswith(_POINTER):
        size = _SIZE.search(head)
        held = f" of a file of {int(size[1]):,} bytes" if size else ""
        hint = "Run `git lfs pull` in that directory, or download the file again."
        raise CheckpointError(f"is a Git LFS pointer{held}, not the file itself", where=where, hint=hint)
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        hint = "A download saved a web page, most likely an error message, under this name; download the file again."
        raise CheckpointError("is an HTML page", where=where, hint=hint)

"""Reads the file of a recipe: whatever it turns out to be, the answer is text or one clear error."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path

from rlmerge.errors import RequestError, nearest
from rlmerge.recipe.tree import failure
from rlmerge.recipe.words import printable
from rlmerge.recipe.yaml_text import MAX_BYTES

_TURN = 0.2
"""Seconds that a wait for a pipe takes at most before interrupts are looked at."""

_PIECE = 1 << 16

_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def read_text(path: Path) -> str:
    """The text of a recipe file. RequestError where there is none; RecipeError where it cannot be a recipe."""
    where = printable(str(path))
    try:
        if path.is_dir():
            raise RequestError(
                "this is a directory, not a recipe",
                where=where,
                hint="Give a YAML file, or name a method: --method NAME --base BASE EXPERT...",
            )
        data = read_file(path, MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise RequestError("no such recipe file", where=where, hint=_near_files(path)) from error
    except OSError as error:
        raise RequestError(f"cannot read the recipe: {error.strerror}", where=where) from error
    except ValueError as error:  # a null byte in the name
        raise RequestError(f"cannot read the recipe: {error}", where=where) from error
    if len(data) > MAX_BYTES:
        raise failure(f"recipe is larger than {MAX_BYTES // 1_000_000} MB", where, "Is this file a recipe?")
    return decode(data, where)


def read_file(path: Path, limit: int = -1) -> bytes:
    """Up to ``limit`` bytes of a file or pipe; a pipe that nobody writes to is empty rather than waited for.

    OSError as for any file, and for a device that would never end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # noqa: PTH123 - of a descriptor
        kind = os.fstat(handle).st_mode
        if limit < 0 and stat.S_ISCHR(kind):
            raise OSError(errno.EINVAL, "it is a device")
        if stat.S_ISFIFO(kind):
            return _read_pipe(handle, limit)
        os.set_blocking(handle, True)
        return file.read(limit)


def _read_pipe(handle: int, limit: int) -> bytes:
    """What comes out of a pipe until its end, or up to ``limit`` bytes.

    Waits in short turns: an interrupt that comes just before a wait is acted upon after it.
    """
    data = bytearray()
    while limit < 0 or len(data) < limit:
        try:
            part = os.read(handle, _PIECE if limit < 0 else min(_PIECE, limit - len(data)))
        except BlockingIOError:  # somebody may still write
            select.select([handle], [], [], _TURN)
            continue
        if not part:
            break
        data += part
    return bytes(data)


def decode(data: bytes, where: str) -> str:
    """UTF-8 text, with or without a byte order mark; RecipeError for anything else."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and data[:4].count(0) >= 2:
        encoding = "UTF-16 or UTF-32"
    if encoding:
        raise failure(f"recipe is {encoding} text, not UTF-8", where, "Save it as UTF-8 in your editor.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise failure("recipe is not UTF-8 text", f"{where}:{line}", "Is this file a recipe?") from error


def _near_files(path: Path) -> str | None:
    """A hint at the YAML file beside ``path`` that was most likely meant."""
    folder = path.parent
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith((".yaml", ".yml")))  # noqa: PTH208
    except OSError:
        return f"There is no directory '{printable(str(folder))}'."
    close = nearest(path.name, names)
    if close:
        return f"Did you mean '{printable(str(folder / close))}'?"
    return f"YAML files there: {printable(', '.join(names[:5]))}." if names else None

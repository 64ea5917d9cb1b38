"""The result on stdout: text for people or one JSON object for programs; in files; and notes on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import click

from rlmerge.errors import RunError
from rlmerge.jsondata import plain
from rlmerge.text import block, colored

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or another program."""


class StdoutError(RunError):
    """Stdout cannot be written, so that there is only stderr to say it on."""


class _Pipe(io.FileIO):
    """A stream whose reader may go away (``| head``), which is no failure of the job: the rest is dropped."""

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def open_streams() -> None:
    """Make stdin, stdout and stderr safe to use, whatever state we were started in.

    A closed one is opened to nowhere: else the next file that is opened gets its number, and what a library prints goes
    into that file. A character that the encoding of a stream lacks is spelled out.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: TextIO | None = getattr(sys, name)
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if number:
            encoding = "utf-8" if stream is None else stream.encoding
            raw = io.BufferedWriter(_Pipe(number, "w", closefd=False))
            opened = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)
            setattr(sys, name, opened)


def close_streams() -> None:
    """Write out what is left; what cannot be written is dropped rather than reported by the interpreter as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _drop(stream)


def emit(text: str, *, unless: object = None) -> None:
    """Print to stdout, without a character that steers the terminal.

    StdoutError if it cannot be written, or only a note on stderr if ``unless`` names something that is done and does
    not need the text.
    """
    try:
        click.echo(colored(text) if color() else block(text))
    except OSError as error:
        _drop(sys.stdout)
        what = f"stdout cannot be written ({error.strerror or error})"
        if unless is None:
            raise StdoutError(what, hint="Check where it goes, then run again.") from error
        note(f"warning: {what}; {unless} is complete")


def emit_json(value: Mapping[str, Any], *, unless: object = None) -> None:
    """Print one JSON object, as ``emit`` does; numbers that JSON lacks (NaN, infinity) become null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    # Outside strings JSON consists of printable characters and line breaks.
    lines = (line if line.isprintable() else "".join(map(_escaped, line)) for line in text.split("\n"))
    emit("\n".join(lines), unless=unless)


def note(text: str) -> None:
    """Print to stderr; when that fails there is nobody to tell."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(colored(text), err=True)


def width() -> int:
    """Columns that fit on stdout."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def color() -> bool:
    """Whether stdout is a terminal that wants colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def check_writable(*files: Path | None) -> None:
    """UsageError before the work rather than after it when a result could not be written; None is no file."""
    for file in files:
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            problem = "is a directory" if file.is_dir() else "its directory does not exist"
            raise click.UsageError(f"cannot write {file}: {problem}", click.get_current_context())


def write_file(file: Path, text: str) -> None:
    """Write a result; RunError when the disk does not take it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A pipe that nobody reads is refused instead of waited for.
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        os.set_blocking(handle, True)
        # Names of files may hold bytes that are no text; a result is always UTF-8.
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:  # noqa: PTH123
            stream.write(text)
    except OSError as error:
        hint = "Make room and run the same command again."
        raise RunError(f"cannot be written ({error.strerror})", where=str(file), hint=hint) from error


def _drop(stream: TextIO) -> None:
    """Let everything else that is printed there go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # of what is no file, as in a notebook
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]

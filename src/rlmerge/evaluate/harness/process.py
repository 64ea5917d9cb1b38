"""Running someone else's program: its output to files, its failures told with the end of what it printed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlmerge.errors import RequestError, RunError

STDOUT = "stdout.txt"
STDERR = "stderr.txt"
_NO_ROOM = "Make room, or choose another store; finished scores are kept."
_TAIL_LINES = 12
_TAIL_BYTES = 1 << 16
_GUARD = 'read -r _; kill -s KILL -- "-$1"'
"""Waits until the write end of its standard input is closed, which also the kernel does, then ends a process group."""


class GuardedProcess:
    """A process in a group of its own that ends, with all it started, on ``end`` and also when this process is killed.

    Nothing can be run after SIGKILL, so a shell waits for it: it holds the read end of a pipe and kills the group when
    nobody holds the other one any more. Where there is no ``/bin/sh`` the group outlives a SIGKILL.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        """Start ``command`` with the options of ``subprocess.Popen``; OSError when there is no such program."""
        self.process = subprocess.Popen(list(command), start_new_session=True, **options)
        self._guard: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            guard = ["/bin/sh", "-c", _GUARD, "rlmerge-guard", str(self.process.pid)]
            self._guard = subprocess.Popen(
                guard,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def end(self) -> None:
        """Kill whatever is left of the group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            if self._guard.stdin is not None:
                self._guard.stdin.close()


def split_words(command: str) -> list[str]:
    """``command`` split as a shell would, without running one; RequestError when its quotes do not match."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise RequestError(f"cannot be split into words ({error})", where=command, hint="Check its quotes.") from None


def new_directory(parent: Path, label: str) -> Path:
    """A new directory in ``parent`` whose name starts with ``label``; RunError when the disk does not take it."""
    prefix = re.sub(r"[^\w.-]+", "-", label)[:60]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
    except OSError as error:
        raise _unwritable(parent, error) from error


def run_harness(
    command: Sequence[str],
    directory: Path,
    *,
    where: str,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> None:
    """Run ``command`` with stdout and stderr going to files of those names in ``directory``, which is made.

    ``where`` says in errors which task and model it was for. RequestError when there is no such program; RunError when
    it fails, takes longer than ``timeout`` seconds, or the disk does not take its output. Whatever it started dies with
    it, also when this process is interrupted or killed.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / STDOUT).open("wb") as stdout, (directory / STDERR).open("wb") as stderr:
            guarded = GuardedProcess(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
            )
    except (FileNotFoundError, PermissionError) as error:
        if error.filename != command[0]:
            raise _unwritable(directory, error) from error
        hint = "Install it, or name the program by its path."
        raise RequestError(f"cannot start {command[0]!r} ({error.strerror})", where=where, hint=hint) from None
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        code = guarded.process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise failure(f"took longer than {timeout:g} s", command, directory, where=where) from None
    finally:
        guarded.end()
    if code:
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        raise failure(ended, command, directory, where=where)


def failure(what: str, command: Sequence[str], directory: Path, *, where: str) -> RunError:
    """A RunError about a harness's run in ``directory``: what it did, the command, and the end of what it printed."""
    said = tail(directory / STDERR) or tail(directory / STDOUT)
    lines = "\n".join(f"    {line}" for line in said) or "    (it printed nothing)"
    hint = f"It ended with:\n{lines}\n  All of it is in {directory}; the command was:\n    {shlex.join(command)}"
    return RunError(f"{Path(command[0]).name} {what}", where=where, hint=hint)


def tail(file: Path) -> list[str]:
    """The last lines of a text file that are not blank; none when it cannot be read."""
    try:
        with file.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = handle.read().decode(errors="replace")
    except OSError:
        return []
    # A progress bar redraws its line with carriage returns; only what stood there last is worth showing.
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line[:400] for line in lines if line][-_TAIL_LINES:]


def _unwritable(place: Path, error: OSError) -> RunError:
    return RunError(f"cannot write there ({error})", where=str(place), hint=_NO_ROOM)

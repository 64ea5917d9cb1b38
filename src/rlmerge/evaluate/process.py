"""Running someone else's harness: its output to files, its failures told with the end of what it printed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rlmerge.errors import RequestError, RunError

STDOUT = "stdout.txt"
STDERR = "stderr.txt"
_ELSEWHERE = "Make room, or choose another store; finished scores are kept."
_TAIL_LINES = 12
_TAIL_BYTES = 1 << 16


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
    it, also when this process is interrupted.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / STDOUT).open("wb") as stdout, (directory / STDERR).open("wb") as stderr:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
    except (FileNotFoundError, PermissionError) as error:
        if error.filename != command[0]:
            raise RunError(
                f"cannot write there ({error})", where=str(directory), hint="Choose another store."
            ) from error
        hint = "Install it, or name the program by its path."
        raise RequestError(f"cannot start {command[0]!r} ({error.strerror})", where=where, hint=hint) from None
    except OSError as error:
        raise RunError(f"cannot write there ({error})", where=str(directory), hint=_ELSEWHERE) from error
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise failure(f"took longer than {timeout:g} s", command, directory, where=where) from None
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
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

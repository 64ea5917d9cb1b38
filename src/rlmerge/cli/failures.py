"""What a user sees when something goes wrong: one message, a next step, and the right exit code."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from rlmerge.cli.output import StdoutError, emit_json, note
from rlmerge.errors import RecipeError, RlmergeError, RunError
from rlmerge.text import indented, plain, shortened

INTERRUPTED = 130
"""The shells' convention for a command ended by Ctrl-C."""


class Interrupted(click.Abort):
    """Ctrl-C; ``complete`` names an output that was whole by then."""

    def __init__(self, complete: Path | None = None) -> None:
        super().__init__()
        self.complete = complete


@contextmanager
def interruptible(out: Path) -> Generator[None]:
    """Turn Ctrl-C into ``Interrupted``, which knows whether ``out`` was complete when it came."""
    before = _identity(out)
    try:
        yield
    except KeyboardInterrupt:
        # An output appears under its name in one rename, complete; so it is if another directory is there than before.
        raise Interrupted(out if _identity(out) not in (None, before) else None) from None


def translate(error: Exception) -> Exception:
    """What Python raises when the system refuses something, wherever that was, as an error with a next step.

    Other exceptions are returned as they are.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return RunError("out of memory", hint="Give a smaller --memory or fewer --workers, then --resume.")
    if isinstance(error, ImportError) or (isinstance(error, OSError) and "shared object" in str(error)):
        # NumPy explains at length what may be wrong with it; the reason itself comes last.
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        hint = "If the memory of a process is limited (ulimit -v), raise the limit; otherwise install rlmerge again."
        return RunError(f"a library cannot be loaded ({shortened(reason, 200)})", hint=hint)
    if isinstance(error, OSError):
        where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
        full = error.errno in (errno.EMFILE, errno.ENFILE)
        hint = "Raise the limit of open files (ulimit -n)" if full else "Check the path and its permissions"
        return RunError(
            f"the system refused ({shortened(error.strerror or error, 200)})",
            where=where,
            hint=f"{hint}, then try again.",
        )
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        hint = "Give fewer --workers, or raise the limits of threads and memory (ulimit -u, ulimit -v)."
        return RunError("the system starts no more threads", hint=hint)
    return error


def report(error: Exception, arguments: Sequence[str]) -> int:
    """Print ``error`` (as JSON on stdout where the command line asks for it, else on stderr); the exit code."""
    if os.environ.get("RLMERGE_TRACEBACK"):
        note("".join(traceback.format_exception(error)))
    problems, code = explain(error, arguments)
    if wants_json(arguments) and not isinstance(error, StdoutError):
        kind = "Interrupted" if isinstance(error, click.Abort) else type(error).__name__
        message = "\n".join(problem["message"] for problem in problems)
        with suppress(StdoutError):
            emit_json({"error": {"kind": kind, "exit_code": code, "message": message, "problems": problems}})
            return code
    lines = [line for problem in problems for line in _lines(problem)]
    if len(problems) > 1:
        lines.append(f"{len(problems)} problems; nothing was written.")
    note("\n".join(lines))
    return code


def explain(error: Exception, arguments: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """The problems an exception stands for, each with ``message``, ``where`` and ``hint``, and the exit code."""
    error = translate(error)
    if isinstance(error, RecipeError):
        return [_problem(p.what, p.where, p.hint) for p in error.problems], error.exit_code
    if isinstance(error, RlmergeError):
        return [_problem(error.what, error.where, error.hint)], error.exit_code
    if isinstance(error, Interrupted) and error.complete is not None:
        hint = f"There is nothing left to do; check it with: rlmerge verify '{error.complete}'"
        return [_problem("interrupted when the output was complete", str(error.complete), hint)], INTERRUPTED
    if isinstance(error, click.Abort):
        resume = "Run the same command with --resume to continue." if list(arguments[:1]) == ["merge"] else None
        return [_problem("interrupted", None, resume)], INTERRUPTED
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"See {context.command_path} --help." if context else None
        return [_problem(error.format_message(), None, hint)], error.exit_code
    what = f"unexpected {type(error).__name__}: {error}"
    return [_problem(what, None, "Set RLMERGE_TRACEBACK=1 to see where it happened, and please report it.")], 1


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, even one that cannot be parsed."""
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _identity(directory: Path) -> tuple[int, int] | None:
    """Device and inode of a directory, None where there is none."""
    try:
        status = directory.lstat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _problem(message: str, where: str | None, hint: str | None) -> dict[str, Any]:
    return {"message": message, "where": where, "hint": hint}


def _lines(problem: dict[str, Any]) -> Iterator[str]:
    where = f"{plain(problem['where'])}: " if problem["where"] else ""
    yield f"{click.style('error:', fg='red', bold=True)} {where}{indented(problem['message'])}"
    if problem["hint"]:
        yield f"  {indented(problem['hint'])}"

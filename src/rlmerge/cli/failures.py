"""What a user sees when something goes wrong: one message, a next step, and the right exit code."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import click

from rlmerge.cli.output import emit_json
from rlmerge.errors import RecipeError, RlmergeError

INTERRUPTED = 130
"""The shells' convention for a command ended by Ctrl-C."""


def report(error: Exception, arguments: Sequence[str]) -> int:
    """Print ``error`` (as JSON on stdout where the command line asks for it, else on stderr); the exit code."""
    if os.environ.get("RLMERGE_TRACEBACK"):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    problems, code = explain(error, arguments)
    if wants_json(arguments):
        kind = "Interrupted" if isinstance(error, click.Abort) else type(error).__name__
        message = "\n".join(problem["message"] for problem in problems)
        emit_json({"error": {"kind": kind, "exit_code": code, "message": message, "problems": problems}})
        return code
    lines = [line for problem in problems for line in _lines(problem)]
    if len(problems) > 1:
        lines.append(f"{len(problems)} problems; nothing was written.")
    click.echo("\n".join(lines), err=True)
    return code


def explain(error: Exception, arguments: Sequence[str]) -> tuple[list[dict[str, Any]], int]:
    """The problems an exception stands for, each with ``message``, ``where`` and ``hint``, and the exit code."""
    if isinstance(error, RecipeError):
        return [_problem(p.what, p.where, p.hint) for p in error.problems], error.exit_code
    if isinstance(error, RlmergeError):
        return [_problem(error.what, error.where, error.hint)], error.exit_code
    if isinstance(error, click.Abort):
        resume = "Run the same command with --resume to continue." if list(arguments[:1]) == ["merge"] else None
        return [_problem("interrupted", None, resume)], INTERRUPTED
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"See {context.command_path} --help." if context else None
        return [_problem(error.format_message(), None, hint)], error.exit_code
    if isinstance(error, MemoryError):
        return [_problem("out of memory", None, "Give a smaller --memory or fewer --workers, then --resume.")], 1
    what = f"unexpected {type(error).__name__}: {error}"
    return [_problem(what, None, "Set RLMERGE_TRACEBACK=1 to see where it happened, and please report it.")], 1


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, even one that cannot be parsed."""
    return "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _problem(message: str, where: str | None, hint: str | None) -> dict[str, Any]:
    return {"message": message, "where": where, "hint": hint}


def _lines(problem: dict[str, Any]) -> Iterator[str]:
    where = f"{problem['where']}: " if problem["where"] else ""
    yield f"{click.style('error:', fg='red', bold=True)} {where}{problem['message']}"
    if problem["hint"]:
        yield f"  {problem['hint']}"

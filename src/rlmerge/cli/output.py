"""The result on stdout: text for people or one JSON object for programs."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import click

PIPE_WIDTH = 120
"""Columns of a table that goes to a file or another program."""


def emit(text: str) -> None:
    """Print to stdout. A reader that has gone away (`| head`) is no failure of the job: the rest is dropped."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object; numbers that JSON lacks (NaN, infinity) become null."""
    emit(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=str))


def width() -> int:
    """Columns that fit on stdout."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def color() -> bool:
    """Whether stdout is a terminal that wants colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(entry) for entry in cast("Sequence[Any]", value)]
    return value

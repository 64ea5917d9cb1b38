"""Where a command writes, as people name it."""

from __future__ import annotations

from pathlib import Path

import click


class OutputPath(click.ParamType):
    """A click type for a path that will be written: ``~`` is the home directory, also where no shell expands it."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        try:
            return Path(value).expanduser()
        except RuntimeError:
            self.fail(f"'{value}' names a home directory that cannot be found", param, ctx)

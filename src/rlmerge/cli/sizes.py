"""Sizes on the command line."""

from __future__ import annotations

import click

from rlmerge.options import parse_size


class Size(click.ParamType):
    """A click type for ``parse_size``."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

"""How words of a command line are read: sizes, paths, and options that take every word up to the next option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.addresses import is_address
from rlmerge.options import parse_size

if TYPE_CHECKING:
    from rlmerge.checkpoint.shares import Share


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


class ShareType(click.ParamType):
    """A click type for the share of one process of several: 3/8."""

    name = "share"

    def convert(self, value: str | Share, param: click.Parameter | None, ctx: click.Context | None) -> Share:
        from rlmerge.checkpoint.shares import Share

        if isinstance(value, Share):
            return value
        try:
            return Share.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class OutputPath(click.ParamType):
    """A click type for a path that will be written: ``~`` is the home directory, also where no shell expands it.

    With ``remote`` an address of an object store becomes the local path that stands for it.
    """

    name = "path"

    def __init__(self, remote: bool = False) -> None:
        self.remote = remote

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if isinstance(value, str) and is_address(value):
            if not self.remote:
                self.fail(f"{value} is no place on this machine, and nothing else can be written here", param, ctx)
            from rlmerge.checkpoint.remote.upload import upload_to

            return upload_to(value)
        try:
            return Path(value).expanduser()
        except RuntimeError:
            self.fail(f"'{value}' names a home directory that cannot be found", param, ctx)


class GreedyCommand(click.Command):
    """A command whose repeatable options may be given once with several values.

    `--tasks a b` means `--tasks a --tasks b`, so arguments of the command come first, or after another option or `--`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = [option for option in self.params if isinstance(option, click.Option) and option.multiple]
        names = {name for option in repeatable for name in option.opts}
        return super().parse_args(ctx, spread(args, names))


def spread(arguments: Sequence[str], names: set[str]) -> list[str]:
    """``arguments`` with every value after the first of an option in ``names`` preceded by the option."""
    out: list[str] = []
    option, values = "", 0
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*out, *arguments[place:]]
        if argument.startswith("-") and len(argument) > 1:
            option, values = (argument if argument in names else ""), 0
        elif option:
            values += 1
            out += [option] if values > 1 else []
        out.append(argument)
    return out

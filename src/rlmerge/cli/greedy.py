"""Options that take every word up to the next option: `--tasks gsm8k ifeval --experts A B`."""

from __future__ import annotations

from collections.abc import Sequence

import click


class GreedyCommand(click.Command):
    """A command whose repeatable options may be given once with several values.

    `--tasks a b` means `--tasks a --tasks b`, so arguments of the command come first, or after another option or `--`.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for option in self.params if isinstance(option, click.Option) and option.multiple
                 for name in option.opts}  # fmt: skip
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

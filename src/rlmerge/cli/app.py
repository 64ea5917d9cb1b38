"""The `rlmerge` command: finds the verb, imports only its file, and turns what it raises into exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from rlmerge import __version__
from rlmerge.cli.failures import INTERRUPTED, Interrupted, report, translate
from rlmerge.cli.output import close_streams, open_streams
from rlmerge.errors import did_you_mean

VERBS = {
    "merge": "Merge the models of a recipe into a new model directory.",
    "plan": "Say what a merge would read, write and need; write nothing.",
    "verify": "Check an output directory against its manifest.",
    "inspect": "Say whether models will merge, and what would survive; merge nothing.",
    "eval": "Score base, experts and merges on tasks, and say what each merge kept.",
    "lab": "Train experts by reinforcement and supervision, merge them, judge the papers' claims.",
    "methods": "List the merge methods, or show one with its formula.",
    "sensitivity": "Measure how sensitive a model is to each of its weights (Fisher, Gram matrices).",
    "scaling": "Re-run the published study of sparsity against model size.",
}
"""Every verb with its line in the help. `rlmerge VERB` runs `command` of the module `rlmerge.cli.VERB`."""


class _Verbs(click.Group):
    """A group whose verbs are imported when used, so that help and errors stay fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return import_module(f"rlmerge.cli.{cmd_name}").command if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no verb '{args[0]}'. {did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # Click would first print an empty line, which is another error where stderr is closed.
            raise Interrupted from None
        except OSError as error:
            # Click would end the process without a word at a broken pipe.
            raise translate(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    subcommand_metavar="VERB [ARGUMENTS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="rlmerge")
@click.pass_context
def verbs(context: click.Context) -> None:
    """Merge RL-trained language models: plan, stream, and prove what survived.

    Exit codes: 0 done; 1 failed while running (--resume continues); 2 the request or an input is wrong.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        return verbs.main(list(arguments), prog_name="rlmerge", standalone_mode=False) or 0
    except Exception as error:
        return report(error, arguments)


def main() -> None:
    """Entry point of the `rlmerge` script."""
    open_streams()
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    close_streams()
    sys.exit(code)

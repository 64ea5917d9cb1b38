"""The `rlmerge` command: finds the verb, imports only its file, and turns what it raises into exit codes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from rlmerge import __version__
from rlmerge.cli.failures import INTERRUPTED, Interrupted, report, translate
from rlmerge.cli.output import close_streams, open_streams
from rlmerge.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

VERBS = {
    "merge": "Merge the models of a recipe into a new model directory.",
    "seal": "Complete a merge that several processes shared.",
    "plan": "Say what a merge would read, write and need; write nothing.",
    "convert": "Write what training left (rank files, DCP, adapters, deltas, FP8) as a plain model.",
    "extract-lora": "Write what a fine-tuned model changed of its base as a LoRA adapter.",
    "delta": "Keep a model as what it changed of its base; apply and check such deltas.",
    "tokens": "Give a model another model's tokenizer.",
    "moe": "Assemble a mixture of experts from dense models.",
    "migrate": "Explain a mergekit recipe line by line; write it with every value.",
    "verify": "Check an output directory against its manifest.",
    "push": "Send an output directory to a repository of the Hugging Face Hub.",
    "inspect": "Say whether models will merge, and what would survive; merge nothing.",
    "eval": "Score base, experts and merges on tasks, and say what each merge kept.",
    "tune": "Search the best recipe for given models, and confirm it on held-out items.",
    "calibrate": "Fit a recipe's coefficients to what its experts say on a few prompts.",
    "methods": "List the merge methods, or show one with its formula.",
    "sensitivity": "Measure how sensitive a model is to each of its weights (Fisher, Gram matrices).",
}
"""Our verbs with their lines in the help. `rlmerge VERB` runs `command` of the module `rlmerge.cli.VERB`."""

ADDED = "rlmerge.commands"
"""Entry points of this group are verbs of other packages: a click command, or a function that returns one.

The first line of its docstring is the verb's line in the help, which is all that is loaded for `rlmerge --help`.
"""


class _Verbs(click.Group):
    """A group whose verbs are imported when used, so that help and errors stay fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *_added()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in VERBS:
            return import_module(f"rlmerge.cli.{cmd_name.replace('-', '_')}").command
        point = _added().get(cmd_name)
        return None if point is None else _load(point)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            if args[0] not in known:
                ctx.fail(f"no verb '{args[0]}'. {did_you_mean(args[0], known)}")
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
            formatter.write_dl([*VERBS.items(), *((name, _line(point)) for name, point in _added().items())])


def _added() -> dict[str, EntryPoint]:
    """Verbs of other packages by name; none replaces one of ours."""
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=ADDED), key=lambda point: point.name)
    return {point.name: point for point in points if point.name not in VERBS}


def _line(point: EntryPoint) -> str:
    """What the help says of a verb; a package that cannot be imported costs its own verb alone."""
    try:
        found: Any = point.load()
    except (Exception, SystemExit) as error:
        return f"(cannot be loaded: {type(error).__name__})"
    said = found.help if isinstance(found, click.Command) else found.__doc__
    return (said or "").strip().partition("\n")[0]


def _load(point: EntryPoint) -> click.Command:
    """The command behind an entry point; RequestError naming its package when there is none."""
    try:
        found: Any = point.load()
        command = found if isinstance(found, click.Command) else found()
        if not isinstance(command, click.Command):
            raise TypeError(f"{point.value} gives no click command")
    except (Exception, SystemExit) as error:
        package = point.dist.name if point.dist else point.module
        what = f"its verb '{point.name}' cannot be loaded ({type(error).__name__}: {error})"
        raise RequestError(what, where=f"package '{package}'", hint="Update or remove that package.") from error
    return command


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
    # Imports and plans of large models are many objects without cycles, which a collector would walk over and over.
    gc.set_threshold(200_000, 25, 25)
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    close_streams()
    gc.freeze()  # what is left goes with the process; the interpreter would look for cycles in it as it ends
    sys.exit(code)

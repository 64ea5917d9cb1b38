"""`rlmerge seal`: the shares of a merge become one output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rlmerge.cli.arguments import OutputPath
from rlmerge.cli.failures import interruptible
from rlmerge.cli.merge import merge_text
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT, read_requests, request_options


@click.command()
@request_options
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(out: Path, quiet: bool, output_format: str, **request: Any) -> None:
    """Complete a merge whose shares were made with `rlmerge merge --shards`.

    Takes the arguments of those merges. Every tensor is read again and compared with its digest; then index, config,
    tokenizer, card and manifest are written, and the directory appears under its name. The bytes are those that one
    process would have written.

    \b
    rlmerge merge recipe.yaml -o merged --shards 1/2 &
    rlmerge merge recipe.yaml -o merged --shards 2/2 & wait
    rlmerge seal recipe.yaml -o merged
    """
    recipes, options = read_requests(request)
    from rlmerge.api import seal_plan
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging import make_plan
    from rlmerge.recipe.load import only

    plan = make_plan(only(recipes), out, replace(options, resume=True))
    with interruptible(out):
        with show_progress(quiet) as progress:
            result = seal_plan(plan, out, progress)
        if output_format == "json":
            emit_json(result.to_dict(), unless=out)
        else:
            emit(merge_text(result, width=width(), color=color()), unless=out)

"""`rlmerge merge`: a recipe in, a sealed model directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlmerge.cli.failures import interruptible
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.paths import OutputPath
from rlmerge.cli.request import FORMAT, read_request, request_options


@click.command()
@request_options
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(out: Path, quiet: bool, output_format: str, **request: Any) -> None:
    """Merge the models of a recipe into a new model directory.

    The directory appears under its name only once it is complete. An interrupted merge continues with --resume.

    \b
    rlmerge merge recipe.yaml -o merged
    rlmerge merge --method ram --base BASE MATH CODE -p r=0.2 -o merged
    """
    recipe, options = read_request(request)
    from rlmerge.api import run_plan
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging import make_plan
    from rlmerge.report.terminal import merge_text

    plan = make_plan(recipe, out, options)
    with interruptible(out):
        with show_progress(quiet) as progress:
            result = run_plan(plan, out, progress).to_dict()
        if output_format == "json":
            emit_json(result, unless=out)
        else:
            emit(merge_text(result, width=width(), color=color()), unless=out)

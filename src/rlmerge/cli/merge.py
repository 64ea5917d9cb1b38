"""`rlmerge merge`: a recipe in, a sealed model directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlmerge.cli.failures import interruptible
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.paths import OutputPath
from rlmerge.cli.request import FORMAT, read_requests, request_options


@click.command()
@request_options
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option("--keep-stages", is_flag=True, help="Keep the results of a file's other recipes in OUT.stages.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(out: Path, quiet: bool, output_format: str, keep_stages: bool, **request: Any) -> None:
    """Merge the models of a recipe into a new model directory.

    The directory appears under its name only once it is complete. An interrupted merge continues with --resume.

    \b
    rlmerge merge recipe.yaml -o merged
    rlmerge merge --method ram --base BASE MATH CODE -p r=0.2 -o merged
    """
    recipes, options = read_requests(request)
    from rlmerge.api import run_plan
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging import plan_stages, run_stages
    from rlmerge.report.terminal import merge_text

    stages = plan_stages(recipes, out, options)
    with interruptible(out):
        with show_progress(quiet) as progress:
            for note in stages[-1].plan.beside.notes:
                progress.message(f"note: {note}")
            result = run_stages(stages, options, run_plan, progress, keep_stages).to_dict()
        if output_format == "json":
            emit_json(result, unless=out)
        else:
            emit(merge_text(result, width=width(), color=color()), unless=out)

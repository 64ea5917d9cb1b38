"""`rlmerge merge`: a recipe in, a sealed model directory out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.failures import interruptible
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.paths import OutputPath
from rlmerge.cli.request import FORMAT, read_requests, request_options

if TYPE_CHECKING:
    from rlmerge.options import Options
    from rlmerge.recipe import Recipe


@click.command()
@request_options
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option("--keep-stages", is_flag=True, help="Keep the results of a file's other recipes in OUT.stages.")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["weights", "adapter"]),
    default="weights",
    show_default=True,
    help="Write a whole model, or of adapters an adapter: exact, and nothing is lost to rounding.",
)
@click.option("--rank", type=click.IntRange(min=1), help="With --as adapter: bring the adapter to at most this rank.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    out: Path, quiet: bool, output_format: str, keep_stages: bool, kind: str, rank: int | None, **request: Any
) -> None:
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

    if kind == "adapter":
        _write_adapter(recipes, out, options, rank, quiet, output_format)
        return
    if rank is not None:
        raise click.UsageError("--rank goes with --as adapter")
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


def _write_adapter(
    recipes: Sequence[Recipe], out: Path, options: Options, rank: int | None, quiet: bool, output_format: str
) -> None:
    from rlmerge.cli.extract_lora import text
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging.as_adapter import merge_as_adapter
    from rlmerge.recipe.load import only

    with interruptible(out):
        with show_progress(quiet) as progress:
            result = merge_as_adapter(only(tuple(recipes)), out, options, rank, progress)
        if output_format == "json":
            emit_json(result.to_dict(), unless=out)
        else:
            emit(text(result.to_dict()), unless=out)

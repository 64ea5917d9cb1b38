"""`rlmerge convert`: whatever training left, in; a sealed Hugging Face directory, out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlmerge.cli.arguments import OutputPath, Size
from rlmerge.cli.failures import interruptible
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT, ON_NONFINITE


@click.command()
@click.argument("source", metavar="SRC")
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option("--base", metavar="MODEL", help="The model that an adapter or delta belongs to.")
@click.option("--out-dtype", metavar="TYPE", help="Type of the weights, like bfloat16; as they are by default.")
@click.option("--memory", type=Size(), default="512MiB", show_default=True, help="Memory budget of the run.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; as many as there are cores by default.")
@click.option("--shard-size", type=Size(), default="5GB", show_default=True, help="Largest output shard.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run into the same directory.")
@click.option("--force", is_flag=True, help="Replace an existing output directory once the new one is complete.")
@ON_NONFINITE
@click.option("--trust-code", is_flag=True, help="Copy the Python files that the configuration names.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(source: str, out: Path, base: str | None, quiet: bool, output_format: str, **options: Any) -> None:
    """Write FSDP rank files, DCP or ZeRO checkpoints, adapters, deltas or quantised weights as a plain model.

    Tile by tile in bounded memory; no pickle is executed and no torch is needed.

    \b
    rlmerge convert checkpoints/global_step_300/actor -o model --out-dtype bfloat16
    rlmerge convert adapter --base BASE -o model
    """
    from rlmerge.api import run_plan
    from rlmerge.cli.merge import merge_text
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging import plan_stages, run_stages
    from rlmerge.options import Options
    from rlmerge.recipe import recipe_from_flags

    model = source if base is None else f"{base}+{source}"
    recipe = recipe_from_flags("passthrough", None, [model])
    chosen = Options.of(**{name: value for name, value in options.items() if value is not None})
    stages = plan_stages((recipe,), out, chosen)
    with interruptible(out):
        with show_progress(quiet) as progress:
            for note in stages[-1].plan.beside.notes:
                progress.message(f"note: {note}")
            result = run_stages(stages, chosen, run_plan, progress)
        if output_format == "json":
            emit_json(result.to_dict(), unless=out)
        else:
            emit(merge_text(result, width=width(), color=color()), unless=out)

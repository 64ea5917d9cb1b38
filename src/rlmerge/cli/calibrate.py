"""`rlmerge calibrate`: coefficients of a recipe, fitted to what its experts say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlmerge.calibration.options import DTYPES, FITS, RESPONSES
from rlmerge.cli.arguments import GreedyCommand, OutputPath, Size
from rlmerge.cli.output import check_writable, color, emit, emit_json, width, write_file
from rlmerge.cli.request import FORMAT

_DATA = "FILE.jsonl[:TASK], a text file with a prompt a line, or reasoning-gym:TASK"


@click.command(name="calibrate", cls=GreedyCommand)
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.yaml")
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT.yaml", help="Recipe to write.")
@click.option("--prompts", multiple=True, metavar="EXPERT=DATA...", help=f"Prompts of an expert's own kind: {_DATA}.")
@click.option("--drift", metavar="DATA", help="Prompts of no expert, on which the merge is to stay the base.")
@click.option("--drift-weight", type=float, default=1.0, show_default=True, help="What the base counts beside them.")
@click.option(
    "--fit",
    type=click.Choice(FITS),
    default="auto",
    show_default=True,
    help="A weight for each expert, one lambda for all, or whichever the method is linear in.",
)
@click.option("--layer-groups", type=int, default=4, show_default=True, help="Runs of layers; 0 is one for all.")
@click.option("--kinds", is_flag=True, help="Cut the groups by module type, too.")
@click.option("--sequences", type=int, default=64, show_default=True, help="Prompts to fit on.")
@click.option("--held-out", type=int, default=16, show_default=True, help="Prompts after these, only reported.")
@click.option(
    "--responses",
    type=click.Choice(RESPONSES),
    default="sampled",
    show_default=True,
    help="Draw the experts' own, or take those of the data.",
)
@click.option("--samples", type=int, default=1, show_default=True, help="Own samples for each prompt.")
@click.option("--max-length", type=int, default=2048, show_default=True, help="Tokens of prompt and response.")
@click.option("--max-new-tokens", type=int, default=256, show_default=True, help="Tokens of an own sample.")
@click.option("--top", type=int, default=256, show_default=True, help="Likeliest tokens told apart at a position.")
@click.option("--ridge", type=float, default=1e-4, show_default=True, help="Price of moving from the start.")
@click.option("--steps", type=int, default=40, show_default=True, help="Steps of the search at most.")
@click.option("--batch-size", type=int, default=8, show_default=True, help="Sequences in a pass.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the samples and of reasoning-gym.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Type of the model.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto takes a GPU if there is.")
@click.option("--gradient-checkpointing", is_flag=True, help="Recompute activations: less memory, a third more time.")
@click.option("--stream-gradients", is_flag=True, help="Hold one tensor's gradient, not the model's.")
@click.option("--scratch", metavar="DIR", help="Hold base and changes in files there, not in memory.")
@click.option("--memory", type=Size(), default="512MiB", show_default=True, help="Memory budget of the merges.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; as many as there are cores by default.")
@click.option("--report", type=OutputPath(), metavar="FILE", help="Write an HTML report.")
@click.option("--json", "json_file", type=OutputPath(), metavar="FILE", help="Write the figures as JSON.")
@click.option("--force", is_flag=True, help="Replace an existing recipe.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    recipe: Path,
    out: Path,
    prompts: tuple[str, ...],
    drift: str | None,
    report: Path | None,
    json_file: Path | None,
    quiet: bool,
    output_format: str,
    **options: Any,
) -> None:
    """Fit the coefficients of a recipe to what its experts say on a few dozen unlabelled prompts each.

    Minimises KL(expert || merged) on the experts' own responses, and writes the recipe with the values that do. It can
    serve later checkpoints of the same runs.

    \b
    rlmerge calibrate recipe.yaml --prompts MATH=math.jsonl CODE=code.jsonl -o calibrated.yaml
    rlmerge merge calibrated.yaml -o merged
    """
    from rlmerge.api import calibrate
    from rlmerge.calibration.report.terminal import calibration_text
    from rlmerge.cli.progress import show_progress

    check_writable(out, report, json_file)
    with show_progress(quiet) as progress:
        found = calibrate(recipe, out, read_prompts(prompts), drift=drift, progress=progress, **options)
    result = found.to_dict()
    if json_file is not None:
        write_file(json_file, found.to_json() + "\n")
    if report is not None:
        from rlmerge.calibration.report.page import calibration_html

        write_file(report, calibration_html(result))
    if output_format == "json":
        emit_json(result)
    else:
        emit(calibration_text(result, width=width(), color=color()))


def read_prompts(given: Sequence[str]) -> dict[str, str]:
    """Data by expert."""
    found: dict[str, str] = {}
    for text in given:
        expert, equals, data = text.partition("=")
        if not expert or not equals or not data:
            raise click.UsageError(f"--prompts {text}: write --prompts EXPERT=DATA", click.get_current_context())
        if expert in found:
            raise click.UsageError(f"--prompts {expert} is given twice; join the files", click.get_current_context())
        found[expert] = data
    return found

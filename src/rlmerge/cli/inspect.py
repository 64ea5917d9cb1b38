"""`rlmerge inspect`: will these models merge, and what survives? Asked before, or after with --against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.cli.arguments import OutputPath, Size
from rlmerge.cli.output import check_writable, color, emit, emit_json, width, write_file
from rlmerge.cli.request import FORMAT

if TYPE_CHECKING:
    from rlmerge.recipe import Recipe


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="EXPERT... | MERGED --against RECIPE")
@click.option("--base", metavar="MODEL", help="The model the experts were trained from.")
@click.option("--against", type=click.Path(path_type=Path), metavar="RECIPE", help="Look back on a merge: its recipe.")
@click.option("-o", "--out", type=OutputPath(), metavar="FILE", help="Write a self-contained HTML report.")
@click.option("--json", "json_file", type=OutputPath(), metavar="FILE", help="Write all figures as JSON.")
@click.option("--spectral", is_flag=True, help="Add singular values and principal angles; slow.")
@click.option("--exact", is_flag=True, help="Forecast from every weight, not from a sample of a large model.")
@click.option("--sample", is_flag=True, help="Read headers and a sample of the weights; figures carry their error.")
@click.option("--memory", type=Size(), default="512MiB", show_default=True, help="Memory budget.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; as many as there are cores by default.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    models: tuple[str, ...],
    base: str | None,
    against: Path | None,
    out: Path | None,
    json_file: Path | None,
    spectral: bool,
    exact: bool,
    sample: bool,
    memory: int,
    workers: int | None,
    quiet: bool,
    output_format: str,
) -> None:
    """Measure experts against their base: sparsity, overlap, conflict, what each method would leave, a recipe to try.

    With --against, MERGED is a finished merge, and RECIPE the recipe (or rlmerge.lock.yaml) it was made from.
    """
    from rlmerge.cli.progress import show_progress
    from rlmerge.inspection.inspect import PART, SAMPLE, inspect
    from rlmerge.options import Options
    from rlmerge.recipe import load_recipe

    if sample and (exact or spectral or against is not None):
        raise click.UsageError("--sample goes without --exact, --spectral and --against", click.get_current_context())
    recipe = None if against is None else load_recipe(against)
    base, experts, merged = _models(models, base, recipe)
    check_writable(out, json_file)
    with show_progress(quiet) as progress:
        found = inspect(
            base,
            experts,
            merged=merged,
            recipe=recipe,
            options=Options(memory=memory, workers=workers),
            sample=0 if exact else SAMPLE,
            part=PART if sample else None,
            spectral=spectral,
            progress=progress,
        )
    if json_file is not None:
        write_file(json_file, found.to_json() + "\n")
    if out is not None:
        write_file(out, found.to_html())
    if output_format == "json":
        emit_json(found.to_dict())
    else:
        from rlmerge.inspection.report.terminal import inspect_text

        emit(inspect_text(found, width=width(), color=color()))


def _models(models: Sequence[str], base: str | None, recipe: Recipe | None) -> tuple[str, tuple[str, ...], str | None]:
    """Base, experts and, with a recipe, the merged model."""
    context = click.get_current_context()
    if recipe is None:
        if base is None:
            raise click.UsageError("name the model the experts were trained from: --base MODEL", context)
        return base, tuple(models), None
    if base is not None or len(models) != 1:
        raise click.UsageError("--against takes one merged model and no --base; the recipe names the others", context)
    if recipe.base is None:
        raise click.UsageError("the recipe has no base_model to measure against; add one", context)
    return str(recipe.base), tuple(str(expert.model) for expert in recipe.experts), models[0]

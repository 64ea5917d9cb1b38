"""`rlmerge inspect`: will these models merge, and what survives? Asked before, or after with --against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT
from rlmerge.cli.sizes import Size

if TYPE_CHECKING:
    from rlmerge.recipe import Recipe


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="EXPERT... | MERGED --against RECIPE")
@click.option("--base", metavar="MODEL", help="The model the experts were trained from.")
@click.option("--against", type=click.Path(path_type=Path), metavar="RECIPE", help="Look back on a merge: its recipe.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write a self-contained HTML report."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all figures as JSON.")
@click.option("--spectral", is_flag=True, help="Add singular values and principal angles; slow.")
@click.option("--exact", is_flag=True, help="Forecast from every weight, not from a sample of a large model.")
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
    memory: int,
    workers: int | None,
    quiet: bool,
    output_format: str,
) -> None:
    """Measure experts against their base: sparsity, overlap, conflict, what each method would leave, a recipe to try.

    With --against, MERGED is a finished merge, and RECIPE the recipe (or rlmerge.lock.yaml) it was made from.
    """
    from rlmerge.cli.progress import show_progress
    from rlmerge.inspection.inspect import SAMPLE, inspect
    from rlmerge.options import Options
    from rlmerge.report.inspect_terminal import inspect_text

    recipe = None if against is None else _recipe(against)
    base, experts, merged = _models(models, base, recipe)
    for file in (out, json_file):
        _check_writable(file)
    with show_progress(quiet) as progress:
        found = inspect(
            base,
            experts,
            merged=merged,
            recipe=recipe,
            options=Options(memory=memory, workers=workers),
            sample=0 if exact else SAMPLE,
            spectral=spectral,
            progress=progress,
        )
    result = found.to_dict()
    if json_file is not None:
        json_file.write_text(found.to_json() + "\n", encoding="utf-8")
    if out is not None:
        from rlmerge.report.html import inspect_html

        out.write_text(inspect_html(result), encoding="utf-8")
    if output_format == "json":
        emit_json(result)
    else:
        emit(inspect_text(result, width=width(), color=color()))


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


def _recipe(path: Path) -> Recipe:
    """The recipe in a recipe file, or inside a lock file."""
    import yaml

    from rlmerge.recipe import load_recipe

    if path.name.endswith(".lock.yaml") and path.is_file():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("recipe"), dict):
            return load_recipe(content["recipe"])
    return load_recipe(path)


def _check_writable(file: Path | None) -> None:
    """UsageError before the work rather than after it when a result could not be written."""
    if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
        problem = "is a directory" if file.is_dir() else "its directory does not exist"
        raise click.UsageError(f"cannot write {file}: {problem}", click.get_current_context())

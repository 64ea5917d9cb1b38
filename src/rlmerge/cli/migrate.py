"""`rlmerge migrate`: what a mergekit recipe means here, line by line, and the recipe with every value written down."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.cli.arguments import OutputPath
from rlmerge.cli.output import emit, emit_json
from rlmerge.cli.request import FORMAT

if TYPE_CHECKING:
    from rlmerge.recipe.migrate import Migration

_MARKS = {"same": "=", "differs": "~", "no effect": "-"}


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE.yaml")
@click.option("-o", "--out", type=OutputPath(), metavar="FILE", help="Write the explicit recipe there.")
@click.option("--compat", is_flag=True, help="As with `compat: mergekit`: mergekit's values where ours differ.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@FORMAT
def command(recipe: Path, out: Path | None, compat: bool, force: bool, output_format: str) -> None:
    """Explain a mergekit recipe and write it out with every value in force.

    Each line is marked: = means the same as in mergekit, ~ differs and says why, - has no effect.
    """
    from rlmerge.recipe.migrate import migrate

    found = migrate(recipe, compat=compat)
    if out is not None:
        _write(out, found.text, force)
    if output_format == "json":
        emit_json({**asdict(found), "out": None if out is None else str(out)})
        return
    emit(_text(found))
    emit(f"written to {out}" if out is not None else f"\n{found.text}".rstrip("\n"))


def _text(found: Migration) -> str:
    lines: list[str] = []
    for line in found.lines:
        lines.append(f"{line.number:5}  {_MARKS[line.verdict]}  {line.text}")
        lines += [f"            {why}" for why in line.why]
    return "\n".join([*lines, *found.remarks])


def _write(out: Path, text: str, force: bool) -> None:
    """UsageError, with nothing changed, where the file exists or cannot be written."""
    try:
        with out.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise click.UsageError(f"{out} exists; --force replaces it", click.get_current_context()) from None
    except OSError as error:
        raise click.UsageError(f"cannot write {out}: {error.strerror}", click.get_current_context()) from error

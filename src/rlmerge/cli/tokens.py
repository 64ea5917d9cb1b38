"""`rlmerge tokens`: a model with another's tokenizer."""

from __future__ import annotations

from typing import Any

import click

from rlmerge.cli.arguments import OutputPath, Size
from rlmerge.cli.output import emit, emit_json
from rlmerge.cli.request import FORMAT

_FILLS = ("omp", "nearest", "mean", "zero")


@click.command()
@click.argument("model")
@click.argument("donor")
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option(
    "--fill",
    type=click.Choice(_FILLS),
    default="omp",
    show_default=True,
    help="Rows of new tokens: sums of shared ones, the most similar one, the mean of all, or zeros.",
)
@click.option("--terms", type=click.IntRange(1, 1024), default=64, show_default=True, help="With omp: rows in a sum.")
@click.option(
    "--pad-to-multiple-of", type=click.IntRange(1, 2**20), metavar="N", help="Rows of the tables; else the donor's."
)
@click.option("--shard-size", type=Size(), default="5GB", show_default=True, help="Largest output shard.")
@click.option("--force", is_flag=True, help="Replace an existing output directory once the new one is complete.")
@click.option("--trust-code", is_flag=True, help="Copy Python files that a configuration names (auto_map).")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(model: str, donor: str, quiet: bool, output_format: str, **options: Any) -> None:
    """Write MODEL with the tokenizer, chat template and stop tokens of DONOR.

    Tokens that both have keep MODEL's rows; each new one is described by shared tokens in DONOR's embedding, and made
    of MODEL's rows of the same tokens. Use it to draft for, or distil from, a model with another vocabulary.
    """
    from rlmerge.cli.progress import show_progress
    from rlmerge.transplant import transplant

    with show_progress(quiet) as progress:
        found = transplant(model, donor, progress=progress, **options)
    if output_format == "json":
        emit_json(found.to_dict())
        return
    lines = [f"{found.model} with the tokenizer of {found.donor} → {found.out}", ""]
    lines.append(
        f"tokens   {found.tokens:,} in {found.rows:,} rows: {found.shared:,} kept, {found.made:,} by {found.fill}"
    )
    lines += [f"warning: {warning}" for warning in found.warnings]
    lines += [f"note: {note}" for note in found.notes]
    emit("\n".join(lines))

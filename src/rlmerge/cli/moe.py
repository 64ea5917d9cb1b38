"""`rlmerge moe`: a mixture of experts from dense models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlmerge.cli.arguments import OutputPath, Size
from rlmerge.cli.output import emit, emit_json
from rlmerge.cli.request import FORMAT


@click.command()
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.yaml")
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="For random routers and noise."
)
@click.option("--device", default="auto", show_default=True, help="With gate_mode hidden: where the base runs.")
@click.option("--shard-size", type=Size(), default="5GB", show_default=True, help="Largest output shard.")
@click.option("--force", is_flag=True, help="Replace an existing output directory once the new one is complete.")
@click.option("--trust-code", is_flag=True, help="Copy Python files that a configuration names (auto_map).")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(config: Path, out: Path, quiet: bool, output_format: str, **options: Any) -> None:
    """Write the mixture of experts that CONFIG.yaml describes, in the keys of mergekit-moe.

    The base gives embeddings, attention and norms, every expert its MLPs; routers come from prompts or are random.
    """
    from rlmerge.cli.progress import show_progress
    from rlmerge.moe import assemble_moe

    with show_progress(quiet) as progress:
        found = assemble_moe(config, out, progress=progress, **options)
    if output_format == "json":
        emit_json(found.to_dict(), unless=found.out)
        return
    lines = [f"{len(found.experts)} experts on {found.base} → {found.out}", ""]
    shared = f", {len(found.shared)} shared" if found.shared else ""
    lines.append(f"model    {found.architecture}: {found.experts_per_token} experts a token{shared}")
    lines.append(f"routers  {found.gate_mode}")
    lines += [f"warning: {warning}" for warning in found.warnings]
    lines += [f"note: {note}" for note in found.notes]
    emit("\n".join(lines), unless=found.out)

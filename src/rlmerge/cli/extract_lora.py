"""`rlmerge extract-lora`: a full model in, the adapter nearest to what it changed of its base out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rlmerge.cli.arguments import OutputPath
from rlmerge.cli.output import emit, emit_json
from rlmerge.cli.request import FORMAT

MANY = 300
"""Modules above which they are summed up by kind; JSON has them all."""

_POOR = 0.3


@click.command()
@click.argument("expert", metavar="EXPERT")
@click.option("--base", required=True, metavar="MODEL", help="The model that the expert was trained from.")
@click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
@click.option("--rank", type=click.IntRange(min=1), default=16, show_default=True, help="Rank of the factors.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave tensors of such names as in the base, like '*.experts.*'; may be repeated.",
)
@click.option("--whole-embeddings", is_flag=True, help="Store changed embeddings whole instead of by factors.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the adapter's weights.",
)
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same settings.")
@click.option("--force", is_flag=True, help="Replace an existing output directory once the new one is complete.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(expert: str, base: str, out: Path, dtype: str, quiet: bool, output_format: str, **options: Any) -> None:
    """Write what a fine-tuned model changed of its base as a LoRA adapter.

    Prints for each module the relative norm of what its factors lack. What was trained in bfloat16 is changed by
    rounding in ways that are not of low rank: look at these numbers before you rely on the adapter.

    \b
    rlmerge extract-lora expert --base BASE --rank 32 -o adapter
    """
    from rlmerge.adapters import extract_lora
    from rlmerge.checkpoint import open_checkpoint
    from rlmerge.cli.progress import show_progress
    from rlmerge.kernels.dtypes import BY_NAME

    before = open_checkpoint(base)
    after = open_checkpoint(expert, base=before)
    with show_progress(quiet) as progress:
        found = extract_lora(before, after, out, dtype=BY_NAME[dtype], progress=progress, **options)
    result = found.to_dict()
    for warning in result["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if output_format == "json":
        emit_json(result)
    else:
        emit(text(result))


def text(result: Mapping[str, Any]) -> str:
    """What was written and what it lacks, module by module, or by kind where there are many."""
    from rlmerge.report.console import size_text

    modules: Sequence[Mapping[str, Any]] = result["modules"]
    lines = [f"{result['out']}: {len(modules)} modules of {result['base']}, {size_text(result['bytes'])}"]
    rows = [_row(module["name"], [module]) for module in modules]
    if len(rows) > MANY:
        rows = [_row(f"{kind} × {len(alike)}", alike) for kind, alike in _kinds(modules).items()]
    width = max((len(name) for name, _, _ in rows), default=0)
    lines += [f"  {name:<{width}}  {rank:>9}  {residual}" for name, rank, residual in rows]
    lines.append(f"  {_percent(result['residual'])} of the change is lost (relative norm)")
    if result["residual"] > _POOR:
        lines.append("  The change is not of low rank; take a larger --rank, or keep the full model.")
    return "\n".join(lines)


def _row(name: str, modules: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    lost, total = (math.fsum(module[key] for module in modules) for key in ("lost", "total"))
    ranks = {module["rank"] for module in modules}
    rank = "whole" if ranks == {None} else "left out" if ranks == {0} else f"rank {max(r or 0 for r in ranks)}"
    share = math.sqrt(lost / total) if total else 0.0
    return name, rank, f"{_percent(share)} lost" if share else "exact"


def _kinds(modules: Iterable[Mapping[str, Any]]) -> Mapping[str, list[Mapping[str, Any]]]:
    """The modules by the last part of their names, and by whether they have factors."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for module in modules:
        kinds.setdefault(module["name"].removesuffix(".weight").rpartition(".")[2], []).append(module)
    return kinds


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"

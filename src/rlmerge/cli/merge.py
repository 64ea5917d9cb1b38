"""`rlmerge merge`: a recipe in, a sealed model directory out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlmerge.addresses import addressed
from rlmerge.cli.arguments import OutputPath, ShareType
from rlmerge.cli.failures import interruptible
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT, read_requests, request_options
from rlmerge.text import displayed, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from rlmerge.checkpoint.shares import Share
    from rlmerge.merging import MergeResult
    from rlmerge.merging.account import Detail, ExpertSurvival, Routers
    from rlmerge.merging.shares import ShareResult
    from rlmerge.options import Options
    from rlmerge.recipe import Recipe


@click.command()
@request_options
@click.option(
    "-o",
    "--out",
    required=True,
    type=OutputPath(remote=True),
    metavar="OUT",
    help="Directory to write, or a folder of an object store: s3://, gs://, az://.",
)
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
@click.option(
    "--shards",
    "share",
    type=ShareType(),
    metavar="N/M",
    help="Merge only the N-th of M shares of the shards, beside other processes; `rlmerge seal` completes the output.",
)
@click.option(
    "--executor",
    metavar="ray | ray://HOST:PORT",
    help="Let a Ray cluster merge, a task a shard, over a file system that its nodes share.",
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    out: Path,
    quiet: bool,
    output_format: str,
    keep_stages: bool,
    kind: str,
    rank: int | None,
    share: Share | None,
    executor: str | None,
    **request: Any,
) -> None:
    """Merge the models of a recipe into a new model directory.

    The directory appears under its name only once it is complete. An interrupted merge continues with --resume.

    \b
    rlmerge merge recipe.yaml -o merged
    rlmerge merge --method ram --base BASE MATH CODE -p r=0.2 -o merged
    """
    # Tensors are merged side by side, so threads of BLAS would only wait, at a processor's full cost.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    recipes, options = read_requests(request)
    from rlmerge.api import run_plan
    from rlmerge.checkpoint.partial import uploading
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging import plan_stages, run_stages

    if executor is not None and (executor != "ray" and not executor.startswith("ray://")):
        raise click.UsageError(f"no executor '{executor}'; known: ray, ray://HOST:PORT")
    if executor is not None and (kind == "adapter" or keep_stages or share is not None):
        raise click.UsageError("--executor goes without --as adapter, --keep-stages and --shards")
    if uploading(out) is not None and (kind == "adapter" or keep_stages or share is not None or executor is not None):
        raise click.UsageError("--as adapter, --keep-stages, --shards and --executor write directories on this machine")
    if share is not None:
        if kind == "adapter" or keep_stages:
            raise click.UsageError("--shards goes without --as adapter and --keep-stages")
        _merge_share(recipes, out, options, share, quiet, output_format)
        return
    if kind == "adapter":
        _write_adapter(recipes, out, options, rank, quiet, output_format)
        return
    if rank is not None:
        raise click.UsageError("--rank goes with --as adapter")
    if executor is not None:
        from functools import partial

        from rlmerge.api import run_plan_on
        from rlmerge.recipe.load import only

        only(tuple(recipes))
        run = partial(run_plan_on, executor)
    else:
        run = run_plan
    stages = plan_stages(recipes, out, options)
    with interruptible(out):
        with show_progress(quiet) as progress:
            for note in stages[-1].plan.beside.notes:
                progress.message(f"note: {note}")
            result = run_stages(stages, options, run, progress, keep_stages)
        if output_format == "json":
            emit_json(result.to_dict(), unless=out)
        else:
            emit(merge_text(result, width=width(), color=color()), unless=out)


def _merge_share(
    recipes: Sequence[Recipe], out: Path, options: Options, share: Share, quiet: bool, output_format: str
) -> None:
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging import make_plan
    from rlmerge.merging.shares import run_share
    from rlmerge.recipe.load import only

    plan = make_plan(only(tuple(recipes)), out, options)
    with show_progress(quiet) as progress:
        result = run_share(plan, out, share, progress)
    if output_format == "json":
        emit_json(result.to_dict())
    else:
        emit(share_text(result))


def share_text(result: ShareResult) -> str:
    """What one process did of a merge that several share."""
    from rlmerge.report.console import duration_text, size_text

    resumed = f" ({result.resumed} from before)" if result.resumed else ""
    peak = "" if result.peak_memory is None else f", peak memory {size_text(result.peak_memory)}"
    return (
        f"share {result.share} of {plain(result.out)}: {len(result.shards)} of {result.of_shards} shards, "
        f"{result.tensors} tensors{resumed}, {size_text(result.bytes_written)} written "
        f"in {duration_text(result.seconds)}{peak}\n"
        f"When all shares are merged: rlmerge seal … -o {plain(result.out)}"
    )


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


def merge_text(result: MergeResult, *, width: int, color: bool) -> str:
    """What a merge did: per expert what survived and at which coefficient, then cost and warnings."""
    from rlmerge.report.console import render, warning_lines

    result = displayed(result)
    parts: list[RenderableType] = [f"{result.method} ({result.status}) → {plain(addressed(str(result.out)))}"]
    if result.experts:
        parts.append(_survival(result.experts))
    if result.routers:
        parts.append(_routers(result.routers))
    if result.details:
        parts.append(_details(result.details))
    return render([*parts, _cost(result), *warning_lines(result.warnings)], width, color, apart=True)


def _survival(experts: Sequence[ExpertSurvival]) -> Table:
    """Per expert: entries changed, by no other, still changed in the output, taken back by rounding, and the factor."""
    from rlmerge.report.console import table

    made = table("expert", ">changed", ">unique", ">survived", ">erased", ">coefficient", rules=False)
    for expert in experts:
        made.add_row(
            expert.name,
            f"{expert.changed:,}",
            f"{expert.unique:,}",
            _share(expert.survived, expert.changed),
            _share(expert.erased, expert.changed),
            f"{_coefficient(expert.requested)} → {_coefficient(expert.realised)}",
        )
    return made


def _routers(routers: Routers) -> Table:
    """Per expert what its routers became, how far training moved them, and how far the output is from them."""
    from rlmerge.report.console import table

    shown = f"routers ({routers.tensors})"
    made = table(shown, ">moved", ">changed", ">survived", ">erased", ">coefficient", ">output away", rules=False)
    for expert in routers.experts:
        made.add_row(
            expert.name,
            _percent(expert.moved),
            f"{expert.changed:,}",
            _share(expert.survived, expert.changed),
            _share(expert.erased, expert.changed),
            f"{_coefficient(expert.requested)} → {_coefficient(expert.realised)}",
            _percent(expert.distance),
        )
    made.add_row(
        "output",
        _percent(routers.moved),
        f"{routers.changed:,}",
        _share(routers.survived, routers.changed),
        *("", "", ""),
    )
    return made


def _details(details: Sequence[Detail]) -> Table:
    """What the method measured of its own work: over the model, and the range over its tensors."""
    from rlmerge.report.console import table

    made = table("measured by the method", ">model", ">tensors from", ">to", rules=False)
    for detail in details:
        low, high = detail.range or (None, None)
        made.add_row(detail.label, _ratio(detail.value), _ratio(low), _ratio(high))
    return made


def _cost(result: MergeResult) -> str:
    from rlmerge.report.console import duration_text, size_text

    read, written, seconds = result.bytes_read, result.bytes_written, result.seconds
    resumed = f" ({result.resumed} from before)" if result.resumed else ""
    rate = f" ({size_text(round((read + written) / seconds))}/s)" if seconds > 0 else ""
    peak = "" if result.peak_memory is None else f", peak memory {size_text(result.peak_memory)}"
    return (
        f"{result.tensors} tensors{resumed}, {size_text(read)} read, {size_text(written)} written "
        f"in {duration_text(seconds)}{rate}{peak}"
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _coefficient(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

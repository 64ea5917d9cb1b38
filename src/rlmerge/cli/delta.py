"""`rlmerge delta`: what an expert changed in its base, as a small file, and the expert back from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.arguments import OutputPath, Size
from rlmerge.cli.output import emit, emit_json
from rlmerge.cli.request import FORMAT

if TYPE_CHECKING:
    from rlmerge.checkpoint import Checkpoint

_BASE = "The model that the expert was trained from."
_OUT = click.option("-o", "--out", required=True, type=OutputPath(), metavar="OUT", help="Directory to write.")
_RESUME = click.option("--resume", is_flag=True, help="Continue an interrupted run into the same directory.")
_FORCE = click.option("--force", is_flag=True, help="Replace an existing directory once the new one is complete.")
_QUIET = click.option("--quiet", is_flag=True, help="No progress on stderr.")


@click.group()
def command() -> None:
    """Keep an expert as what it changed in its base, bit for bit.

    A delta directory can be merged in the expert's place, with its base as base_model. So can what slime, miles,
    SkyRL, TRL and grail publish; `extract` turns that into a delta too.

    \b
    rlmerge delta extract --base BASE EXPERT -o DELTA
    rlmerge delta verify  --base BASE DELTA
    rlmerge delta apply   --base BASE DELTA -o EXPERT
    """


@command.command()
@click.argument("expert", metavar="EXPERT")
@click.option("--base", required=True, metavar="MODEL", help=_BASE)
@_OUT
@_RESUME
@_FORCE
@_QUIET
@FORMAT
def extract(expert: str, base: str, out: Path, resume: bool, force: bool, quiet: bool, output_format: str) -> None:
    """Write what EXPERT, a model or a published chain of deltas, changed in its base."""
    from rlmerge.checkpoint.formats.delta_extract import extract as write
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging.place import check_place
    from rlmerge.report.console import size_text

    before, after = _open(expert, base)
    check_place(out, [before, after], force)
    with show_progress(quiet) as progress:
        _warn(after, progress)
        progress.start("extract", 2 * sum(x.numel * x.dtype.itemsize for x in after.tensors.values()))
        found = write(before, after, out, resume=resume, force=force, advance=progress.advance)
        progress.done()
    result: dict[str, Any] = {
        "out": str(out),
        "tensors": found.tensors,
        "elements": found.elements,
        "changed": found.changed,
        "expert_bytes": found.expert_bytes,
        "delta_bytes": found.delta_bytes,
        "dense": list(found.dense),
    }
    if output_format == "json":
        emit_json(result)
        return
    share, size = _percent(found.changed, found.elements), _percent(found.delta_bytes, found.expert_bytes)
    whole = f", {len(found.dense)} of {found.tensors} tensors whole" if found.dense else ""
    emit(
        f"{out}: {share} of {found.elements:,} elements changed; {size_text(found.delta_bytes)}, "
        f"{size} of the expert's {size_text(found.expert_bytes)}{whole}"
    )


@command.command()
@click.argument("delta", metavar="DELTA")
@click.option("--base", metavar="MODEL", help=f"{_BASE} Not needed where the delta names a Hub model.")
@_OUT
@click.option("--shard-size", type=Size(), default="5GB", show_default=True, help="Largest output shard.")
@_RESUME
@_FORCE
@_QUIET
@FORMAT
def apply(
    delta: str,
    base: str | None,
    out: Path,
    shard_size: int,
    resume: bool,
    force: bool,
    quiet: bool,
    output_format: str,
) -> None:
    """Write the model that DELTA makes of its base, with every bit of the expert."""
    from rlmerge.checkpoint.formats.delta_apply import apply as write
    from rlmerge.cli.progress import show_progress
    from rlmerge.merging.place import check_place
    from rlmerge.report.console import size_text

    before, model = _open(delta, base or _named_base(delta))
    check_place(out, [before, model], force)
    with show_progress(quiet) as progress:
        _warn(model, progress)
        progress.start("apply", sum(x.numel * x.dtype.itemsize for x in model.tensors.values()))
        options: dict[str, Any] = {"shard_size": shard_size, "resume": resume, "force": force}
        manifest = write(model, out, **options, advance=progress.advance)
        progress.done()
    total = sum(record.bytes for record in manifest.files.values())
    if output_format == "json":
        emit_json({"out": str(out), "tensors": len(manifest.tensors), "bytes": total, "warnings": list(model.warnings)})
    else:
        emit(f"{out}: {len(manifest.tensors)} tensors, {size_text(total)}")


@command.command()
@click.argument("delta", metavar="DELTA")
@click.option("--base", metavar="MODEL", help=f"{_BASE} Not needed where the delta names a Hub model.")
@_QUIET
@FORMAT
def verify(delta: str, base: str | None, quiet: bool, output_format: str) -> None:
    """Compare DELTA, its base and what it makes of it with the checksums that it states.

    Exit code 1 when something differs.
    """
    from rlmerge.checkpoint.formats.delta_apply import check
    from rlmerge.cli.progress import show_progress
    from rlmerge.report.console import size_text

    before, model = _open(delta, base or _named_base(delta))
    with show_progress(quiet) as progress:
        _warn(model, progress)
        progress.start("verify", sum(x.nbytes for x in model.tensors.values()))
        found = check(model, before, advance=progress.advance)
        progress.done()
    counted = f"{found.tensors} tensors, {size_text(found.bytes)}"
    if output_format == "json":
        result = {"delta": delta, "ok": found.ok, "problems": list(found.problems), "tensors": found.tensors}
        emit_json({**result, "bytes": found.bytes, "warnings": list(model.warnings)})
    elif found.ok:
        emit(f"{delta}: ok ({counted})")
    else:
        emit(
            "\n".join([f"{delta}: {len(found.problems)} problem(s) in {counted}", *(f"- {x}" for x in found.problems)])
        )
    if not found.ok:
        raise click.exceptions.Exit(1)


def _open(expert: str, base: str) -> tuple[Checkpoint, Checkpoint]:
    """The base, and the expert or delta with it."""
    from rlmerge.checkpoint import open_checkpoint

    before = open_checkpoint(base)
    return before, open_checkpoint(expert, base=before)


def _named_base(delta: str) -> str:
    """The Hub model that a delta directory names as its base; UsageError where it names none."""
    from rlmerge.checkpoint.directory import entries
    from rlmerge.checkpoint.formats.delta import named_base

    root = Path(delta).expanduser()
    found = named_base(root.resolve(), entries(root)) if root.is_dir() else None
    if found is None:
        raise click.UsageError(f"{delta} names no base; give it with --base", click.get_current_context())
    return found


def _warn(model: Checkpoint, progress: Any) -> None:
    for warning in model.warnings:
        progress.message(f"warning: {warning}")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"

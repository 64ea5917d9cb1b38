"""`rlmerge verify`: is an output directory what its manifest says?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT
from rlmerge.text import plain

if TYPE_CHECKING:
    from rlmerge.checkpoint import VerifyResult


@click.command()
@click.argument("directory", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--sha256", is_flag=True, help="Print the SHA-256 of every file too, as sha256sum does.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(directory: Path, sha256: bool, quiet: bool, output_format: str) -> None:
    """Check an output directory against its manifest.

    Hashes every file and tensor again and looks for missing and extra files. Exit code 1 when something differs.
    """
    from rlmerge.checkpoint import read_manifest, verify
    from rlmerge.cli.progress import show_progress

    total = sum(record.bytes for record in read_manifest(directory).files.values())
    with show_progress(quiet) as progress:
        progress.start("verify", total)
        found = verify(directory, sha256=sha256, advance=progress.advance)
        progress.done()
    if output_format == "json":
        emit_json({"out": str(directory), "ok": found.ok, **asdict(found)})
    else:
        emit(verify_text(found, directory, width=width(), color=color()))
        for name, digest in (found.sha256 or {}).items():
            emit(f"{digest}  {name}")
    if not found.ok:
        raise click.exceptions.Exit(1)


def verify_text(found: VerifyResult, directory: Path, *, width: int, color: bool) -> str:
    """Whether a directory is what its manifest says, and where it is not."""
    from rlmerge.report.console import render, size_text

    counted = f"{found.files} files, {found.tensors} tensors, {size_text(found.bytes)}"
    if found.ok:
        return render([f"{plain(directory)}: ok ({counted})"], width, color, apart=True)
    head = f"{plain(directory)}: {len(found.problems)} problem(s) in {counted}"
    return render([head, *(f"- {plain(problem)}" for problem in found.problems)], width, color, apart=True)

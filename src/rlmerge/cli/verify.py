"""`rlmerge verify`: is an output directory what its manifest says?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT


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
    from rlmerge.report.terminal import verify_text

    total = sum(record.bytes for record in read_manifest(directory).files.values())
    with show_progress(quiet) as progress:
        progress.start("verify", total)
        found = verify(directory, sha256=sha256, advance=progress.advance)
        progress.done()
    result = {"out": str(directory), "ok": found.ok, **asdict(found)}
    if output_format == "json":
        emit_json(result)
    else:
        emit(verify_text(result, width=width(), color=color()))
        for name, digest in (found.sha256 or {}).items():
            emit(f"{digest}  {name}")
    if not found.ok:
        raise click.exceptions.Exit(1)

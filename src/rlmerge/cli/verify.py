"""`rlmerge verify`: is an output directory what its manifest says?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.addresses import is_address
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT
from rlmerge.text import plain

if TYPE_CHECKING:
    from rlmerge.checkpoint import VerifyResult
    from rlmerge.language.load_check import LoadCheck


@click.command()
@click.argument("directory", metavar="OUT", type=click.Path())
@click.option("--sha256", is_flag=True, help="Print the SHA-256 of every file too, as sha256sum does.")
@click.option("--load", is_flag=True, help="Load it with transformers too, and name what is left over or missing.")
@click.option("--trust-code", is_flag=True, help="With --load: run the Python files that the configuration names.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(directory: str, sha256: bool, load: bool, trust_code: bool, quiet: bool, output_format: str) -> None:
    """Check an output directory against its manifest.

    Hashes every file and tensor again and looks for missing and extra files. Exit code 1 when something differs.
    OUT may be an address (s3://bucket/folder, hf://org/name): it is read through, and nothing of it is kept.
    """
    from rlmerge.checkpoint import verify
    from rlmerge.checkpoint.verify import contents_of
    from rlmerge.cli.progress import show_progress

    if load and is_address(directory):
        raise click.UsageError("--load takes a directory on this machine", click.get_current_context())
    contents = contents_of(directory)
    total = sum(record.bytes for record in contents.manifest.files.values())
    with show_progress(quiet) as progress:
        progress.start("verify", total)
        found = verify(contents, sha256=sha256, advance=progress.advance)
        progress.done()
    result = {"out": str(directory), "ok": found.ok, **asdict(found)}
    loaded = None
    if load:
        from rlmerge.language.load_check import check_load

        loaded = check_load(Path(directory), trust_code=trust_code)
        result["load"] = {"ok": loaded.ok, **asdict(loaded)}
    if output_format == "json":
        emit_json(result)
    else:
        emit(verify_text(found, directory, width=width(), color=color()))
        for name, digest in (found.sha256 or {}).items():
            emit(f"{digest}  {name}")
        if loaded is not None:
            emit(_load_text(loaded))
    if not found.ok or (loaded is not None and not loaded.ok):
        raise click.exceptions.Exit(1)


def _load_text(loaded: LoadCheck) -> str:
    """What transformers found, a line each."""
    if loaded.ok:
        return f"transformers loads it as {loaded.architecture}; no tensor is unexpected, missing or of another shape"
    lines = [f"transformers does not load it whole as {loaded.architecture}:"]
    for kind in ("unexpected", "missing", "mismatched"):
        names: tuple[str, ...] = getattr(loaded, kind)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lines += [f"  {kind}: {', '.join(map(plain, names[:5]))}{more}"] if names else []
    return "\n".join([*lines, *(f"  {plain(problem)}" for problem in loaded.problems)])


def verify_text(found: VerifyResult, directory: str | Path, *, width: int, color: bool) -> str:
    """Whether a directory is what its manifest says, and where it is not."""
    from rlmerge.report.console import render, size_text

    counted = f"{found.files} files, {found.tensors} tensors, {size_text(found.bytes)}"
    if found.ok:
        return render([f"{plain(directory)}: ok ({counted})"], width, color, apart=True)
    head = f"{plain(directory)}: {len(found.problems)} problem(s) in {counted}"
    return render([head, *(f"- {plain(problem)}" for problem in found.problems)], width, color, apart=True)

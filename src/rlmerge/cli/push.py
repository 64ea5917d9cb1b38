"""`rlmerge push`: an output directory becomes a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlmerge.cli.output import emit, emit_json
from rlmerge.cli.request import FORMAT
from rlmerge.text import plain

if TYPE_CHECKING:
    from rlmerge.checkpoint.remote.push import Push


@click.command()
@click.argument("directory", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@click.option("--revision", default="main", show_default=True, metavar="BRANCH", help="Branch; made if there is none.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--license", metavar="ID", help="License for a card that states none, as the Hub spells it: apache-2.0.")
@click.option("--force", is_flag=True, help="Replace what the branch holds; its history stays.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be sent, and send nothing.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    directory: Path,
    repository: str,
    revision: str,
    private: bool,
    license: str | None,
    force: bool,
    dry_run: bool,
    quiet: bool,
    output_format: str,
) -> None:
    """Send an output directory to the Hub, in one commit.

    First every byte is compared with the manifest, and the card is checked: it must name base models and a license that
    is no laxer than those of the merged models. Only what the manifest lists is sent. Run it again after a failure:
    what has arrived is not sent again. Credentials are those of `hf auth login` or HF_TOKEN.

    \b
    rlmerge push merged org/merged --dry-run
    rlmerge push merged org/merged --private
    """
    from rlmerge.checkpoint import read_manifest
    from rlmerge.checkpoint.remote.push import prepare, push
    from rlmerge.cli.progress import show_progress

    total = sum(record.bytes for record in read_manifest(directory).files.values())
    with show_progress(quiet) as progress:
        progress.start("verify", total)
        plan = prepare(
            directory,
            repository,
            revision=revision,
            private=private,
            force=force,
            license=license,
            advance=progress.advance,
        )
        progress.done()
        if not dry_run:
            progress.start("push", plan.bytes)
            plan = push(plan, progress.advance)
            progress.done()
    if output_format == "json":
        emit_json({**plan.to_dict(), "dry_run": dry_run})
    else:
        emit(push_text(plan))


def push_text(plan: Push) -> str:
    """What a push has done, or would do."""
    from rlmerge.report.console import size_text

    target = f"hf://{plan.repository}@{plan.revision}"
    kind = "there already" if plan.exists else ("new, private" if plan.private else "new, public")
    lines = [
        f"{plain(plan.directory)} → {plain(target)} (repository {kind})",
        f"license {plain(plan.license)}, merged of {', '.join(map(plain, plan.base_models))}",
        *(f"  {plain(file.name)}  {size_text(file.bytes)}" for file in plan.files),
        *(f"  {plain(name)}  removed" for name in plan.removed),
        f"{len(plan.files)} files, {size_text(plan.bytes)}",
        *(f"warning: the license of {plain(name)} could not be found out; check it" for name in plan.unchecked),
    ]
    if plan.commit is None:
        return "\n".join([*lines, "Nothing was sent: this was a dry run."])
    return "\n".join([*lines, f"commit {plan.commit}; check it with: rlmerge verify hf://{plain(plan.repository)}"])

"""`rlmerge plan`: every error and every cost of a merge, before a byte of weights is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.paths import OutputPath
from rlmerge.cli.request import FORMAT, read_requests, request_options


@click.command()
@request_options
@click.option("-o", "--out", type=OutputPath(), metavar="OUT", help="Where the merge would write.")
@FORMAT
def command(out: Path | None, output_format: str, **request: Any) -> None:
    """Say what a merge would read, write and need; write nothing.

    Takes the arguments of `rlmerge merge` and finds everything that is wrong with them at once.
    """
    recipes, options = read_requests(request)
    from rlmerge.merging import plan_stages
    from rlmerge.report.terminal import plan_text

    stages = plan_stages(recipes, out, options)
    plan = stages[-1].plan.to_dict()
    plan["stages"] = [
        {"name": stage.recipe.name, "out": str(stage.out), **stage.plan.to_dict()} for stage in stages[:-1]
    ]
    if output_format == "json":
        emit_json(plan)
    else:
        emit(plan_text(plan, width=width(), color=color()))

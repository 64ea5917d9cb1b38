"""`rlmerge plan`: every error and every cost of a merge, before a byte of weights is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rlmerge.cli.arguments import OutputPath, Size
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT, read_requests, request_options
from rlmerge.text import displayed


@click.command()
@request_options
@click.option("-o", "--out", type=OutputPath(remote=True), metavar="OUT", help="Where the merge would write.")
@click.option(
    "--bandwidth",
    type=Size(),
    metavar="SIZE",
    help="Bytes a second that the link to remote models carries, such as 1.2GB: also say how long they take.",
)
@click.option(
    "--graph",
    type=click.Choice(["tree", "mermaid", "svg"]),
    help="Draw the stages of the recipe file on stdout instead of the costs.",
)
@FORMAT
def command(out: Path | None, graph: str | None, output_format: str, bandwidth: int | None, **request: Any) -> None:
    """Say what a merge would read, write and need; write nothing.

    Takes the arguments of `rlmerge merge` and finds everything that is wrong with them at once.
    """
    recipes, options = read_requests(request)
    from rlmerge.merging import plan_stages

    stages = plan_stages(recipes, out, options)
    digest = output_format == "json" and graph is None
    plan = stages[-1].plan.to_dict(digest)
    plan["stages"] = [
        {"name": stage.recipe.name, "out": str(stage.out), **stage.plan.to_dict(digest)} for stage in stages[:-1]
    ]
    if bandwidth is not None:
        plan["bandwidth"] = bandwidth
        stages_of: list[dict[str, Any]] = [plan, *plan["stages"]]
        down, up = (sum(int(each[key]) for each in stages_of) for key in ("bytes_remote", "bytes_sent"))
        plan["link_seconds"] = max(down, up) / bandwidth
    if graph is not None:
        emit(_drawn([*plan["stages"], {"name": stages[-1].recipe.name or str(out or "result"), **plan}], graph))
    elif output_format == "json":
        emit_json(plan)
    else:
        emit(plan_text(plan, width=width(), color=color()))


def plan_text(plan: Mapping[str, Any], *, width: int, color: bool) -> str:
    """What a merge would do and need; ``plan`` is ``Plan.to_dict()``, perhaps with the plans of its ``stages``."""
    from rlmerge.report.console import render, size_text, table, warning_lines

    plan = displayed(plan)
    made = table("", "", rules=False)
    stages = [
        f"{x['name']}: {x['method']}, {size_text(x['bytes_written'])}, peak {size_text(x['peak_memory'])}"
        for x in plan.get("stages", ())
    ]
    for label, value in (
        *([("stages before", "\n".join(stages))] if stages else []),
        ("method", f"{plan['method']} ({plan['status']})"),
        ("base", str(plan["base"] or "none")),
        ("experts", "\n".join(str(expert) for expert in plan["experts"])),
        *((name, "\n".join(directories)) for name, directories in plan["inputs"].items()),
        ("output", str(plan["out"] or "not given")),
        ("tensors", f"{plan['tensors']:,} ({plan['merged_tensors']:,} merged) in {len(plan['shards'])} shard(s)"),
        ("element types", ", ".join(plan["dtypes"])),
        ("passes over the inputs", _passes(plan["statistics"])),
        ("to read", size_text(plan["bytes_read"])),
        *_link(plan),
        ("to write", size_text(plan["bytes_written"])),
        *([("on this disk at a time", size_text(plan["bytes_here"]))] if plan.get("bytes_sent") else []),
        ("peak memory", size_text(plan["peak_memory"])),
        ("free disk", "unknown" if plan["free_disk"] is None else size_text(plan["free_disk"])),
    ):
        made.add_row(label, value)
    notes = [f"note: {note}" for note in plan.get("notes", ())]
    return render([made, *notes, *warning_lines(plan["warnings"])], width, color, apart=True)


def _link(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What comes over the network, and the least time that takes where the bandwidth is given."""
    from rlmerge.report.console import duration_text, size_text

    remote = plan.get("bytes_remote", 0)
    lines = [("over the network", size_text(remote))] if remote else []
    lines += [("to upload", size_text(plan["bytes_sent"]))] if plan.get("bytes_sent") else []
    if "bandwidth" in plan:
        rate = f"{size_text(plan['bandwidth'])}/s"
        lines.append(("at the least", f"{duration_text(plan['link_seconds'])} at {rate}"))
    return lines


def _drawn(stages: Sequence[Mapping[str, Any]], form: str) -> str:
    from rlmerge.report.graph import stage_mermaid, stage_svg, stage_tree

    return {"tree": stage_tree, "mermaid": stage_mermaid, "svg": stage_svg}[form](stages)


def _passes(stages: Sequence[Sequence[str]]) -> str:
    """The merge itself, and one pass before it for each stage of statistics."""
    gathered = ", then ".join(" and ".join(stage) for stage in stages)
    return f"{1 + len(stages)} (for {gathered}, then the merge)" if stages else "1"

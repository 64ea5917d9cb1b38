"""`rlmerge tune`: the best recipe for given models, searched, confirmed and written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlmerge.cli.arguments import GreedyCommand, OutputPath, Size
from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT

_DIR = OutputPath()


@click.command(cls=GreedyCommand)
@click.argument("inputs", nargs=-1, metavar="SEARCH.yaml | --base MODEL EXPERT...")
@click.option(
    "-o", "--out", required=True, type=_DIR, metavar="DIR", help="Study, recipe and report; goes on if there."
)
@click.option("--base", metavar="MODEL", help="Without a search file: the model the experts were trained from.")
@click.option("--methods", multiple=True, metavar="NAME...", help="Without a search file: methods to choose among.")
@click.option("--tasks", multiple=True, metavar="TASK...", help="Items to choose by, as for rlmerge eval.")
@click.option("--test", multiple=True, metavar="TASK...", help="Items to confirm the winner on; none of --tasks.")
@click.option("--objective", multiple=True, metavar="NAME", help="Or NAME=WEIGHT,...; several make a Pareto front.")
@click.option("--own", multiple=True, metavar="EXPERT=TASK,...", help="What an expert was trained for.  [found]")
@click.option("--prompts", multiple=True, metavar="EXPERT=DATA...", help="Prompts of an expert's kind, for proxy:kl.")
@click.option("--trials", type=int, metavar="N", help="Budget of candidates.  [32]")
@click.option("--hours", type=float, metavar="H", help="Budget of time of this call.")
@click.option("--sampler", metavar="NAME", help="tpe, cmaes, nsga2 or random.  [by the space]")
@click.option("--round", type=int, metavar="N", help="Candidates merged in one read of the models.  [8]")
@click.option("--limit", type=int, metavar="N", help="Only the first N items of each task.")
@click.option("--test-limit", type=int, metavar="N", help="Only the first N items of each test task.")
@click.option("--prune/--no-prune", default=None, help="Stop the worse half on a part of the items.  [prune]")
@click.option("--from-inspect", is_flag=True, help="Start at the recipe that rlmerge inspect recommends.")
@click.option("--warm", type=_DIR, metavar="DIR", help="Start at the best trials of an earlier search.")
@click.option("--merge", is_flag=True, help="Merge the winner into DIR/merged.")
@click.option("--hook", metavar="COMMAND", help="'reload.sh {model}' or a URL, told of each candidate's directory.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of the search.  [0]")
@click.option("--memory", type=Size(), default="512MiB", show_default=True, help="Memory budget of a merge.")
@click.option("--candidate-memory", type=Size(), metavar="SIZE", help="What candidates may hold in memory.  [2GiB]")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; as many as there are cores by default.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    inputs: tuple[str, ...],
    out: Path,
    base: str | None,
    methods: tuple[str, ...],
    own: tuple[str, ...],
    prompts: tuple[str, ...],
    from_inspect: bool,
    warm: Path | None,
    merge: bool,
    memory: int,
    candidate_memory: int | None,
    workers: int | None,
    quiet: bool,
    output_format: str,
    **given: Any,
) -> None:
    """Search the recipe that keeps most of what the experts learned, and confirm it on items that chose nothing.

    A search file is a recipe whose values may be ranges, with a section `tune`. Without one, weights, method and
    density of the experts are searched. The same command again goes on where the search was.

    \b
    rlmerge tune search.yaml -o found
    rlmerge tune --base BASE MATH CODE --tasks exact:dev.jsonl --test exact:test.jsonl -o found
    """
    from rlmerge.api import tune
    from rlmerge.cli.calibrate import read_prompts
    from rlmerge.cli.eval import read_own
    from rlmerge.cli.progress import show_progress
    from rlmerge.options import Options
    from rlmerge.search.report.terminal import tune_text

    search, experts = _inputs(inputs, base)
    chosen = {name: value or None for name, value in given.items() if name in ("tasks", "test", "objective")}
    objective = chosen["objective"]
    chosen["objective"] = objective[0] if objective is not None and len(objective) == 1 else objective
    with show_progress(quiet) as progress:
        found = tune(
            search,
            out,
            base=base,
            experts=experts,
            methods=methods,
            from_inspect=from_inspect,
            warm=warm,
            merge=merge,
            options=Options(memory=memory, workers=workers),
            progress=progress,
            **{
                **given,
                **chosen,
                "own": read_own(own),
                "prompts": read_prompts(prompts) or None,
                "memory": candidate_memory,
            },
        )
    result = found.to_dict()
    if output_format == "json":
        emit_json(result)
    else:
        emit(tune_text(result, width=width(), color=color()))


def _inputs(inputs: tuple[str, ...], base: str | None) -> tuple[Path | None, tuple[str, ...]]:
    """The search file, or the experts."""
    if base is not None:
        return None, inputs
    if len(inputs) != 1:
        given = "no search file is given" if not inputs else f"{len(inputs)} search files are given"
        raise click.UsageError(f"{given}; give one, or --base MODEL and the experts", click.get_current_context())
    return Path(inputs[0]), ()

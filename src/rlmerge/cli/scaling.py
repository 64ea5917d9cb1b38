"""``rlmerge scaling``: the scale study "Does Sparsity Persist?", run again and judged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rlmerge.cli.output import color, emit, emit_json, note, width

_SEED = click.option("--seed", default=0, show_default=True, help="Seed of every simulation.")
_FORMAT = click.option("--format", "form", type=click.Choice(["human", "json"]), default="human", show_default=True)


def _output(required: bool = False) -> Callable[[Any], Any]:
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        required=required,
        help="Directory for figures (PNG, SVG), tables (CSV) and the result (JSON).",
    )


@click.group(name="scaling")
def command() -> None:
    """Re-run the scale study "Does Sparsity Persist?" and judge its statements.

    Each command prints the paper's number, ours, and a verdict: reproduced, reproduced in kind, or not reproduced with
    the reason. Needs the extra: pip install 'rlmerge[scaling]'.
    """


@command.command()
@click.option("--trials", type=click.IntRange(min=1), default=5, show_default=True, help="Trials a scale.")
@_SEED
@_output()
@_FORMAT
def sparsity(trials: int, seed: int, output: Path | None, form: str) -> None:
    """Table 1, Figure 1: metrics of simulated task vectors from 1B to 405B."""
    _run("sparsity", output, form, seed=seed, trials=trials)


@command.command()
@click.option(
    "--measured",
    multiple=True,
    metavar="NAME=PARAMS:SPARSITY",
    help="A checkpoint you measured, such as mine=7.6B:0.72; two sizes or more are fitted.",
)
@_SEED
@_output()
@_FORMAT
def law(measured: tuple[str, ...], seed: int, output: Path | None, form: str) -> None:
    """Section 3.1: the law s(N) = 1 - a/N^b, its intervals, and real checkpoints beside it."""
    from rlmerge.scaling.measured import parse_measured

    _run("law", output, form, seed=seed, measured=[parse_measured(text) for text in measured])


@command.command()
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Trials a sparsity.")
@_SEED
@_output()
@_FORMAT
def merge(trials: int, seed: int, output: Path | None, form: str) -> None:
    """Table 2, Figures 2 and 3: merge quality, with retention beside cosine."""
    _run("merge", output, form, seed=seed, trials=trials)


@command.command()
@_SEED
@_output()
@_FORMAT
def anatomy(seed: int, output: Path | None, form: str) -> None:
    """Table 3, Figure 4: sparsity by kind of tensor and depth."""
    _run("anatomy", output, form, seed=seed)


@command.command()
@click.option("--trials", type=click.IntRange(min=1), default=5, show_default=True, help="Trials a scale.")
@_SEED
@_output()
@_FORMAT
def agents(trials: int, seed: int, output: Path | None, form: str) -> None:
    """Figure 5: overlap between simulated agents, beside chance."""
    _run("agents", output, form, seed=seed, trials=trials)


@command.command()
@click.option("--experts", type=click.IntRange(min=1), default=3, show_default=True, help="Agents to merge.")
@_output()
@_FORMAT
def memory(experts: int, output: Path | None, form: str) -> None:
    """Table 4, Figure 6: peak memory by formula, for real shapes, and by budget."""
    _run("memory", output, form, agents=experts)


@command.command(name="all")
@_SEED
@_output(required=True)
@_FORMAT
def everything(seed: int, output: Path, form: str) -> None:
    """Every study, with one self-contained report.html."""
    from rlmerge.scaling import registry
    from rlmerge.scaling.render import files, html, terminal

    outcomes: list[registry.Outcome] = []
    for name in registry.STUDIES:
        outcome = registry.run(name) if name == "memory" else registry.run(name, seed=seed)
        files.write(outcome, output)
        note(f"{name}: {terminal.tally(outcome)} ({outcome.seconds:.1f} s)")
        outcomes.append(outcome)
    report = files.write_file(output / "report.html", html.page(outcomes, seed).encode())
    if form == "json":
        studies = [outcome.to_dict() for outcome in outcomes]
        emit_json({"report": str(report), "seed": seed, "studies": studies})
    else:
        emit(f"Report: {report}")


def _run(name: str, output: Path | None, form: str, **arguments: Any) -> None:
    """Run one study, print it on stdout, and write its files when asked."""
    from rich.console import Console

    from rlmerge.scaling import registry
    from rlmerge.scaling.render import files, terminal

    outcome = registry.run(name, **arguments)
    if form == "json":
        emit_json(outcome.to_dict())
    else:
        terminal.show(outcome, Console(width=width(), no_color=not color()))
    if output is not None:
        for path in files.write(outcome, output):
            note(f"wrote {path}")

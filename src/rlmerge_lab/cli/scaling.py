"""``rlmerge scaling``: the scale study "Does Sparsity Persist?", run again and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from rlmerge.cli.output import color, emit, emit_json, width
from rlmerge.cli.request import FORMAT
from rlmerge.errors import RequestError

_SEED = click.option("--seed", default=0, show_default=True, help="Seed of every simulation.")


def _output(required: bool = False) -> Callable[[Any], Any]:
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        required=required,
        help="Directory for figures (SVG), tables (CSV) and the result (JSON).",
    )


def _trials(count: int, each: str) -> Callable[[Any], Any]:
    return click.option(
        "--trials", type=click.IntRange(min=1), default=count, show_default=True, help=f"Trials a {each}."
    )


@click.group(name="scaling")
def command() -> None:
    """Re-run the scale study "Does Sparsity Persist?" and judge its statements.

    Each command prints the paper's number, ours, and a verdict: reproduced, reproduced in kind, or not reproduced with
    the reason. Needs the extra: pip install 'rlmerge[scaling]'.
    """


@command.command()
@_trials(5, "scale")
@_SEED
@_output()
@FORMAT
def sparsity(**asked: Any) -> None:
    """Table 1, Figure 1: metrics of simulated task vectors from 1B to 405B."""
    _run("sparsity", **asked)


@command.command()
@click.option(
    "--measured",
    multiple=True,
    metavar="NAME=PARAMS:SPARSITY",
    help="A checkpoint you measured, such as mine=7.6B:0.72; two sizes or more are fitted.",
)
@_SEED
@_output()
@FORMAT
def law(measured: tuple[str, ...], **asked: Any) -> None:
    """Section 3.1: the law s(N) = 1 - a/N^b, its intervals, and real checkpoints beside it."""
    from rlmerge_lab.scaling.law import Measured

    _run("law", measured=[Measured.parse(text) for text in measured], **asked)


@command.command()
@_trials(20, "sparsity")
@_SEED
@_output()
@FORMAT
def merge(**asked: Any) -> None:
    """Table 2, Figures 2 and 3: merge quality, with retention beside cosine."""
    _run("merge", **asked)


@command.command()
@_SEED
@_output()
@FORMAT
def anatomy(**asked: Any) -> None:
    """Table 3, Figure 4: sparsity by kind of tensor and depth."""
    _run("anatomy", **asked)


@command.command()
@_trials(5, "scale")
@_SEED
@_output()
@FORMAT
def agents(**asked: Any) -> None:
    """Figure 5: overlap between simulated agents, beside chance."""
    _run("agents", **asked)


@command.command()
@click.option("--experts", "agents", type=click.IntRange(min=1), default=3, show_default=True, help="Agents to merge.")
@_output()
@FORMAT
def memory(**asked: Any) -> None:
    """Table 4, Figure 6: peak memory by formula, for real shapes, and by budget."""
    _run("memory", **asked)


@command.command(name="all")
@_SEED
@_output(required=True)
@FORMAT
def everything(seed: int, output: Path, output_format: str) -> None:
    """Every study, with one self-contained report.html."""
    from rlmerge_lab.report.scaling import scaling_files, scaling_html
    from rlmerge_lab.scaling import STUDIES, run

    outcomes = []
    for name in STUDIES:
        outcome = run(name) if name == "memory" else run(name, seed=seed)
        _write(output, scaling_files(outcome))
        click.echo(f"{name}: {outcome.tally} ({outcome.seconds:.1f} s)", err=True)
        outcomes.append(outcome)
    (report,) = _write(output, {"report.html": scaling_html(outcomes, seed)})
    if output_format == "json":
        emit_json({"report": str(report), "seed": seed, "studies": [outcome.to_dict() for outcome in outcomes]})
    else:
        emit(f"Report: {report}")


def _run(name: str, output: Path | None, output_format: str, **arguments: Any) -> None:
    """Run one study, print it on stdout, and write its files when asked."""
    from rlmerge_lab.report.scaling import scaling_files, scaling_text
    from rlmerge_lab.scaling import run

    outcome = run(name, **arguments)
    if output_format == "json":
        emit_json(outcome.to_dict())
    else:
        emit(scaling_text(outcome, width=width(), color=color()))
    if output is not None:
        for path in _write(output, scaling_files(outcome)):
            click.echo(f"wrote {path}", err=True)


def _write(directory: Path, files: Mapping[str, str]) -> list[Path]:
    """Write ``files`` into ``directory``, made when absent; RequestError naming the file when the system refuses."""
    paths = [directory / name for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            what = f"cannot write: {error.strerror or error}"
            raise RequestError(what, where=str(path), hint="Give another directory with -o.") from error
    return paths

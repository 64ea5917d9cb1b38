"""`rlmerge eval`: what did the merge keep? Scores of base, experts and merges on any harness's tasks."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlmerge.cli.arguments import GreedyCommand, OutputPath
from rlmerge.cli.output import check_writable, color, emit, emit_json, width, write_file
from rlmerge.cli.request import FORMAT

if TYPE_CHECKING:
    from rlmerge.evaluate.report.hub import Benchmark

_FILE = OutputPath()


@click.command(cls=GreedyCommand)
@click.argument("models", nargs=-1, required=True, metavar="MERGE...")
@click.option("--base", required=True, metavar="MODEL", help="The model the experts were trained from.")
@click.option("--experts", required=True, multiple=True, metavar="MODEL...", help="What the merges were made of.")
@click.option(
    "--tasks",
    required=True,
    multiple=True,
    metavar="TASK...",
    help="exact:FILE.jsonl[:TASK], lm-eval:NAME[:METRIC], gym:DATASET[?KEY=VALUE&...], command:NAME, or one of gsm8k,"
    " math500, humaneval, mbpp, ifeval.",
)
@click.option("--own", multiple=True, metavar="EXPERT=TASK[,TASK]...", help="An expert's own tasks.  [found by gain]")
@click.option("-o", "--out", type=_FILE, metavar="FILE", help="Write a self-contained HTML report.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write all figures as JSON.")
@click.option("--eval-results", type=_FILE, metavar="DIR", help="Write Hugging Face .eval_results files.")
@click.option(
    "--benchmark", multiple=True, metavar="TASK=OWNER/NAME:TASK_ID", help="Where --eval-results puts a task's scores."
)
@click.option("--health", type=_FILE, metavar="PROMPTS", help="File of prompts: repetition, stops, entropy, KL.")
@click.option("--landscape", type=_FILE, metavar="ITEMS", help="JSONL with answers: score and loss around the experts.")
@click.option("--store", type=_FILE, metavar="DIR", help="Where scores and harness files are kept.  [the user's cache]")
@click.option("--rescore", is_flag=True, help="Score again what the store already has.")
@click.option("--together", is_flag=True, help="One call of a harness for all tasks of a model; a kill loses them all.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N items of each task.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="For one harness call.")
@click.option(
    "--backend",
    type=click.Choice(["transformers", "vllm", "server", "tiny"]),
    default="transformers",
    show_default=True,
    help="What generates.",
)
@click.option("--server", metavar="URL", help="With --backend server: an OpenAI-compatible API, up to /v1.")
@click.option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N.  [a GPU if there is one]")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Prompts at a time.")
@click.option("--chat", is_flag=True, help="Put prompts into the model's chat template.")
@click.option("--samples", type=click.IntRange(min=1), default=4, show_default=True, help="gym: outputs per question.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="gym, health: 0 is greedy.")
@click.option("--max-new-tokens", type=int, default=512, show_default=True, help="gym, health: length limit.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the samples.")
@click.option("--prompt", default="default", show_default=True, help="gym: its system prompt's name, or none.")
@click.option("--command", metavar="COMMAND", help="command: 'python my_eval.py {model} {tasks}'; prints JSON.")
@click.option("--include-path", type=_FILE, metavar="DIR", help="lm-eval: a directory of task YAML files.")
@click.option("--lm-eval", metavar="PROGRAM", help="lm-eval: its program, if it is in another environment.")
@click.option("--model-args", default="", metavar="KEY=VALUE,...", help="lm-eval: added to its --model_args.")
@click.option("--lm-eval-args", default="", metavar="WORDS", help="lm-eval: added to its command line.")
@click.option("--unsafe-code", is_flag=True, help="lm-eval: allow tasks that run code a model wrote.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@FORMAT
def command(
    models: tuple[str, ...],
    base: str,
    experts: tuple[str, ...],
    tasks: tuple[str, ...],
    own: tuple[str, ...],
    out: Path | None,
    json_file: Path | None,
    eval_results: Path | None,
    benchmark: tuple[str, ...],
    health: Path | None,
    landscape: Path | None,
    rescore: bool,
    together: bool,
    quiet: bool,
    output_format: str,
    **options: Any,
) -> None:
    """Score the merges, their base and every expert, and say what each merge kept, with 95 % intervals.

    Scores are kept by content: a second run, or one that was killed, scores only what is new.
    """
    from rlmerge.cli.progress import show_progress
    from rlmerge.evaluate import Options, evaluate

    check_writable(out, json_file)
    benchmarks = _benchmarks(benchmark)
    _end_orderly()
    with show_progress(quiet) as progress:
        found = evaluate(
            models,
            base=base,
            experts=experts,
            tasks=tasks,
            options=Options(**options),
            own=read_own(own),
            rescore=rescore,
            together=together,
            health=health,
            landscape=landscape,
            progress=progress,
        )
    if json_file is not None:
        write_file(json_file, found.to_json() + "\n")
    if out is not None:
        from rlmerge.evaluate.report.page import eval_html

        write_file(out, eval_html(found))
    if output_format == "json":
        emit_json(found.to_dict())
    else:
        from rlmerge.evaluate.report.terminal import eval_text

        emit(eval_text(found, width=width(), color=color()))
    if eval_results is not None:  # last: scores that no benchmark takes are an error, but found all the same
        from rlmerge.evaluate.report.hub import hub_files

        for name, text in hub_files(found, benchmarks).items():
            write_file(eval_results / name, text)


def _end_orderly() -> None:
    """Let a polite kill or a lost terminal end this process as an error does, so that the harness it runs ends too."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores the second, and is right to
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def read_own(given: Sequence[str]) -> dict[str, list[str]] | None:
    """Tasks by expert; None when the command line says nothing of it."""
    own: dict[str, list[str]] = {}
    for text in given:
        expert, equals, tasks = text.partition("=")
        if not expert or not equals or not tasks:
            raise click.UsageError(f"--own {text}: write --own EXPERT=TASK[,TASK]", click.get_current_context())
        own.setdefault(expert, []).extend(task for task in tasks.split(",") if task)
    return own or None


def _benchmarks(given: Sequence[str]) -> dict[str, Benchmark]:
    """Benchmarks of the Hub by task."""
    if not given:
        return {}
    from rlmerge.evaluate.report.hub import read_benchmark

    return dict(map(read_benchmark, given))

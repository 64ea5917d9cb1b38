"""An evaluation as one self-contained HTML file: no network, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlmerge.text import plain

from . import eval_charts, eval_health, eval_landscape
from .eval_words import headline, next_step, short_names, verdicts
from .page import Section, capital, finding, findings, grid, legend, page, panel
from .tables import table

Result = Mapping[str, Any]

WIDE = 4
"""Columns of a matrix up to which a chart fits beside it."""

NAME = 40
"""Letters of a name beyond which its middle is left out."""

DEFINITIONS = (
    ("interval", "95 % bootstrap interval over items, the same items drawn for all models; from standard errors where "
     "a harness tells no items, which the warnings say"),
    ("better, worse", "the 95 % interval of the paired difference excludes 0; undecided otherwise"),
    ("retention", "merged / expert on a task that is the expert’s own; expert / merged where lower scores are better"),
    ("degradation", "(merged − expert) / expert; below 0 is a loss"),
    ("gain kept", "(merged − base) / (expert − base), where the expert is better than the base"),
    ("mean score", "the plain mean over all tasks where higher is better"),
    ("looping", "share of outputs that hit the length cap with an n-gram repeated 8 times or more at the end"),
    ("seq-rep-4", "share of 4-grams that occurred before in the same output (arXiv 1908.04319)"),
    ("KL", "next-token KL(this model ‖ other) in nats over the positions at which this model wrote"),
    ("landscape", "score and loss at θ + α·τ + β·u: τ is another’s task vector, u random with τ’s norm per tensor"),
    ("barrier", "the most by which the loss on the way between two models exceeds the line between their losses"),
    ("sharpness", "mean and greatest rise of the loss under random perturbations of a relative size"),
)  # fmt: skip


def eval_html(result: Result) -> str:
    """The report of the JSON-able result of ``rlmerge eval`` (schema ``rlmerge.eval/1``)."""
    shown = short_names(result, NAME)
    color = eval_charts.colors(shown)
    merges, health, landscape = shown["merges"], shown["health"], shown["landscape"]
    sections: list[Section] = [
        ("verdict", "Verdict", _verdict(shown, next_step(result))),
        ("warnings", "Warnings", _warnings(shown["warnings"])),
        ("scores", "Scores", _scores(shown, color)),
        ("kept", "What each merge keeps of its experts", _kept(shown, color)),
        ("compared", "Compared with one another and with the base", _compared(shown)),
        ("health", "Generation health", grid(eval_health.charts(health, color)) if health and health["models"] else ""),
        ("landscape", "Landscape", grid(eval_landscape.charts(landscape, color)) if landscape else ""),
        ("models", "Models and tasks", _models(shown, [plain(model["path_name"]) for model in result["models"]])),
        ("definitions", "What the figures mean", _definitions()),
    ]
    names = [merge["model"] for merge in merges] or [model["name"] for model in shown["models"]]
    return page(
        title=f"rlmerge eval: {', '.join(names)}",
        heading="What did the merge keep?" if len(merges) <= 1 else "What did the merges keep?",
        summary=f"{capital(headline(shown))}.",
        sections=sections,
        legend=legend(color.items(), "Show or hide models"),
        legend_after=2 if result["warnings"] else 1,
        footer=f"rlmerge {result['rlmerge']}, schema {result['schema']}. The same figures, unrounded, are in the JSON.",
    )


def _verdict(result: Result, step: str) -> str:
    found = findings(finding(v.level, v.title, v.text, label=v.label) for v in verdicts(result))
    means = panel(eval_charts.summary_table(result)) if result["merges"] else ""
    after = f'<p class="next"><strong>Next:</strong> {escape(plain(step))}</p>'
    return f"{found if result['merges'] else ''}{after}{means}"


def _warnings(warnings: Sequence[str]) -> str:
    return findings(finding("warning", text, "") for text in warnings) if warnings else ""


def _scores(result: Result, color: Mapping[str, int]) -> str:
    if not result["tasks"]:
        return ""
    return _beside(eval_charts.scores(result, color), eval_charts.score_table(result), len(result["tasks"]))


def _beside(charts: str, matrix: str, columns: int) -> str:
    """A matrix beside its charts, or under them when it is too wide for that."""
    return grid(charts + matrix) if columns <= WIDE else grid(charts) + grid(matrix, "grid one")


def _kept(result: Result, color: Mapping[str, int]) -> str:
    return grid(eval_charts.kept(result, color)) if any(merge["per_task"] for merge in result["merges"]) else ""


def _compared(result: Result) -> str:
    if not result["comparisons"]:
        return ""
    tasks = {pair["task"] for pair in result["comparisons"]}
    return _beside(eval_charts.compared(result), eval_charts.verdict_matrix(result), len(tasks))


def _models(result: Result, directories: Sequence[str]) -> str:
    models = [
        [
            model["name"],
            model["role"],
            directory,
            model["digest"][:16],
            "before" if model["scored"] == "cached" else "now",
            "; ".join(model["notes"]) or "–",
        ]
        for model, directory in zip(result["models"], directories, strict=True)
    ]
    tasks = [
        [
            task["task"],
            task["metric"],
            "higher" if task["higher_is_better"] else "lower",
            "–" if task["n"] is None else f"{task['n']:,}",
            "exact or greedy" if task["k"] is None else str(task["k"]),
            ", ".join(task["experts"]) or "none",
        ]
        for task in result["tasks"]
    ]
    heads = ["model", "role", "directory", "digest", "scored", "notes"]
    first = table("Models, by the digest that their scores are kept under", heads, models, "names wrap")
    heads = ["task", "metric", "better is", "items", "samples an item", "own task of"]
    return grid(panel(first) + panel(table("Tasks", heads, tasks, "names wrap")), "grid one")


def _definitions() -> str:
    rows = [[name, meaning] for name, meaning in DEFINITIONS]
    return panel(table("How each figure is defined", ["figure", "definition"], rows, "wrap"))

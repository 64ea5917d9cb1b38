"""An evaluation as one self-contained HTML file: no network, both themes, any width, printable, keyboard and reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from rlmerge._version import __version__
from rlmerge.evaluate.report import charts
from rlmerge.evaluate.report.health import charts as health_charts
from rlmerge.evaluate.report.landscape import charts as landscape_charts
from rlmerge.evaluate.report.summary import headline, next_step, shortened, verdicts
from rlmerge.evaluate.results import SCHEMA, Evaluation
from rlmerge.report.page import Section, capital, finding, findings, grid, legend, page, panel
from rlmerge.report.tables import table
from rlmerge.text import plain

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


def eval_html(found: Evaluation) -> str:
    """The report of an evaluation."""
    short = shortened(found, NAME)
    color = charts.colors(short)
    merges, health, landscape = short.merges, short.health, short.landscape
    sections: list[Section] = [
        ("verdict", "Verdict", _verdict(short, next_step(found))),
        ("warnings", "Warnings", _warnings(short.warnings)),
        ("scores", "Scores", _scores(short, color)),
        ("kept", "What each merge keeps of its experts", _kept(short, color)),
        ("compared", "Compared with one another and with the base", _compared(short)),
        ("health", "Generation health", grid(health_charts(health, color)) if health and health.models else ""),
        ("landscape", "Landscape", grid(landscape_charts(landscape, color)) if landscape else ""),
        ("models", "Models and tasks", _models(short)),
        ("definitions", "What the figures mean", _definitions()),
    ]
    names = [merge.model for merge in merges] or [model.name for model in short.models]
    return page(
        title=f"rlmerge eval: {', '.join(names)}",
        heading="What did the merge keep?" if len(merges) <= 1 else "What did the merges keep?",
        summary=f"{capital(headline(short))}.",
        sections=sections,
        legend=legend(color.items(), "Show or hide models"),
        legend_after=2 if found.warnings else 1,
        footer=f"rlmerge {__version__}, schema {SCHEMA}. The same figures, unrounded, are in the JSON.",
    )


def _verdict(found: Evaluation, step: str) -> str:
    items = findings(finding(v.level, v.title, v.text, label=v.label) for v in verdicts(found))
    means = panel(charts.summary_table(found)) if found.merges else ""
    after = f'<p class="next"><strong>Next:</strong> {escape(plain(step))}</p>'
    return f"{items if found.merges else ''}{after}{means}"


def _warnings(warnings: Sequence[str]) -> str:
    return findings(finding("warning", text, "") for text in warnings) if warnings else ""


def _scores(found: Evaluation, color: Mapping[str, int]) -> str:
    if not found.tasks:
        return ""
    return _beside(charts.scores(found, color), charts.score_table(found), len(found.tasks))


def _beside(drawn: str, matrix: str, columns: int) -> str:
    """A matrix beside its charts, or under them when it is too wide for that."""
    return grid(drawn + matrix) if columns <= WIDE else grid(drawn) + grid(matrix, "grid one")


def _kept(found: Evaluation, color: Mapping[str, int]) -> str:
    return grid(charts.kept(found, color)) if any(merge.per_task for merge in found.merges) else ""


def _compared(found: Evaluation) -> str:
    if not found.comparisons:
        return ""
    tasks = {pair.task for pair in found.comparisons}
    return _beside(charts.compared(found), charts.verdict_matrix(found), len(tasks))


def _models(found: Evaluation) -> str:
    models = [
        [
            model.name,
            model.role,
            plain(model.path.name),
            model.digest[:16],
            "before" if model.scored == "cached" else "now",
            "; ".join(model.notes) or "–",
        ]
        for model in found.models
    ]
    tasks = [
        [
            task.task,
            task.metric,
            "higher" if task.higher_is_better else "lower",
            "–" if task.n is None else f"{task.n:,}",
            "exact or greedy" if task.k is None else str(task.k),
            ", ".join(task.experts) or "none",
        ]
        for task in found.tasks
    ]
    heads = ["model", "role", "directory", "digest", "scored", "notes"]
    first = table("Models, by the digest that their scores are kept under", heads, models, "names wrap")
    heads = ["task", "metric", "better is", "items", "samples an item", "own task of"]
    return grid(panel(first) + panel(table("Tasks", heads, tasks, "names wrap")), "grid one")


def _definitions() -> str:
    rows = [[name, meaning] for name, meaning in DEFINITIONS]
    return panel(table("How each figure is defined", ["figure", "definition"], rows, "wrap"))

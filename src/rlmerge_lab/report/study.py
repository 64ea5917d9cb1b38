"""A study on a terminal and as one self-contained HTML file: the answer first, then every claim with its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rlmerge.report.console import render
from rlmerge.report.page import findings, grid, legend, page, panel
from rlmerge.report.tables import table
from rlmerge.text import plain

from . import plots, ranking, sheets
from .parts import Picture, Sheet, html_pictures, html_sheet, html_sheets, text_sheet
from .words import (
    LEVELS,
    MARKS,
    RULES,
    adjusted,
    answers,
    beside_lines,
    claimed_line,
    control_line,
    facts,
    figure_line,
    grouped,
    headline,
    many,
    method_answers,
    question,
    scoring,
    tally,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

Result = Mapping[str, Any]

STYLES = {"good": "bold green", "problem": "bold red", "info": "bold yellow"}


def study_text(study: Result, judged: Result, *, width: int, color: bool) -> str:
    """The report of a study's dict and its verdicts' dict in at most ``width`` columns, 60 or more."""
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{plain(headline(study))}. {tally(judged)}.", style="bold"), ""]
    parts += [Text(plain(line)) for line in (*answers(judged), *method_answers(judged))]
    for title, verdicts in grouped(judged):
        parts += ["", Text(title, style="bold cyan")]
        for verdict in verdicts:
            parts += _verdict(verdict)
    parts += ["", Text(many(judged), style="dim")]
    for sheet in (
        sheets.experts(judged),
        *(sheets.gains(judged, rule) for rule in ("default", "tuned")),
        sheets.differences(judged),
        ranking.ranked(judged),
        ranking.off_task(judged, "tuned"),
        ranking.by_layer(judged),
        ranking.students(judged),
        sheets.geometry(judged),
        sheets.exact_output(judged),
        sheets.health(judged),
    ):
        if sheet.rows:
            parts += ["", Text(sheet.caption, style="bold cyan"), *text_sheet(sheet, width)]
    parts += ["", Text("The run", style="bold cyan")]
    parts += [Text.assemble((f"{plain(name)}: ", "bold"), plain(value)) for name, value in facts(study)]
    return render(parts, width, color)


def _verdict(verdict: Result) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    mark, style = MARKS[verdict["verdict"]], STYLES[LEVELS[verdict["verdict"]]]
    head = Text.assemble((f"{mark} {adjusted(verdict)}: ", style), (plain(verdict["claim"]), "bold"))
    return [head, *(Padding(Text(plain(figure_line(f)), style="dim"), (0, 0, 0, 2)) for f in verdict["decides"])]


def study_html(study: Result, judged: Result) -> str:
    """The report of a study's dict (``rlmerge.lab.study/1``) and its verdicts' dict (``rlmerge.lab.verdicts/1``)."""
    gains = [plots.differences(study, judged), *(plots.gains(study, judged, rule) for rule in RULES)]
    rounding = [sheets.exact_output(judged), *(sheets.survival(judged, field) for field in ("survival", "erased"))]
    sections = [
        ("answer", "The open question", _answer(judged)),
        ("verdicts", "Every claim", _verdicts(judged)),
        ("run", "What was run", _run(study)),
        ("experts", "The experts", _pictured(sheets.experts(judged), plots.updates(judged))),
        ("gains", "What merges keep", html_pictures(gains) + html_sheets([sheets.denominators(judged)])),
        (
            "methods",
            "Coordinates or rotations",
            html_sheets([ranking.ranked(judged)])
            + html_pictures(ranking.pictures_of_methods(judged), named=True)
            + html_sheets([ranking.by_layer(judged)]),
        ),
        ("off-task", "Off task", html_sheets(ranking.off_task(judged, rule) for rule in RULES)),
        (
            "students",
            "Merge or distil?",
            html_pictures(ranking.pictures_of_students(judged), named=True) + html_sheets([ranking.students(judged)]),
        ),
        ("scale", "The scale of the merged update", html_pictures(plots.scales(study, judged))),
        ("conflict", "Overlap and conflict", _pictured(sheets.geometry(judged), plots.conflicts(judged))),
        ("rounding", "What rounding takes", html_sheets(rounding)),
        ("landscape", "Landscape", html_pictures(plots.landscapes(study))),
        ("health", "Generated text", html_sheets([sheets.health(judged)])),
        ("untested", "Not tested here", html_sheets([sheets.untested(judged)], "wrap")),
    ]
    arms = [(arm, color) for arm, color in plots.colors(study).items()]
    rules = [(title, (len(arms) + k) % plots.COLORS) for k, title in enumerate(RULES.values())]
    return page(
        title="rlmerge lab: do RL experts merge better?",
        heading=question(study),
        summary=f"{headline(study)}. {tally(judged)}.",
        sections=sections,
        footer=f"Schemas {study['schema']} and {judged['schema']}. {scoring(study)}",
        legend=legend([*arms, *rules], "Show or hide arms and rules"),
        legend_after=3,
    )


def _answer(judged: Result) -> str:
    lines = [*answers(judged), *method_answers(judged)] or ["This study holds no merges to compare."]
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    rule = f"<p class=soft>{escape(judged['rule'])} {escape(judged['adjustment'])} {escape(many(judged))}</p>"
    return panel(said) + rule


def _verdicts(judged: Result) -> str:
    parts: list[str] = []
    for title, verdicts in grouped(judged):
        items = [
            f'<li class="{LEVELS[verdict["verdict"]]}"><span class="level">{MARKS[verdict["verdict"]]} '
            f"{escape(adjusted(verdict))}</span><strong>{escape(verdict['claim'])}</strong>"
            f"<p>{'<br>'.join(escape(figure_line(figure)) for figure in verdict['decides'])}</p>{_more(verdict)}</li>"
            for verdict in verdicts
        ]
        parts.append(f'<h3 style="margin-top: 24px">{escape(title)}</h3>{findings(items)}')
    return "".join(parts)


def _more(verdict: Result) -> str:
    rows = [("Source", verdict["source"]), ("Why", verdict["reason"]), ("Control", verdict["control"])]
    rows += [("", control_line(figure)) for figure in verdict["controls"] if figure["value"] is not None]
    rows += [("Test", f"{figure['name']}: {claimed_line(figure)}") for figure in verdict["decides"]]
    rows += [("Beside", line) for line in beside_lines(verdict)]
    rows.append(("Cannot say", verdict["cannot_say"]))
    terms = "".join((f"<dt>{escape(name)}</dt>" if name else "") + f"<dd>{escape(text)}</dd>" for name, text in rows)
    return f"<details><summary>Control, test, and what this cannot say</summary><dl>{terms}</dl></details>"


def _pictured(sheet: Sheet, pictures: Sequence[Picture]) -> str:
    return html_sheets([sheet]) + html_pictures(pictures)


def _run(study: Result) -> str:
    arms = sheets.arms(study)
    tables = [table("The run", ["what", "value"], facts(study), "wrap")]
    tables += [html_sheet(arms, "wrap")] if arms.rows else []
    return grid("".join(map(panel, tables)), "grid one")

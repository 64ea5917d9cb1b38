"""A study as one self-contained HTML file: the answer first, every claim with its figures, then tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlmerge.report.page import findings, grid, legend, page, panel
from rlmerge.report.tables import plot, table
from rlmerge_lab.report import plots, sheets
from rlmerge_lab.report.lines import LEVELS, MARKS, adjusted, beside_lines, claimed_line, control_line, figure_line
from rlmerge_lab.report.plots import Picture
from rlmerge_lab.report.sheets import Sheet
from rlmerge_lab.report.words import RULES, answers, facts, grouped, headline, many, scoring, tally

Result = Mapping[str, Any]


def study_html(study: Result, judged: Result) -> str:
    """The report of a study's dict (``rlmerge.lab.study/1``) and its verdicts' dict (``rlmerge.lab.verdicts/1``)."""
    sections = [
        ("answer", "The open question", _answer(judged)),
        ("verdicts", "Every claim", _verdicts(judged)),
        ("run", "What was run", _run(study)),
        ("experts", "The experts", _pictured(sheets.experts(judged), plots.updates(judged))),
        ("gains", "What merges keep", _gains(study, judged)),
        ("scale", "The scale of the merged update", _pictures(plots.scales(study, judged))),
        ("conflict", "Overlap and conflict", _pictured(sheets.geometry(judged), plots.conflicts(judged))),
        ("rounding", "What rounding takes", _rounding(judged)),
        ("landscape", "Landscape", _pictures(plots.landscapes(study))),
        ("health", "Generated text", _tables(sheets.health(judged))),
    ]  # fmt: skip
    arms = [(arm, color) for arm, color in plots.colors(study).items()]
    rules = [(title, (len(arms) + k) % plots.COLORS) for k, title in enumerate(RULES.values())]
    return page(
        title="rlmerge lab: do RL experts merge better?",
        heading="Do RL experts merge better or worse than supervised ones?",
        summary=f"{headline(study)}. {tally(judged)}.",
        sections=sections,
        footer=f"Schemas {study['schema']} and {judged['schema']}. {scoring(study)}",
        legend=legend([*arms, *rules], "Show or hide arms and rules"),
        legend_after=3,
    )


def _answer(judged: Result) -> str:
    lines = answers(judged) or ["This study holds no RL and SFT merges to compare."]
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    untested = f"<p class=soft>Not tested here: {escape('; '.join(judged['untested']))}.</p>"
    rule = f"<p class=soft>{escape(judged['rule'])} {escape(judged['adjustment'])} {escape(many(judged))}</p>"
    return panel(said) + rule + untested


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


def _gains(study: Result, judged: Result) -> str:
    pictures = [plots.differences(study, judged), *(plots.gains(study, judged, rule) for rule in RULES)]
    return _pictures(pictures) + _tables(sheets.denominators(judged))


def _rounding(judged: Result) -> str:
    shares = [sheets.survival(judged, field) for field in ("survival", "erased")]
    return _tables(sheets.exact_output(judged), *shares)


def _pictured(sheet: Sheet, pictures: Sequence[Picture]) -> str:
    return _tables(sheet) + _pictures(pictures)


def _pictures(pictures: Sequence[Picture]) -> str:
    drawn = [plot(p.title, p.note, p.svg, _sheet(p.sheet)) for p in pictures if p.sheet.rows]
    return grid("".join(drawn)) if drawn else ""


def _tables(*shown: Sheet) -> str:
    panels = [panel(_sheet(sheet)) for sheet in shown if sheet.rows]
    return grid("".join(panels), "grid one") if panels else ""


def _sheet(sheet: Sheet) -> str:
    return table(sheet.caption, sheet.head, sheet.rows)


def _run(study: Result) -> str:
    arms = sheets.arms(study)
    tables = [table("The run", ["what", "value"], facts(study), "wrap")]
    tables += [table(arms.caption, arms.head, arms.rows, "wrap")] if arms.rows else []
    return grid("".join(map(panel, tables)), "grid one")

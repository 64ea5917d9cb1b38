"""A study as a Markdown page with its pictures as SVG files beside it, for a repository or a documentation site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlmerge.text import plain

from . import plots, ranking, sheets
from .parts import Picture, Sheet
from .standalone import standalone
from .words import (
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

Result = Mapping[str, Any]

PAGE = "README.md"
LANDSCAPES = 4


def study_markdown(study: Result, judged: Result) -> dict[str, str]:
    """File names and contents: ``README.md`` and the pictures that it shows.

    ``study`` is the dict of schema ``rlmerge.lab.study/1``, ``judged`` that of ``rlmerge.lab.verdicts/1``.
    """
    pictures = {
        "experts": plots.updates(judged),
        "gains": [plots.differences(study, judged), plots.gains(study, judged, "tuned")],
        "methods": ranking.pictures_of_methods(judged),
        "students": ranking.pictures_of_students(judged),
        "scale": plots.scales(study, judged),
        "conflict": plots.conflicts(judged),
        "landscape": _some(plots.landscapes(study)),
    }
    pictures = {key: [picture for picture in found if picture.sheet.rows] for key, found in pictures.items()}
    shares = [sheets.survival(judged, field) for field in ("survival", "erased")]
    parts = [
        f"# {question(study)}",
        f"{headline(study)}. {tally(judged)}. {scoring(study)}",
        "This page is the output of the command below; no number on it was typed.",
        f"```bash\n{plain(study.get('command', 'unknown'))}\n```",
        *_section("The open question", *answers(judged)),
        *_section("Methods on RL experts", *map(text, method_answers(judged))),
        text(judged["rule"]),
        text(f"{judged['adjustment']} {many(judged)}"),
        *_section("Verdicts", *_tables(_overview(judged))),
        *_section("What was run", *_tables(Sheet("", ["what", "value"], facts(study)), sheets.arms(study))),
        *_section("The experts", *_tables(sheets.experts(judged)), *_images(pictures["experts"])),
        *_section(
            "What merges keep",
            *_images(pictures["gains"]),
            *_tables(sheets.differences(judged), *(sheets.gains(judged, rule) for rule in RULES)),
            *_tables(sheets.denominators(judged)),
        ),
        *_section(
            "Coordinates or rotations",
            *_tables(ranking.ranked(judged)),
            *_images(pictures["methods"]),
            *_tables(ranking.by_layer(judged)),
        ),
        *_section("Off task", *_tables(*(ranking.off_task(judged, rule) for rule in RULES))),
        *_section("Merge or distil?", *_images(pictures["students"]), *_tables(ranking.students(judged))),
        *_section("The scale of the merged update", *_images(pictures["scale"])),
        *_section("Overlap and conflict", *_tables(sheets.geometry(judged)), *_images(pictures["conflict"])),
        *_section("What rounding takes", *_tables(sheets.exact_output(judged), *shares)),
        *_section("Landscape", *_images(pictures["landscape"])),
        *_section("Generated text", *_tables(sheets.health(judged))),
        *_section("Every claim in full", *_claims(judged)),
        *_section("Not tested here", *_tables(sheets.untested(judged))),
    ]
    drawn = {
        _file(picture): standalone(picture.svg, picture.legend) for found in pictures.values() for picture in found
    }
    return {PAGE: "\n\n".join(parts) + "\n", **drawn}


def text(words: str) -> str:
    """Words that Markdown shows as they are, on one line."""
    words = plain(words)
    for sign in "\\*_[]`|":
        words = words.replace(sign, f"\\{sign}")
    return words.replace("<", "&lt;")


def _section(title: str, *parts: str) -> list[str]:
    return [f"## {title}", *parts] if parts else []


def _tables(*shown: Sheet) -> list[str]:
    return [table(sheet) for sheet in shown if sheet.rows]


def table(sheet: Sheet) -> str:
    """The table in Markdown, its caption above it."""
    lines = [_row(sheet.head), "|" + " --- |" * len(sheet.head), *map(_row, sheet.rows)]
    return "\n".join([*([f"{text(sheet.caption)}:", ""] if sheet.caption else []), *lines])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(text, cells))} |"


def _images(pictures: Iterable[Picture]) -> list[str]:
    return [f"![{text(picture.title)}]({_file(picture)})\n\n{text(picture.note)}" for picture in pictures]


def _file(picture: Picture) -> str:
    return f"{picture.key}.svg"


def _overview(judged: Result) -> Sheet:
    """Each claim in a row."""
    rows = [
        [
            verdict["claim"],
            verdict["source"],
            f"{MARKS[verdict['verdict']]} {verdict['verdict']}",
            verdict["adjusted"],
            "; ".join(map(figure_line, verdict["decides"])),
        ]
        for _, verdicts in grouped(judged)
        for verdict in verdicts
    ]
    return Sheet("", ["claim", "source", "verdict", "among all comparisons", "figures that decide"], rows)


def _claims(judged: Result) -> list[str]:
    parts: list[str] = []
    for title, verdicts in grouped(judged):
        parts.append(f"### {title}")
        parts += [_claim(verdict) for verdict in verdicts]
    return parts


def _claim(verdict: Result) -> str:
    facts = [f"Source: {verdict['source']}"]
    facts += [f"Decides: {figure_line(figure)}; {claimed_line(figure)}" for figure in verdict["decides"]]
    facts.append(f"Why: {verdict['reason']}")
    facts.append(f"Control: {verdict['control']}")
    facts += [f"Control: {control_line(figure)}" for figure in verdict["controls"] if figure["value"] is not None]
    facts += [f"Beside: {line}" for line in beside_lines(verdict)]
    facts.append(f"Cannot say: {verdict['cannot_say']}")
    head = f"**{text(verdict['claim'])}** {MARKS[verdict['verdict']]} {adjusted(verdict)}"
    return "\n".join([head, "", *(f"- {text(fact)}" for fact in facts)])


def _some(pictures: Sequence[Picture]) -> list[Picture]:
    """A few pictures, as many of each arm: they come arm by arm."""
    step = max(1, -(-len(pictures) // LANDSCAPES))
    return list(pictures[::step])

"""A study in a terminal: the open question and every verdict first, then the figures behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlmerge.text import plain

from . import study_sheets as sheets
from .console import Column, fitted, render
from .study_lines import LEVELS, MARKS, adjusted, figure_line
from .study_sheets import Sheet
from .study_words import answers, facts, grouped, headline, many, tally

if TYPE_CHECKING:
    from rich.console import RenderableType

Result = Mapping[str, Any]

STYLES = {"good": "bold green", "problem": "bold red", "info": "bold yellow"}


def study_text(study: Result, judged: Result, *, width: int, color: bool) -> str:
    """The report of a study's dict and its verdicts' dict in at most ``width`` columns, 60 or more."""
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{plain(headline(study))}. {tally(judged)}.", style="bold"), ""]
    parts += [Text(plain(line)) for line in answers(judged)]
    for title, verdicts in grouped(judged):
        parts += ["", Text(title, style="bold cyan")]
        for verdict in verdicts:
            parts += _verdict(verdict)
    parts += ["", Text(many(judged), style="dim")]
    for sheet in (
        sheets.experts(judged),
        *(sheets.gains(judged, rule) for rule in ("default", "tuned")),
        sheets.differences(judged),
        sheets.geometry(judged),
        sheets.exact_output(judged),
        sheets.health(judged),
    ):
        if sheet.rows:
            parts += ["", Text(sheet.caption, style="bold cyan"), *_fit(sheet, width)]
    parts += ["", Text("The run", style="bold cyan")]
    parts += [Text.assemble((f"{plain(name)}: ", "bold"), plain(value)) for name, value in facts(study)]
    return render(parts, width, color)


def _verdict(verdict: Result) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    mark, style = MARKS[verdict["verdict"]], STYLES[LEVELS[verdict["verdict"]]]
    head = Text.assemble((f"{mark} {adjusted(verdict)}: ", style), (plain(verdict["claim"]), "bold"))
    return [head, *(Padding(Text(plain(figure_line(f)), style="dim"), (0, 0, 0, 2)) for f in verdict["decides"])]


def _fit(sheet: Sheet, width: int) -> list[RenderableType]:
    """The sheet, without its last columns where they do not fit; which ones is said below."""
    from rich.text import Text

    columns = [
        Column(plain(title), [plain(row[i]) for row in sheet.rows], rank=i, left=i == 0)
        for i, title in enumerate(sheet.head)
    ]
    table, gone = fitted(_apart(columns), width)
    return [table, *([Text(f"Left out at this width: {', '.join(gone)}.", style="dim")] if gone else [])]


def _apart(columns: Sequence[Column]) -> list[Column]:
    """Columns with titles of their own: the p of each rule is told apart by what it follows."""
    found: list[Column] = []
    for column in columns:
        title = f"p, {found[-1].title}" if column.title == "p" and found else column.title
        found.append(Column(title, column.cells, column.rank, column.left))
    return found

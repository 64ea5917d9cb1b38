"""The scale study on a terminal, as files, and as one HTML page: verdicts first, then pictures and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from rlmerge import __version__
from rlmerge.report.console import render
from rlmerge.report.page import finding, findings, page, panel
from rlmerge.report.tables import table
from rlmerge.text import plain
from rlmerge_lab.scaling import Outcome, article
from rlmerge_lab.scaling.verdict import Claim, Verdict

from .parts import html_pictures, html_sheets, text_sheet
from .standalone import standalone

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS = {Verdict.REPRODUCED: "✓", Verdict.IN_KIND: "≈", Verdict.NOT_REPRODUCED: "✗"}
LEVELS = {Verdict.REPRODUCED: "good", Verdict.IN_KIND: "warning", Verdict.NOT_REPRODUCED: "problem"}
STYLES = {Verdict.REPRODUCED: "green", Verdict.IN_KIND: "yellow", Verdict.NOT_REPRODUCED: "red"}


def scaling_html(outcomes: Sequence[Outcome], seed: int) -> str:
    """The whole report. Deterministic for the same outcomes but for the seconds they took."""
    return page(
        title="Does sparsity persist? The scale study, run again",
        heading="Does sparsity persist? The scale study, run again",
        summary=f"The statements of “{article.PAPER}” held against computations of our own.",
        sections=[
            ("verdicts", "Verdicts", _counts(outcomes)),
            *((outcome.name, outcome.title, _section(outcome)) for outcome in outcomes),
        ],
        footer=f"rlmerge {__version__}, seed {seed}.",
    )


def _counts(outcomes: Sequence[Outcome]) -> str:
    """How many statements of each study got which verdict, and what the verdicts mean."""
    rows = [[o.title, *(str(o.count(v)) for v in Verdict)] for o in outcomes]
    rows.append(["all", *(str(sum(o.count(v) for o in outcomes)) for v in Verdict)])
    head = ["study", *(f"{MARKS[v]} {v}" for v in Verdict)]
    meaning = (
        "<p class=soft>A statement is <b>reproduced</b> when our computation gives the printed number, <b>reproduced in"
        " kind</b> when the effect comes out but the number hangs on a choice the paper does not print or was put in by"
        " the simulation, and <b>not reproduced</b> otherwise, with the reason.</p>"
    )
    return meaning + panel(table("Statements by study and verdict", head, rows))


def _section(outcome: Outcome) -> str:
    said = f"{outcome.summary} {outcome.tally.capitalize()}; {outcome.seconds:.1f} s."
    return (
        f"<p class=soft>{escape(said)}</p>"
        + findings(map(_finding, outcome.claims))
        + '<h3 style="margin: 24px 0 8px">Pictures and numbers</h3>'
        + html_pictures(outcome.pictures, named=True)
        + html_sheets(outcome.tables)
    )


def _finding(claim: Claim) -> str:
    numbers = (
        f"<p>{escape(claim.where)}: <b>{escape(claim.paper)}</b>. Ours: <b>{escape(claim.ours)}</b>.</p>"
        f"<p>{escape(claim.reason)}</p>"
    )
    label = f"{MARKS[claim.verdict]} {claim.verdict}"
    return finding(LEVELS[claim.verdict], claim.statement, "", numbers, label=label)


def scaling_text(outcome: Outcome, *, width: int, color: bool) -> str:
    """One study for a terminal of ``width`` columns."""
    from rich.text import Text

    parts: list[RenderableType] = [Text(outcome.title, style="bold"), Text(outcome.summary, style="dim")]
    for claim in outcome.claims:
        parts += ["", *_claim(claim)]
    for sheet in outcome.tables:
        parts += ["", Text(sheet.caption, style="bold cyan"), *text_sheet(sheet, width)]
        parts += [Text(sheet.note, style="dim")] if sheet.note else []
    seed = getattr(outcome.result, "seed", None)
    drawn = "nothing is drawn" if seed is None else f"seed {seed}"
    parts += ["", Text(f"{outcome.tally}; {drawn}; {outcome.seconds:.1f} s", style="bold")]
    return render(parts, width, color)


def _claim(claim: Claim) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    verdict = (f"{MARKS[claim.verdict]} {claim.verdict}  ", STYLES[claim.verdict])
    head = Text.assemble(verdict, (plain(claim.statement), "bold"), (f"  {claim.where}", "dim"))
    numbers = Text.assemble("paper ", (claim.paper, "cyan"), "   ours ", (plain(claim.ours), "cyan"))
    return [head, *(Padding(text, (0, 0, 0, 2)) for text in (numbers, Text(plain(claim.reason))))]


def scaling_files(outcome: Outcome) -> dict[str, str]:
    """Names and contents: the result as JSON, tables as CSV, pictures as SVG that needs nothing else."""
    result = json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return {
        f"{outcome.name}.json": result,
        **{f"{sheet.name}.csv": sheet.to_csv() for sheet in outcome.tables},
        **{f"{picture.key}.svg": standalone(picture.svg, picture.legend) for picture in outcome.pictures},
    }
